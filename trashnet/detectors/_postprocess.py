"""EfficientDet's anchors and what becomes of its raw heads, in numpy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def make_anchors(
    image_size: int,
    *,
    min_level: int,
    max_level: int,
    num_scales: int,
    aspect_ratios: Sequence[Sequence[float]],
    anchor_scale: float,
) -> Array:
    """Anchors of a square input, float32 ``(A, 4)``, ``(x0, y0, x1, y1)`` in pixels: level, row, column, then octave and ratio.

    Level l has stride ``2**l`` and base size ``anchor_scale * 2**l``, times ``2**(octave / num_scales)``,
    times ``(x, y)`` of the ratio (Tan et al. 2020, section 5.1; Lin et al. 2017, section 4). Equal to
    ``effdet.anchors.Anchors`` for sizes divisible by ``2**max_level``.
    """
    levels: list[NDArray[np.float64]] = []
    for level in range(min_level, max_level + 1):
        stride = 2**level
        scales = anchor_scale * stride * 2 ** (np.arange(num_scales) / num_scales)
        sizes = (scales[:, None, None] * np.asarray(aspect_ratios, np.float64)[None]).reshape(-1, 2)
        centres = np.arange(stride / 2, image_size, stride)
        y, x = np.meshgrid(centres, centres, indexing="ij")
        centre = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
        levels.append(np.concatenate([centre - sizes / 2, centre + sizes / 2], axis=-1).reshape(-1, 4))
    anchors: Array = np.concatenate(levels).astype(np.float32)
    return anchors


def decode(codes: Array, anchors: Array) -> Array:
    """Boxes ``(N, 4)``, ``(x0, y0, x1, y1)``, of codes ``(ty, tx, th, tw)`` against as many anchors (Ren et al. 2015, eq. 2)."""
    size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + codes[:, [1, 0]] * size
    half = np.exp(codes[:, [3, 2]]) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)  # type: ignore[no-any-return]


def best_candidates(
    logits: Array, most: int, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The ``most`` highest of all ``(A, C)`` logits that are at least ``least``: anchors, class indices and logits, best first."""
    flat = logits.ravel()
    chosen = np.flatnonzero(flat >= least)
    if len(chosen) > most:
        chosen = chosen[np.argpartition(-flat[chosen], most - 1)[:most]]
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")]
    return chosen // logits.shape[1], chosen % logits.shape[1], flat[chosen]


def suppress(boxes: Array, classes: NDArray[np.int64], most: int, iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression per class: positions of at most ``most`` boxes ``(x0, y0, x1, y1)``, given and returned best first.

    A box goes if it overlaps a kept one of its class by more than ``iou``. It stops at ``most``, so 5,000
    candidates cost 100 rounds.
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, rest = int(left[0]), left[1:]
        kept.append(best)
        overlap = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2])
        common = np.prod(overlap.clip(min=0), axis=1)
        union = area[rest] + area[best] - common
        left = rest[(classes[rest] != classes[best]) | (common <= iou * union)]
    return np.array(kept, np.int64)
