"""Boxes: what one is, and the arithmetic that all rooms do with them.

Every box is upright. Unless something else is said a box is ``(x, y, w, h)``: left edge, top edge, width and
height in pixels of its frame, as in COCO. Arrays of boxes are ``(N, 4)``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Xywh = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """One labelled box of a frame, in pixels; ``score`` in [0, 1] is a model's, ``None`` for a person's box.

    >>> Box("Battery", 10, 20, 30, 40).to_json()
    {'label': 'Battery', 'box': [10, 20, 30, 40]}
    """

    label: str
    x: float
    y: float
    w: float
    h: float
    score: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Box":
        """Read ``{"label", "box": [x, y, w, h]}``, with ``"score"`` where a model made it."""
        x, y, w, h = value["box"]
        return cls(value["label"], x, y, w, h, value.get("score"))

    def to_json(self) -> dict[str, Any]:
        """The form that sidecars, the ledger and predictions keep."""
        score = {} if self.score is None else {"score": self.score}
        return {"label": self.label, **score, "box": list(self.xywh)}

    @property
    def xywh(self) -> Xywh:
        """Left edge, top edge, width and height in pixels."""
        return self.x, self.y, self.w, self.h

    @property
    def confidence(self) -> float:
        """The score; 1 for a person's box, which nobody doubts."""
        return 1.0 if self.score is None else self.score

    def clipped(self, width: float, height: float) -> "Box":
        """The part inside a frame of that size; see :func:`clip`."""
        x, y, w, h = clip(self.xywh, width, height)
        return replace(self, x=x, y=y, w=w, h=h)


def stack(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Boxes as one array.

    Returns:
        float64 ``(N, 4)``, ``(x, y, w, h)`` in pixels; ``(0, 4)`` for no boxes.
    """
    return np.array([box.xywh for box in boxes], np.float64).reshape(-1, 4)


def clip(box: Sequence[float], width: float, height: float) -> Xywh:
    """The part of a box inside its frame.

    Args:
        box: ``(x, y, w, h)`` in pixels.
        width: The frame's width in pixels.
        height: The frame's height in pixels.

    Returns:
        ``(x, y, w, h)`` in pixels; a side is negative where nothing of the box is inside.

    >>> clip((-5, 10, 20, 100), width=64, height=48)
    (0.0, 10, 15.0, 38.0)
    """
    x, y, w, h = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + w, float(width)) - left, min(y + h, float(height)) - top


def xywh_to_xyxy(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """``(N, 4)`` boxes ``(x, y, w, h)`` as corners ``(x0, y0, x1, y1)``, same unit and type."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """``(N, 4)`` corners ``(x0, y0, x1, y1)`` as boxes ``(x, y, w, h)``, same unit and type."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def to_percent(box: Sequence[float], width: int, height: int) -> dict[str, float]:
    """A box ``(x, y, w, h)`` in pixels as Label Studio's ``x, y, width, height`` in percent of the frame's
    sides.

    >>> to_percent((32, 12, 16, 24), width=64, height=48)
    {'x': 50.0, 'y': 25.0, 'width': 25.0, 'height': 50.0}
    """
    x, y, w, h = box
    return {
        "x": 100 * x / width,
        "y": 100 * y / height,
        "width": 100 * w / width,
        "height": 100 * h / height,
    }


def from_percent(value: Mapping[str, float], width: int, height: int) -> Xywh:
    """Label Studio's percent as ``(x, y, w, h)`` in pixels, not rounded."""
    return (
        value["x"] * width / 100,
        value["y"] * height / 100,
        value["width"] * width / 100,
        value["height"] * height / 100,
    )


def iou(
    a: NDArray[np.float64], b: NDArray[np.float64], crowd: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Intersection over union of every box of ``a`` with every box of ``b``.

    Boxes that only touch, and boxes without area, give 0.

    Args:
        a: ``(N, 4)``, ``(x, y, w, h)``.
        b: ``(M, 4)``, ``(x, y, w, h)`` in the same unit.
        crowd: bool ``(M,)``; where it is true the denominator is the area of ``a``'s box alone, as in COCO:
            a detection inside a crowd region overlaps it fully.

    Returns:
        ``(N, M)`` in [0, 1].
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = a[:, 2:].prod(axis=1), b[:, 2:].prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    if crowd is not None:
        union = np.where(crowd[None, :], area_a[:, None], union)
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0))


def match_optimally(a: Sequence[Box], b: Sequence[Box], min_iou: float) -> list[tuple[int, int, float]]:
    """Which box of ``a`` and which of ``b`` mean the same item, labels aside.

    The assignment with the largest sum of IoUs (Kuhn's Hungarian method), in which pairs below ``min_iou``
    count as none.

    Returns:
        ``(index in a, index in b, IoU)`` per pair, by index in ``a``.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = iou(stack(a), stack(b))
    overlap[overlap < min_iou] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return [
        (int(i), int(j), float(overlap[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if overlap[i, j] > 0
    ]


def match_greedily(overlap: NDArray[np.float64], min_iou: float) -> list[tuple[int, int]]:
    """Pair rows with columns, greatest IoU first, each at most once.

    Equal IoUs by the lower row, then column.

    Args:
        overlap: IoUs, ``(N, M)``.
        min_iou: A pair below it is none; 0 pairs never.

    Returns:
        ``(row, column)`` per pair, greatest IoU first.
    """
    order = np.argsort(-overlap, axis=None, kind="stable")
    rows_free, columns_free = set(range(overlap.shape[0])), set(range(overlap.shape[1]))
    pairs: list[tuple[int, int]] = []
    for row, column in zip(*np.unravel_index(order, overlap.shape), strict=True):
        value = overlap[row, column]
        if value < min_iou or value <= 0:
            break
        if row in rows_free and column in columns_free:
            rows_free.remove(row)
            columns_free.remove(column)
            pairs.append((int(row), int(column)))
    return pairs
