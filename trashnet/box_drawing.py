"""Boxes on a picture that can be read: outlines with a halo, labels in a colour that contrasts, none on top
of another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAX_WIDTH, MAX_HEIGHT = (
    960,
    1280,
)  # of the drawn picture: two pixels of a screen for each of a third of a wide page
INK, PAPER = "#111111", "#ffffff"
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, both ends included


@dataclass(frozen=True, slots=True)
class Mark:
    """One box to draw: ``(x, y, w, h)`` in pixels of the picture, the words on it, its colour ``#rrggbb``.

    ``solid`` or ``dashed``.
    """

    box: tuple[float, float, float, float]
    text: str
    colour: str
    line: Literal["solid", "dashed"] = "solid"


def draw(image: NDArray[np.uint8], marks: Sequence[Mark]) -> NDArray[np.uint8]:
    """Draw marks on a copy of an RGB picture, uint8 ``(height, width, 3)``.

    The copy is scaled to fit 960 × 1280 pixels.

    Small pictures are enlarged too, so that the words are as sharp as on large ones. The first mark lies on
    top and keeps the best place for its label. Dashed marks have a white label.
    """
    height, width = image.shape[:2]
    scale = min(MAX_WIDTH / width, MAX_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = Image.fromarray(image).resize(
        size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    )
    pen = ImageDraw.Draw(canvas)
    line = line_width(*size)
    font = ImageFont.load_default(max(11, round(math.sqrt(size[0] * size[1]) / 26)))
    rectangles = [_rectangle(mark, size[0] / width, size[1] / height, size) for mark in marks]
    for mark, rectangle in reversed(list(zip(marks, rectangles, strict=True))):
        _outline(pen, rectangle if mark.line == "solid" else _around(rectangle, line + 1, size), mark, line)
    labels: list[Rectangle] = []
    for mark, rectangle in zip(marks, rectangles, strict=True):
        labels.append(_label_place(pen, font, mark.text, rectangle, labels, size, line))
    for mark, rectangle, label in reversed(list(zip(marks, rectangles, labels, strict=True))):
        if not _overlap(label, rectangle):
            pen.line((*_middle(label), *_middle(rectangle)), fill=mark.colour, width=line)
        background = mark.colour if mark.line == "solid" else PAPER
        pen.rectangle(label, fill=background, outline=mark.colour, width=max(1, line // 2))
        pen.text(_middle(label), mark.text, fill=text_colour(background), font=font, anchor="mm")
    return np.asarray(canvas)


def line_width(width: int, height: int) -> int:
    """Width of an outline in pixels for a picture of this size: 1/240 of the side of a square of its area, 2
    at the least.
    """
    return max(2, round(math.sqrt(width * height) / 240))


def text_colour(background: str) -> str:
    """Black or white, whichever contrasts more with ``#rrggbb`` (contrast ratio of WCAG 2.2)."""
    light = luminance(background)
    on_white, on_black = (1 + 0.05) / (light + 0.05), (light + 0.05) / (luminance(INK) + 0.05)
    return PAPER if on_white >= on_black else INK


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 (black) to 1 (white). Source: WCAG 2.2, "relative luminance"."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rectangle(mark: Mark, scale_x: float, scale_y: float, size: tuple[int, int]) -> Rectangle:
    x, y, w, h = mark.box
    left, top = _within(round(x * scale_x), size[0]), _within(round(y * scale_y), size[1])
    right, bottom = (
        _within(round((x + w) * scale_x) - 1, size[0]),
        _within(round((y + h) * scale_y) - 1, size[1]),
    )
    return left, top, max(right, left), max(bottom, top)


def _within(pixel: int, size: int) -> int:
    return min(max(pixel, 0), size - 1)


