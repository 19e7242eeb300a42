"""A pen that draws shapes with soft edges, opacity and material on a square canvas in unit coordinates."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2), x right and y down, the canvas spans -1..1
Plane = NDArray[np.float32]
Colour = NDArray[np.float32]  # (3,), RGB 0..1

MARGIN = 0.94  # of the half canvas: soft edges end before the border
SUBPIXEL = 4  # bits that OpenCV keeps below the pixel


def rect(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Points:
    """A rectangle from its corners, rounded by ``radius``."""
    if radius <= 0:
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
    r = min(radius, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
    centres = ((x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180))
    return np.concatenate([oval(cx, cy, r, r, a, a + 90, 6) for cx, cy, a in centres])


def oval(
    cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0, n: int = 36
) -> Points:
    """An ellipse, or its arc between two angles in degrees (0 right, 90 down)."""
    a = np.radians(np.linspace(start, end, n))
    return np.stack([cx + rx * np.cos(a), cy + ry * np.sin(a)], axis=1)


def zigzag(start: Sequence[float], end: Sequence[float], teeth: int, depth: float) -> Points:
    """A toothed line between two points, teeth ``depth`` to its left."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    across = np.array([b[1] - a[1], a[0] - b[0]])
    across /= max(float(np.hypot(*across)), 1e-9)
    t = np.linspace(0, 1, 2 * teeth + 1)
    return np.asarray(a + t[:, None] * (b - a) + (np.arange(2 * teeth + 1) % 2)[:, None] * across * depth)


def curve(points: Points, n: int = 40, closed: bool = False) -> Points:
    """A smooth line (Catmull-Rom) through the points."""
    p = (
        np.concatenate([points[-1:], points, points[:2]])
        if closed
        else np.concatenate([points[:1], points, points[-1:]])
    )
    spans = len(p) - 3
    t = np.linspace(0, spans, n, endpoint=not closed)
    i = np.minimum(t.astype(int), spans - 1)
    u = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return np.asarray(
        0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)
    )


def rgb(hexadecimal: str) -> Colour:
    """``"#rrggbb"`` as RGB 0..1."""
    return np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / np.float32(255)


def mirrored(right: list[tuple[float, float]]) -> Points:
    """An outline from its right half, top to bottom."""
    half = np.array(right, float)
    return np.concatenate([half, (half * [-1, 1])[::-1]])


WHITE, BLACK = rgb("#ffffff"), rgb("#101010")
BRIGHT = "#d8262c #1f6fc4 #f2b705 #2e9e4f #e8641b #7a3fa0"
STEEL = "#aeb4ba #9aa1a8 #c3c7ca"
BROWN = "#b08a5a #a67c4b #bd9768"
ICE = "#c4e2ee #d6ebf2 #b5d8e6"


