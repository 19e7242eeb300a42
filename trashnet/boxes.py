"""Boxes in Label Studio's percent and in our pixels, and how two people's boxes pair up."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_percent(box: Sequence[float], width: int, height: int) -> dict[str, float]:
    """``(x, y, w, h)`` in pixels as Label Studio's ``x, y, width, height`` in percent of the frame's sides."""
    x, y, w, h = box
    return {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}


def to_pixels(value: Mapping[str, float], width: int, height: int) -> tuple[float, float, float, float]:
    """Label Studio's percent as ``(x, y, w, h)`` in pixels, not rounded."""
    return (
        value["x"] * width / 100,
        value["y"] * height / 100,
        value["width"] * width / 100,
        value["height"] * height / 100,
    )


def clip(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """The part of ``(x, y, w, h)`` inside the frame, in pixels; sides are negative where there is none."""
    x, y, w, h = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + w, float(width)) - left, min(y + h, float(height)) - top


def pair_up(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], least_iou: float
) -> list[tuple[int, int, float]]:
    """Which box of ``a`` and which of ``b`` mean the same item: ``(index in a, index in b, IoU)``.

    The assignment with the largest sum of IoUs (Kuhn's Hungarian method), labels aside; pairs below
    ``least_iou`` are none."""
    from scipy.optimize import linear_sum_assignment

    overlap = iou(_array(a), _array(b))
    overlap[overlap < least_iou] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return [
        (int(i), int(j), float(overlap[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if overlap[i, j] > 0
    ]


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of every box of ``a``, ``(N, 4)`` as ``(x, y, w, h)``, with every one of ``b``, ``(M, 4)``: ``(N, M)``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    union = a[:, 2:].prod(axis=1)[:, None] + b[:, 2:].prod(axis=1)[None, :] - intersection
    quotient: NDArray[np.float64] = np.divide(
        intersection, union, out=np.zeros_like(intersection), where=union > 0
    )
    return quotient


def likeness(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], least_iou: float) -> float:
    """How far two answers agree, 0 to 1: the share of all their boxes that are paired and have the same label; 1 if neither has any."""
    if not a and not b:
        return 1.0
    same: int = sum(a[i]["label"] == b[j]["label"] for i, j, _ in pair_up(a, b, least_iou))
    return 2 * same / (len(a) + len(b))


def _array(boxes: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    return np.array([box["box"] for box in boxes], np.float64).reshape(-1, 4)