def _outline(pen: ImageDraw.ImageDraw, rectangle: Rectangle, mark: Mark, line: int) -> None:
    left, top, right, bottom = rectangle
    halo = PAPER if text_colour(mark.colour) == PAPER and luminance(mark.colour) < 0.05 else INK
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=halo, width=line + 2)
    if mark.line == "solid":
        pen.rectangle(rectangle, outline=mark.colour, width=line)
        return
    dash = 4 * line
    for start in range(left, right + 1, dash):  # every other dash is the colour, those between are white
        fill = mark.colour if (start - left) // dash % 2 == 0 else PAPER
        end = min(start + dash - 1, right)
        pen.rectangle((start, top, end, min(top + line - 1, bottom)), fill=fill)
        pen.rectangle((start, max(bottom - line + 1, top), end, bottom), fill=fill)
    for start in range(top, bottom + 1, dash):
        fill = mark.colour if (start - top) // dash % 2 == 0 else PAPER
        end = min(start + dash - 1, bottom)
        pen.rectangle((left, start, min(left + line - 1, right), end), fill=fill)
        pen.rectangle((max(right - line + 1, left), start, right, end), fill=fill)


def _label_place(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    rectangle: Rectangle,
    taken: Sequence[Rectangle],
    size: tuple[int, int],
    line: int,
) -> Rectangle:
    """Where a label covers least of those before it: touching its box from outside, within it, or not far
    off; always in the picture.
    """
    ascent = pen.textbbox((0, 0), "Ag", font=font, anchor="lt")[3]
    width = round(pen.textlength(text, font=font)) + 4 * line
    height = round(ascent) + 3 * line
    left, top, right, bottom = rectangle
    beside = [
        (left, top - height + 1),
        (right - width + 1, top - height + 1),
        (left, bottom),
        (right - width + 1, bottom),
    ]
    inside = [
        (left, top),
        (right - width + 1, top),
        (left, bottom - height + 1),
        (right - width + 1, bottom - height + 1),
    ]
    away = [(left, y) for k in (1, 2, 3) for y in (bottom + k * height, top - (k + 1) * height + 1)]

    def cost(place: Rectangle) -> int:
        return sum(_overlap(place, other) for other in taken) + (
            0 if _overlap(place, rectangle) else width * height // 4
        )

    places = []
    for x, y in beside + inside + away:
        x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        places.append((x, y, x + width - 1, y + height - 1))
    return min(places, key=cost)  # the first of the best


def _around(rectangle: Rectangle, by: int, size: tuple[int, int]) -> Rectangle:
    """A rectangle a little outside another, within the picture: so that a person's box does not hide a
    detection that lies just on it.
    """
    left, top, right, bottom = rectangle
    return (
        _within(left - by, size[0]),
        _within(top - by, size[1]),
        _within(right + by, size[0]),
        _within(bottom + by, size[1]),
    )


def _overlap(a: Rectangle, b: Rectangle) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)


def _middle(rectangle: Rectangle) -> tuple[float, float]:
    return (rectangle[0] + rectangle[2]) / 2, (rectangle[1] + rectangle[3]) / 2


def draw_thumbnail_box(
    canvas: NDArray[np.uint8],
    box: NDArray[np.float64],
    colour: tuple[int, int, int],
    label: str,
    *,
    below: bool = False,
) -> None:
    """Outline a box on a thumbnail, in place, and write its label on a filled strip above it.

    Args:
        canvas: uint8 ``(height, width, 3)``, RGB.
        box: ``(x, y, w, h)`` in pixels of the canvas.
        colour: RGB.
        label: Text, may be empty.
        below: Write under the upper edge instead, where two labels would cover each other.
    """
    x, y, w, h = (round(float(v)) for v in box)
    cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, 2 if label else 1, cv2.LINE_AA)
    if not label:
        return
    (width, height), base = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
    left = max(0, min(x, canvas.shape[1] - width - 4))
    foot = y + height + base + 2 if below else max(height + base, y)
    cv2.rectangle(canvas, (left, foot - height - base), (left + width + 4, foot), colour, cv2.FILLED)
    cv2.putText(
        canvas,
        label,
        (left + 2, foot - base + 1),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.36,
        (255, 255, 255),
        1,
        cv2.LINE_AA,
    )
