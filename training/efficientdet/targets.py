"""Anchors, matching and box codes, for a whole batch at once and without leaving the GPU.

effdet's own ``AnchorLabeler`` gives the same targets image by image with boolean indexing, which waits for
the GPU at every image.
"""

from typing import Any, NamedTuple

import torch
from effdet.anchors import Anchors
from torch import Tensor
from torchvision.ops import box_iou  # type: ignore[import-untyped]

MIN_MATCH_IOU = 0.5  # Tan et al. 2020, as in RetinaNet
# Anchor-box pairs compared at once: 0.5 GB a tensor, so that crowded frames do not fill the GPU.
MAX_PAIRS = 1 << 27


class Targets(NamedTuple):
    """``classes``: int64 ``(B, A)``, the class index, -1 for background; ``codes``: float32 ``(B, A, 4)``."""

    classes: Tensor
    codes: Tensor


def config_anchors(config: Any) -> Tensor:
    """The anchors of an effdet configuration, float32 ``(A, 4)``, (y0, x0, y1, x1) in pixels of the input."""
    return Anchors.from_config(config).boxes  # type: ignore[no-any-return]


def match_anchors(iou: Tensor, is_box: Tensor) -> Tensor:
    """Assign to every anchor the box it must predict, or none.

    An anchor is matched to the box it overlaps most if their IoU is at least :data:`MIN_MATCH_IOU`. Besides,
    every box is matched to its best anchor whatever their IoU, so that no box is left out of training; of two
    boxes with the same best anchor the first has it.

    Args:
        iou: ``(B, M, A)``, of every box with every anchor.
        is_box: bool ``(B, M)``, false where a row is padding.

    Returns:
        The row of each anchor's box, int64 ``(B, A)``, -1 for none.
    """
    num_boxes, num_anchors = iou.shape[1:]
    iou = iou.masked_fill(~is_box[:, :, None], -1.0)
    best_iou, best_box = iou.max(dim=1)
    matches = torch.where(best_iou >= MIN_MATCH_IOU, best_box, -1)
    best_anchor = iou.argmax(dim=2)
    rows = torch.arange(num_boxes, device=iou.device).expand(iou.shape[0], num_boxes)
    # Per anchor the first row of which it is the best anchor; num_boxes where there is none.
    forced = torch.full((iou.shape[0], num_anchors), num_boxes, dtype=torch.int64, device=iou.device)
    forced.scatter_reduce_(1, best_anchor, torch.where(is_box, rows, num_boxes), "amin")
    return torch.where(forced < num_boxes, forced, matches)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Box codes against anchors (Ren et al. 2015, Faster R-CNN, equation 2; no scale factors).

    ``ty = (y - ya) / ha``, ``th = log(h / ha)``, with centres y and heights h.

    Args:
        boxes: ``(..., 4)``, (y0, x0, y1, x1).
        anchors: ``(..., 4)``, (y0, x0, y1, x1) in the same unit.

    Returns:
        ``(..., 4)``, (ty, tx, th, tw).
    """
    size, anchor_size = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    centre, anchor_centre = (boxes[..., 2:] + boxes[..., :2]) / 2, (anchors[..., 2:] + anchors[..., :2]) / 2
    offset = (centre - anchor_centre) / anchor_size
    return torch.cat([offset, (size.clamp(min=1e-3) / anchor_size).log()], dim=-1)


def decode_boxes(codes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of :func:`encode_boxes`."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    anchor_centre = (anchors[..., 2:] + anchors[..., :2]) / 2
    centre, half = codes[..., :2] * anchor_size + anchor_centre, codes[..., 2:].exp() * anchor_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


@torch.no_grad()
def assign_targets(boxes: Tensor, classes: Tensor, anchors: Tensor) -> Targets:
    """What the network should predict for a batch.

    Args:
        boxes: ``(B, M, 4)``, (y0, x0, y1, x1) in pixels of the network's input.
        classes: int64 ``(B, M)``, the class index, -1 for padding.
        anchors: ``(A, 4)``, (y0, x0, y1, x1) in the same pixels.

    Returns:
        The targets of every anchor.
    """
    step = max(1, MAX_PAIRS // (boxes.shape[1] * len(anchors)))
    chunks = [
        _assign_chunk(boxes[i : i + step], classes[i : i + step], anchors) for i in range(0, len(boxes), step)
    ]
    return Targets(torch.cat([c.classes for c in chunks]), torch.cat([c.codes for c in chunks]))


def _assign_chunk(boxes: Tensor, classes: Tensor, anchors: Tensor) -> Targets:
    # The IoU does not mind that y comes before x.
    matches = match_anchors(box_iou(boxes, anchors), classes >= 0)
    matched, row = matches >= 0, matches.clamp(min=0)
    codes = encode_boxes(boxes.gather(1, row[..., None].expand(-1, -1, 4)), anchors)
    return Targets(
        classes=torch.where(matched, classes.gather(1, row), -1),
        codes=torch.where(matched[..., None], codes, 0.0),
    )
