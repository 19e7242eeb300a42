"""Synthetic scenes: overlapping items of waste on a bin's floor, lit and photographed, from one generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.drawing import Pen, drawing_of_class
from trashnet.taxonomy import Taxonomy

Plane = NDArray[np.float32]
FLOORS = ("steel", "plastic", "paper", "grate")
MIN_VISIBLE = 0.3  # fraction of an item that nothing covers; a person would not box one below about 0.25
MIN_INSIDE = 0.6  # fraction of an item that lies in the frame of every view
MAX_ATTEMPTS = 24  # positions tried for an item before it is drawn smaller


@dataclass(frozen=True, slots=True)
class Scene:
    """The items in a bin, drawn on a canvas of S x S pixels that may be larger than a view.

    ``canvas``: float32 ``(S, S, 3)``, RGB 0..1, unlit; ``visible``: bool ``(N, S, S)``, each item's pixels
    that nothing opaque covers; ``class_ids``: int64 ``(N,)``.
    """

    canvas: Plane
    visible: NDArray[np.bool_]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Light:
    """The light and lens of one burst.

    A gradient's ``direction`` (radians) and strength, RGB ``gains`` ``(3,)``, the vignette's strength, and
    the blur's sigma as a fraction of the image's side.
    """

    direction: float
    gradient: float
    gains: NDArray[np.float64]
    vignette: float
    blur: float


def draw_scene(
    rng: np.random.Generator, class_ids: Sequence[int], size: int, taxonomy: Taxonomy
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
    """Draw one view of a bin with these items.

    Every item is at least 30 % visible; an item for which no such position is found is not drawn.

    Args:
        rng: The source of all random draws.
        class_ids: The class of each item; repetitions are allowed.
        size: Side of the square image in pixels.
        taxonomy: The names of the classes.

    Returns:
        The image, uint8 RGB ``(size, size, 3)``; the boxes of the items' visible parts, float64 ``(N, 4)`` as
        ``(x, y, w, h)`` in pixels; and their class ids, int64 ``(N,)``.
    """
    scene = compose_scene(rng, class_ids, size, taxonomy, str(rng.choice(FLOORS)))
    return draw_view(rng, scene, draw_light(rng), (0, 0), size)


def draw_light(rng: np.random.Generator) -> Light:
    """Draw the light of one burst."""
    warmth = rng.normal(0, 0.06)
    gains = rng.uniform(0.8, 1.12) * np.array([1 + warmth, 1 + rng.normal(0, 0.01), 1 - warmth])
    return Light(
        rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3), gains, rng.uniform(0, 0.35), rng.uniform(0, 0.0022)
    )


def compose_scene(
    rng: np.random.Generator,
    class_ids: Sequence[int],
    size: int,
    taxonomy: Taxonomy,
    floor: str,
    margin: int = 0,
) -> Scene:
    """Put the items into a bin with this floor.

    The canvas has ``size + 2 * margin`` pixels a side, and every view of ``size`` pixels shows all items.
    """
    side = size + 2 * margin
    canvas = _floor(rng, side, size, floor)
    visible: list[NDArray[np.bool_]] = []
    areas: list[int] = []
    kept: list[int] = []
    shadow = rng.uniform(-0.015, 0.015, 2) * size
    for class_id in class_ids:
        item = _position_item(rng, drawing_of_class(taxonomy.name_of[class_id]), size, margin, visible, areas)
        if item is None:
            continue
        colour, opacity, shape, (x, y) = item
        on_canvas, on_patch = _overlap(x, y, len(shape), side)
        _draw_shadow(canvas, shape, x, y, shadow, size)
        canvas[on_canvas] = canvas[on_canvas] * (1 - opacity[on_patch][..., None]) + colour[on_patch]
        for below in visible:
            below[on_canvas] &= opacity[on_patch] < 0.5
        mask = np.zeros((side, side), bool)
        mask[on_canvas] = shape[on_patch] > 0.5
        visible.append(mask)
        areas.append(int((shape > 0.5).sum()))
        kept.append(class_id)
    planes = np.stack(visible) if visible else np.zeros((0, side, side), bool)
    return Scene(canvas, planes, np.array(kept, np.int64))


def draw_view(
    rng: np.random.Generator, scene: Scene, light: Light, corner: tuple[int, int], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
    """Photograph the window of ``size`` pixels whose top left corner is ``(x, y)``.

    Returns image, boxes and class ids, as :func:`draw_scene` does.
    """
    x, y = corner
    image = scene.canvas[y : y + size, x : x + size]
    u = (np.arange(size) + 0.5) / size * 2 - 1
    ramp = 1 + light.gradient * (np.cos(light.direction) * u[None, :] + np.sin(light.direction) * u[:, None])
    falloff = 1 - light.vignette * (u[None, :] ** 2 + u[:, None] ** 2) / 2
    image = image * (ramp * falloff)[..., None] * light.gains * rng.uniform(0.96, 1.04)
    if light.blur * size > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), light.blur * size)
    image = image + rng.normal(0, 0.009, image.shape)
    boxes = np.array(
        [_bounds(plane[y : y + size, x : x + size]) for plane in scene.visible], np.float64
    ).reshape(-1, 4)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), boxes, scene.class_ids


def _position_item(
    rng: np.random.Generator,
    drawing: tuple[float, Any],
    size: int,
    margin: int,
    visible: list[NDArray[np.bool_]],
    areas: list[int],
) -> tuple[Plane, Plane, Plane, tuple[int, int]] | None:
    """Draw an item where it and all items below are visible enough; shrink it if no position is found."""
    relative_length, draw = drawing
    length = relative_length * size * rng.uniform(0.78, 1.25)
    while length > 8:
        colour, opacity, shape = _draw_item(rng, draw, length)
        area = int((shape > 0.5).sum())
        for _ in range(MAX_ATTEMPTS):
            centre = margin + size * np.clip(rng.normal(0.5, 0.24, 2), 0.06, 0.94)
            x, y = (int(v) for v in np.round(centre - len(shape) / 2))
            if _fits(shape, opacity, x, y, area, size, margin, visible, areas):
                return colour, opacity, shape, (x, y)
        length *= 0.8
    return None


def _fits(
    shape: Plane,
    opacity: Plane,
    x: int,
    y: int,
    area: int,
    size: int,
    margin: int,
    visible: list[NDArray[np.bool_]],
    areas: list[int],
) -> bool:
    # The pixels that every view shows.
    core = slice(2 * margin, size) if margin else slice(0, size)
    side = size + 2 * margin
    on_canvas, on_patch = _overlap(x, y, len(shape), side)
    mask = np.zeros((side, side), bool)
    mask[on_canvas] = shape[on_patch] > 0.5
    if not area or mask[core, core].sum() < MIN_INSIDE * area:
        return False
    opaque = opacity[on_patch] >= 0.5
    for below, below_area in zip(visible, areas, strict=True):
        hidden = int((below[on_canvas] & opaque).sum())
        if hidden and below[core, core].sum() - hidden < MIN_VISIBLE * below_area:
            return False
    return True


def _draw_item(rng: np.random.Generator, draw: Any, length: float) -> tuple[Plane, Plane, Plane]:
    """Draw one item at twice its size, then scale, rotate and shear it; return colour, opacity, shape."""
    pen = Pen(int(np.clip(round(2 * length), 40, 480)), rng)
    draw(pen)
    scale = length / pen.size
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    squeeze = np.array([[rng.uniform(0.84, 1.1), rng.normal(0, 0.06)], [0, rng.uniform(0.84, 1.1)]])
    matrix = scale * np.array([[c, -s], [s, c]]) @ squeeze
    corners = matrix @ (np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) * pen.size / 2)
    side = int(np.ceil(2 * np.abs(corners).max())) + 2
    middle = matrix @ np.full(2, (pen.size - 1) / 2)
    affine = np.column_stack([matrix, (side - 1) / 2 - middle])
    colour = cv2.warpAffine(pen.colour, affine, (side, side), flags=cv2.INTER_LINEAR)
    masks = cv2.warpAffine(np.dstack([pen.opacity, pen.shape]), affine, (side, side), flags=cv2.INTER_LINEAR)
    return colour.astype(np.float32), masks[..., 0].astype(np.float32), masks[..., 1].astype(np.float32)


def _draw_shadow(canvas: Plane, shape: Plane, x: int, y: int, shift: NDArray[np.float64], size: int) -> None:
    """Darken the canvas below an item by its soft shadow."""
    pad = round(0.05 * size)
    soft = cv2.GaussianBlur(np.pad(shape, pad), (0, 0), 0.014 * size)
    x, y = x - pad + round(shift[0]), y - pad + round(shift[1])
    on_canvas, on_patch = _overlap(x, y, len(soft), len(canvas))
    canvas[on_canvas] *= 1 - 0.5 * soft[on_patch][..., None]


def _overlap(x: int, y: int, patch: int, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the overlap of canvas and square patch at ``(x, y)``, as slices of each."""
    x0, y0 = min(max(x, 0), side), min(max(y, 0), side)
    x1, y1 = max(min(x + patch, side), x0), max(min(y + patch, side), y0)
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def _bounds(plane: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the box ``(x, y, w, h)`` of a mask that is not empty."""
    return cv2.boundingRect(plane.astype(np.uint8))  # type: ignore[return-value]


def _floor(rng: np.random.Generator, side: int, size: int, kind: str) -> Plane:
    """Draw a bin's floor and the foot of its walls, RGB 0..1."""
    u = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.broadcast_to(u, (side, side)), np.broadcast_to(u[:, None], (side, side))
    if kind == "steel":  # brushed
        brushed = cv2.GaussianBlur(rng.normal(0, 0.3, (side, side)), (0, 0), sigmaX=size / 10, sigmaY=0.7)
        plane = 0.6 + brushed + 0.06 * np.cos(3 * x + rng.uniform(0, 6))
        tint = np.array([0.97, 1.0, 1.03])
    elif kind == "plastic":  # dark, with ribs
        ribs = 0.03 * np.sign(np.sin(rng.uniform(9, 16) * x + rng.uniform(0, 6)))
        plane = rng.uniform(0.16, 0.28) + ribs
        tint = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.12, 0.12, 3)
    elif kind == "grate":  # green plastic with drain holes
        holes = (np.sin(14 * x) * np.sin(14 * y) > 0.72).astype(np.float32)
        plane = rng.uniform(0.38, 0.5) * (1 - 0.6 * cv2.GaussianBlur(holes, (0, 0), 0.004 * size))
        tint = np.array([0.62, 1.0, 0.72])
    else:  # lined with brown paper, creased
        plane = rng.uniform(0.55, 0.68) * np.ones((side, side))
        for _ in range(5):
            a, b = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
            plane = plane + 0.05 * np.tanh((np.cos(a) * x + np.sin(a) * y - b) * 14) * rng.choice([-1, 1])
        tint = np.array([1.08, 0.93, 0.72])
    stains = cv2.resize(
        rng.normal(1, 0.05, (7, 7)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    wall = np.clip((np.maximum(np.abs(x), np.abs(y)) - rng.uniform(0.86, 1.0)) * 9, 0, 1)
    plane = plane * stains * (1 - 0.45 * wall)
    canvas = np.ascontiguousarray(plane[..., None] * tint, dtype=np.float32)
    for _ in range(int(rng.integers(0, 9))):  # crumbs
        centre = rng.integers(0, side, 2)
        shade = rng.uniform(0.15, 0.5)
        cv2.circle(
            canvas,
            (int(centre[0]), int(centre[1])),
            max(1, round(0.004 * size * rng.uniform(0.5, 1.6))),
            (shade, 0.8 * shade, 0.6 * shade),
            -1,
            cv2.LINE_AA,
        )
    return np.clip(canvas, 0, 1)