class Pen:
    """Draws one item on a canvas of S x S pixels.

    All planes are float32 and 0..1: ``colour`` ``(S, S, 3)``, premultiplied; ``opacity`` ``(S, S)``; and
    ``shape`` ``(S, S)``, the filled outline.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.colour = np.zeros((size, size, 3), np.float32)
        self.opacity = np.zeros((size, size), np.float32)
        self.shape = np.zeros((size, size), np.float32)

    # Random draws
    # ------------------------------------------------------------

    def between(self, low: float, high: float) -> float:
        """Draw a number from an interval."""
        return float(self.rng.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """Draw a whole number; both ends are included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        """Return true with probability ``p``."""
        return bool(self.rng.random() < p)

    def pick(self, colours: str, spread: float = 0.05) -> Colour:
        """Pick one of several colours (``"#aabbcc #ddeeff"``), and vary its lightness and tint a little."""
        names = colours.split()
        base = rgb(names[int(self.rng.integers(len(names)))])
        return np.clip(
            base * self.between(1 - 2 * spread, 1 + 2 * spread) + self.rng.normal(0, spread / 2, 3), 0, 1
        ).astype(np.float32)

    def blob(self, rx: float, ry: float, corners: int, rough: float, smooth: bool = True) -> Points:
        """Make a closed irregular outline about the centre; the radii of its corners vary by ``rough``."""
        a = (
            np.linspace(0, 2 * np.pi, corners, endpoint=False)
            + self.rng.uniform(-1.2, 1.2, corners) / corners
        )
        r = 1 - rough * self.rng.random(corners)
        points = np.stack([rx * r * np.cos(a), ry * r * np.sin(a)], axis=1)
        return curve(points, 8 * corners, closed=True) if smooth else points

    # Paint
    # ------------------------------------------------------------

    def fill(self, outline: Points, colour: Colour, opacity: float = 1.0, atop: bool = False) -> None:
        """Paint a closed outline; ``atop`` paints only on what is there already."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [self._pixels(outline)], 255, cv2.LINE_AA, SUBPIXEL)
        self._paint(mask, colour, opacity, atop)

    def line(
        self,
        points: Points,
        width: float,
        colour: Colour,
        opacity: float = 1.0,
        atop: bool = False,
        closed: bool = False,
    ) -> None:
        """Paint a line of a width given in units."""
        mask = np.zeros((self.size, self.size), np.uint8)
        thickness = max(1, round(width * self.size / 2 * MARGIN))
        cv2.polylines(mask, [self._pixels(points)], closed, 255, thickness, cv2.LINE_AA, SUBPIXEL)
        self._paint(mask, colour, opacity, atop)

    def cut(self, outline: Points) -> None:
        """Cut a hole that shows what lies beneath."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [self._pixels(outline)], 255, cv2.LINE_AA, SUBPIXEL)
        keep = 1 - mask.astype(np.float32) / 255
        self.shape *= keep
        self.opacity *= keep
        self.colour *= keep[..., None]

    def words(
        self, x0: float, y0: float, x1: float, y1: float, rows: int, colour: Colour, opacity: float = 0.8
    ) -> None:
        """Paint rows of print: each word is a dash."""
        pitch = (y1 - y0) / rows
        for row in range(rows):
            x, y = x0, y0 + (row + 0.5) * pitch
            stop = x1 if row < rows - 1 else x0 + (x1 - x0) * self.between(0.4, 1)
            while x < stop:
                word = self.between(0.06, 0.2)
                self.line(
                    np.array([[x, y], [min(x + word, stop), y]]), 0.45 * pitch, colour, opacity, atop=True
                )
                x += word + 0.05

    # Material
    # ------------------------------------------------------------

    @cached_property
    def grid(self) -> tuple[Plane, Plane]:
        """Unit coordinates ``x, y`` of every pixel."""
        u = ((np.arange(self.size, dtype=np.float32) + 0.5) * 2 / self.size - 1) / MARGIN
        return np.broadcast_to(u, (self.size, self.size)), np.broadcast_to(u[:, None], (self.size, self.size))

    def shade(self, factor: NDArray[np.floating[Any]]) -> None:
        """Multiply the colours by a plane (1 leaves them)."""
        self.colour *= factor.astype(np.float32)[..., None]
        np.minimum(self.colour, self.opacity[..., None], out=self.colour)

    def cylinder(self, half: float, strength: float = 0.5, light: float = -0.35) -> None:
        """Shade an upright cylinder of half width ``half``, lit from ``light`` (-1 left, 1 right)."""
        x = np.clip(self.grid[0] / half, -1, 1)
        self.shade(
            1 + strength * (0.35 - 0.9 * (x - light) ** 2 + 0.9 * np.exp(-(((x - light) / 0.12) ** 2)))
        )

    def facets(self, cells: int, strength: float) -> None:
        """Shade the item as crumpled: flat facets (a Voronoi diagram) with random tilts."""
        seeds = self.rng.uniform(-1.05, 1.05, (cells, 2)).astype(np.float32)
        tilt = self.rng.normal(0, strength, (cells, 3)).astype(np.float32)
        n = min(self.size, 96)
        u = (np.arange(n, dtype=np.float32) + 0.5) * 2 / n - 1
        nearest = ((u[None, :, None] - seeds[:, 0]) ** 2 + (u[:, None, None] - seeds[:, 1]) ** 2).argmin(2)
        dx, dy = u[None, :] - seeds[nearest, 0], u[:, None] - seeds[nearest, 1]
        plane = 1 + tilt[nearest, 0] + 1.5 * (tilt[nearest, 1] * dx + tilt[nearest, 2] * dy)
        self.shade(
            cv2.resize(
                plane.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_LINEAR
            ).astype(np.float32)
        )

    def grain(self, cells: int, strength: float) -> None:
        """Shade the item as uneven material: smooth noise of ``cells`` across the canvas."""
        noise = self.rng.normal(1, strength, (cells, cells)).astype(np.float32)
        self.shade(
            cv2.resize(noise, (self.size, self.size), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        )

    def gleam(self, streaks: int, length: float, width: float, opacity: float = 0.6) -> None:
        """Paint bright streaks, as light makes on folds of plastic."""
        for _ in range(streaks):
            x, y, a = self.between(-0.8, 0.8), self.between(-0.8, 0.8), self.between(0, np.pi)
            centre = np.array([x, y])
            step = length * self.between(0.4, 1) / 2 * np.array([np.cos(a), np.sin(a)])
            bend = self.rng.normal(0, 0.25, 2) * length / 2
            line = curve(np.array([centre - step, centre + bend, centre + step]), 12)
            self.line(
                line,
                width * self.between(0.5, 1.3),
                np.ones(3, np.float32),
                opacity * self.between(0.5, 1),
                atop=True,
            )

    def edge(self, width: float, colour: Colour, opacity: float) -> None:
        """Trace the outline of all that is drawn, inside it."""
        k = max(1, round(width * self.size / 2))
        inner = cv2.erode(
            self.shape, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * k + 1, 2 * k + 1)), borderValue=0
        )
        rim = cv2.GaussianBlur(np.maximum(self.shape - inner, 0), (0, 0), max(0.6, k / 3)) * self.shape
        self._paint((np.clip(rim, 0, 1) * 255).astype(np.uint8), colour, opacity, atop=True)

    def _pixels(self, points: Points) -> NDArray[np.int32]:
        pixels = (np.asarray(points, float) * MARGIN + 1) * self.size / 2 - 0.5
        return np.round(pixels * (1 << SUBPIXEL)).astype(np.int32)

    def _paint(self, mask: NDArray[np.uint8], colour: Colour, opacity: float, atop: bool) -> None:
        x, y, w, h = cv2.boundingRect(mask)
        window = np.s_[y : y + h, x : x + w]
        cover = mask[window].astype(np.float32) / np.float32(255)
        if atop:
            cover *= self.shape[window]
        else:
            np.maximum(self.shape[window], cover, out=self.shape[window])
        cover *= np.float32(opacity)
        self.colour[window] += cover[..., None] * (colour - self.colour[window])
        self.opacity[window] += cover * (1 - self.opacity[window])
