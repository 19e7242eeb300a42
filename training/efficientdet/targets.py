"""Which anchor answers for which box: anchors, matching and box codes, for a whole batch at once and without leaving the GPU.

effdet's own ``AnchorLabeler`` gives the same targets image by image with boolean indexing, which waits for
the GPU at every image.
"""

from typing import Any, NamedTuple

import torch
from effdet.anchors import Anchors
from torch import Tensor

MATCH_IOU = (
    0.5  # an anchor answers for the box it overlaps by at least this much (Tan et al. 2020, as in RetinaNet)
)
PAIRS_AT_ONCE = (
    1 << 27
)  # anchor-box pairs compared in one go: 0.5 GB a tensor, so that crowded frames do not fill the GPU


class Targets(NamedTuple):
    """``classes``: int64 ``(B, A)``, the class index, -1 where an anchor is background; ``codes``: float32 ``(B, A, 4)``."""

    classes: Tensor
    codes: Tensor


def anchors_of(config: Any) -> Tensor:
    """Anchors of an effdet configuration, float32 ``(A, 4)``, ``(y0, x0, y1, x1)`` in pixels of the model's input."""
    return Anchors.from_config(config).boxes  # type: ignore[no-any-return]


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Intersection over union of ``(B, M, 4)`` and ``(A, 4)`` corner boxes in the same order: ``(B, M, A)``."""
    low = torch.maximum(boxes[:, :, None, :2], anchors[None, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], anchors[None, None, :, 2:])
    height, width = (high - low).clamp(min=0).unbind(-1)
    overlap = height * width
    area, anchor_area = _area(boxes), _area(anchors)
    return overlap / (area[:, :, None] + anchor_area - overlap).clamp(min=1e-9)


def _area(corners: Tensor) -> Tensor:
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])


def match(iou: Tensor, valid: Tensor) -> Tensor:
    """The box each anchor answers for, int64 ``(B, A)``, -1 for none; ``iou``: ``(B, M, A)``, ``valid``: bool ``(B, M)``.

    An anchor takes the box it overlaps most if by :data:`MATCH_IOU` or more; besides, every box takes its
    best anchor whatever the overlap (of boxes that want the same anchor the first gets it), so that no box
    goes unlearned.
    """
    count, anchors = iou.shape[1:]
    iou = iou.masked_fill(~valid[:, :, None], -1.0)
    best, box = iou.max(dim=1)
    matches = torch.where(best >= MATCH_IOU, box, -1)
    wanted = iou.argmax(dim=2)
    order = torch.arange(count, device=iou.device).expand(iou.shape[0], count)
    claims = torch.full((iou.shape[0], anchors), count, dtype=torch.int64, device=iou.device)
    claims.scatter_reduce_(1, wanted, torch.where(valid, order, count), "amin")
    return torch.where(claims < count, claims, matches)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Box codes ``(ty, tx, th, tw)`` of corner boxes against anchors, both ``(..., 4)``, ``(y0, x0, y1, x1)``.

    ``ty = (y - ya) / ha``, ``th = log(h / ha)``, with centres y and heights h (Ren et al. 2015, Faster R-CNN,
    eq. 2; no scale factors).
    """
    size, anchor_size = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    centre, anchor_centre = (boxes[..., 2:] + boxes[..., :2]) / 2, (anchors[..., 2:] + anchors[..., :2]) / 2
    return torch.cat(
        [(centre - anchor_centre) / anchor_size, (size.clamp(min=1e-3) / anchor_size).log()], dim=-1
    )


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of :func:`encode`."""
    anchor_size, anchor_centre = (
        anchors[..., 2:] - anchors[..., :2],
        (anchors[..., 2:] + anchors[..., :2]) / 2,
    )
    centre, half = codes[..., :2] * anchor_size + anchor_centre, codes[..., 2:].exp() * anchor_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


@torch.no_grad()
def assign(boxes: Tensor, classes: Tensor, anchors: Tensor) -> Targets:
    """Targets of a batch.

    ``boxes``: ``(B, M, 4)``, ``(y0, x0, y1, x1)`` in pixels of the model's input; ``classes``: int64 ``(B,
    M)``, -1 where padded.
    """
    step = max(1, PAIRS_AT_ONCE // (boxes.shape[1] * len(anchors)))
    pieces = [
        _assign(boxes[i : i + step], classes[i : i + step], anchors) for i in range(0, len(boxes), step)
    ]
    return Targets(torch.cat([p.classes for p in pieces]), torch.cat([p.codes for p in pieces]))


def _assign(boxes: Tensor, classes: Tensor, anchors: Tensor) -> Targets:
    matches = match(pairwise_iou(boxes, anchors), classes >= 0)
    positive, taken = matches >= 0, matches.clamp(min=0)
    codes = encode(boxes.gather(1, taken[..., None].expand(-1, -1, 4)), anchors)
    return Targets(
        classes=torch.where(positive, classes.gather(1, taken), -1),
        codes=torch.where(positive[..., None], codes, 0.0),
    )
