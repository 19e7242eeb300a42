"""From EfficientDet's raw heads to boxes, in NumPy: anchors, decoding, top-k and non-maximum suppression."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def pyramid_anchors(
    image_size: int,
    *,
    min_level: int,
    max_level: int,
    num_scales: int,
    aspect_ratios: Sequence[Sequence[float]],
    anchor_scale: float,
) -> Array:
    """The anchors of a feature pyramid.

    They equal those of ``effdet.anchors.Anchors`` for sizes divisible by ``2**max_level``. Level l has stride
    ``2**l`` and base size ``anchor_scale * 2**l``, times ``2**(octave / num_scales)``, times ``(x, y)`` of
    the ratio (Tan et al. 2020, section 5.1; Lin et al. 2017, section 4).

    Args:
        image_size: Side of the square input in pixels.
        min_level: The finest level of the pyramid.
        max_level: The coarsest level of the pyramid.
        num_scales: Octaves per level.
        aspect_ratios: ``(x, y)`` factors.
        anchor_scale: Side of the base anchor in strides.

    Returns:
        float32 ``(A, 4)``, (x0, y0, x1, y1) in pixels; ordered by level, row, column, octave and ratio.
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


def decode_boxes(codes: Array, anchors: Array) -> Array:
    """Boxes from box codes (Ren et al. 2015, equation 2).

    Args:
        codes: ``(N, 4)``, (ty, tx, th, tw).
        anchors: ``(N, 4)``, (x0, y0, x1, y1).

    Returns:
        ``(N, 4)``, (x0, y0, x1, y1) in the unit of the anchors.

    >>> code = np.array([[0.5, 0.5, np.log(2), 0]], np.float32)
    >>> decode_boxes(code, np.array([[0, 0, 20, 10]], np.float32)).tolist()
    [[10.0, 0.0, 30.0, 20.0]]
    """
    size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + codes[:, [1, 0]] * size
    half = np.exp(codes[:, [3, 2]]) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)  # type: ignore[no-any-return]


def top_k(logits: Array, k: int, min_logit: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The highest logits over all anchors and classes.

    Args:
        logits: ``(A, C)``.
        k: How many at most.
        min_logit: A lower logit is left out.

    Returns:
        Anchor indices, class indices and logits, each ``(K,)``, highest first.
    """
    flat = logits.ravel()
    chosen = np.flatnonzero(flat >= min_logit)
    if len(chosen) > k:
        chosen = chosen[np.argpartition(-flat[chosen], k - 1)[:k]]
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")]
    return chosen // logits.shape[1], chosen % logits.shape[1], flat[chosen]


def batched_nms(
    boxes: Array, classes: NDArray[np.int64], iou_threshold: float, max_detections: int
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression per class.

    It stops at ``max_detections``, so 5,000 candidates cost 100 rounds.

    Args:
        boxes: ``(N, 4)``, (x0, y0, x1, y1), best first.
        classes: ``(N,)``.
        iou_threshold: A box that overlaps a kept one of its class by more is dropped.
        max_detections: How many are kept at most.

    Returns:
        Indices of the boxes kept, int64 ``(K,)``, best first.
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while len(remaining) and len(kept) < max_detections:
        best, rest = int(remaining[0]), remaining[1:]
        kept.append(best)
        sides = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2])
        intersection = np.prod(sides.clip(min=0), axis=1)
        union = area[rest] + area[best] - intersection
        remaining = rest[(classes[rest] != classes[best]) | (intersection <= iou_threshold * union)]
    return np.array(kept, np.int64)
