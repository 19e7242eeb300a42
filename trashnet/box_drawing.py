"""Draws boxes and their labels on images, for the viewer and for the thumbnails of the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Of the drawn image, which fills a third of a wide page on a screen with two pixels per CSS pixel.
MAX_WIDTH, MAX_HEIGHT = 960, 1280
NEAR_BLACK, WHITE = "#111111", "#ffffff"
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, both ends included


@dataclass(frozen=True, slots=True)
class BoxOverlay:
    """One box to draw: ``(x, y, w, h)`` in pixels of the image, label, colour ``#rrggbb``, line."""

    box: tuple[float, float, float, float]
    text: str
    colour: str
    line: Literal["solid", "dashed"] = "solid"


def draw_boxes(image: NDArray[np.uint8], overlays: Sequence[BoxOverlay]) -> NDArray[np.uint8]:
    """Draw boxes with labels on a copy of an image.

    The copy is scaled to fit 960 × 1280 pixels. Small images are enlarged, so their labels are sharp too.
    The first overlay lies on top, and its label is placed first. Dashed boxes have white labels.

    Args:
        image: uint8 ``(height, width, 3)``, RGB.
        overlays: The boxes, in pixels of ``image``; parts outside the image are clipped.

    Returns:
        uint8 ``(new height, new width, 3)``, RGB.
    """
    height, width = image.shape[:2]
    scale = min(MAX_WIDTH / width, MAX_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = Image.fromarray(image).resize(
        size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(canvas)
    line = line_width(*size)
    font = ImageFont.load_default(max(11, round(math.sqrt(size[0] * size[1]) / 26)))
    rectangles = [_rectangle(overlay, size[0] / width, size[1] / height, size) for overlay in overlays]
    for overlay, rectangle in reversed(list(zip(overlays, rectangles, strict=True))):
        _outline(
            draw,
            rectangle if overlay.line == "solid" else _expand(rectangle, line + 1, size),
            overlay,
            line,
        )
    labels: list[Rectangle] = []
    for overlay, rectangle in zip(overlays, rectangles, strict=True):
        labels.append(_label_position(draw, font, overlay.text, rectangle, labels, size, line))
    for overlay, rectangle, label in reversed(list(zip(overlays, rectangles, labels, strict=True))):
        if not _overlap_area(label, rectangle):
            draw.line((*_centre(label), *_centre(rectangle)), fill=overlay.colour, width=line)
        background = overlay.colour if overlay.line == "solid" else WHITE
        draw.rectangle(label, fill=background, outline=overlay.colour, width=max(1, line // 2))
        draw.text(_centre(label), overlay.text, fill=text_colour(background), font=font, anchor="mm")
    return np.asarray(canvas)


def line_width(width: int, height: int) -> int:
    """Width of an outline in pixels: 1/240 of the side of a square of the image's area, at least 2."""
    return max(2, round(math.sqrt(width * height) / 240))


def text_colour(background: str) -> str:
    """Black or white, whichever contrasts more with ``#rrggbb`` (contrast ratio of WCAG 2.2)."""
    light = luminance(background)
    on_white, on_black = (1 + 0.05) / (light + 0.05), (light + 0.05) / (luminance(NEAR_BLACK) + 0.05)
    return WHITE if on_white >= on_black else NEAR_BLACK


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 (black) to 1 (white). Source: WCAG 2.2, "relative luminance"."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rectangle(overlay: BoxOverlay, scale_x: float, scale_y: float, size: tuple[int, int]) -> Rectangle:
    x, y, w, h = overlay.box
    left, top = _clamp(round(x * scale_x), size[0]), _clamp(round(y * scale_y), size[1])
    right, bottom = (
        _clamp(round((x + w) * scale_x) - 1, size[0]),
        _clamp(round((y + h) * scale_y) - 1, size[1]),
    )
    return left, top, max(right, left), max(bottom, top)


def _clamp(pixel: int, size: int) -> int:
    return min(max(pixel, 0), size - 1)


def _outline(draw: ImageDraw.ImageDraw, rectangle: Rectangle, overlay: BoxOverlay, line: int) -> None:
    left, top, right, bottom = rectangle
    halo = WHITE if text_colour(overlay.colour) == WHITE and luminance(overlay.colour) < 0.05 else NEAR_BLACK
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=halo, width=line + 2)
    if overlay.line == "solid":
        draw.rectangle(rectangle, outline=overlay.colour, width=line)
        return
    dash = 4 * line
    for start in range(left, right + 1, dash):  # every other dash is the colour, those between are white
        fill = overlay.colour if (start - left) // dash % 2 == 0 else WHITE
        end = min(start + dash - 1, right)
        draw.rectangle((start, top, end, min(top + line - 1, bottom)), fill=fill)
        draw.rectangle((start, max(bottom - line + 1, top), end, bottom), fill=fill)
    for start in range(top, bottom + 1, dash):
        fill = overlay.colour if (start - top) // dash % 2 == 0 else WHITE
        end = min(start + dash - 1, bottom)
        draw.rectangle((left, start, min(left + line - 1, right), end), fill=fill)
        draw.rectangle((max(right - line + 1, left), start, right, end), fill=fill)


def _label_position(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    rectangle: Rectangle,
    occupied: Sequence[Rectangle],
    size: tuple[int, int],
    line: int,
) -> Rectangle:
    """The position in the image that covers least of the occupied ones: beside, inside or near the box."""
    ascent = draw.textbbox((0, 0), "Ag", font=font, anchor="lt")[3]
    width = round(draw.textlength(text, font=font)) + 4 * line
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

    def cost(position: Rectangle) -> int:
        return sum(_overlap_area(position, other) for other in occupied) + (
            0 if _overlap_area(position, rectangle) else width * height // 4
        )

    positions = []
    for x, y in beside + inside + away:
        x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        positions.append((x, y, x + width - 1, y + height - 1))
    return min(positions, key=cost)  # the first of the best


def _expand(rectangle: Rectangle, by: int, size: tuple[int, int]) -> Rectangle:
    """The rectangle with a margin, clipped: a ground-truth box must not hide a detection that equals it."""
    left, top, right, bottom = rectangle
    return (
        _clamp(left - by, size[0]),
        _clamp(top - by, size[1]),
        _clamp(right + by, size[0]),
        _clamp(bottom + by, size[1]),
    )


def _overlap_area(a: Rectangle, b: Rectangle) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)


def _centre(rectangle: Rectangle) -> tuple[float, float]:
    return (rectangle[0] + rectangle[2]) / 2, (rectangle[1] + rectangle[3]) / 2


def draw_thumbnail_box(
    canvas: NDArray[np.uint8],
    box: NDArray[np.float64],
    colour: tuple[int, int, int],
    label: str,
    *,
    below: bool = False,
) -> None:
    """Outline a box on a thumbnail, in position, and write its label on a filled strip above it.

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
