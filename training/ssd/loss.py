"""Matching and the loss, in ``keras.ops``: the same code on TensorFlow, JAX and torch.

Classification is sigmoid focal loss (Lin et al. 2017, arXiv:1708.02002), not softmax with 3:1 hard negatives
(Liu et al. 2016, arXiv:1512.02325, section 2.2). Reasons: the scores are made on the EdgeTPU, whose Softmax
takes one dimension only while LOGISTIC maps at any shape; no background column is needed; and no sort over
1,917 anchors per image. It is also what the Object Detection API's own SSD MobileNet v2 for the Coral trains
with (alpha 0.75, gamma 2). Localisation is smooth L1 on the encodings of matched anchors.
"""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.ssd.anchors import BOX_SCALES

Tensor = Any  # a tensor of whichever backend Keras runs on


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Intersection over union ``(B, M, N)`` of boxes ``(B, M, 4)`` with anchors ``(N, 4)``, both (y0, x0, y1, x1)."""
    a, b = ops.expand_dims(boxes, 2), ops.reshape(anchors, (1, 1, -1, 4))
    sides = ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]), 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - intersection
    return intersection / ops.maximum(union, 1e-9)


def match(boxes: Tensor, classes: Tensor, anchors: Tensor, matched_iou: float) -> tuple[Tensor, Tensor]:
    """Give every anchor the box it must predict, or none.

    ``boxes`` ``(B, M, 4)`` (y0, x0, y1, x1) and ``classes`` ``(B, M)`` (class index, -1 where a row is
    padding); ``anchors`` ``(N, 4)`` (y0, x0, y1, x1). Returns the box's row ``(B, N)`` and whether the anchor
    is matched, bool ``(B, N)``. An anchor takes the box it overlaps most if their IoU is at least
    ``matched_iou``; besides, every box takes the anchor it overlaps most, so that none goes unlearnt. Of two
    boxes with the same best anchor the first has it ("argmax matcher" of the OD API,
    ``force_match_for_each_row``).
    """
    real = ops.expand_dims(classes >= 0, -1)
    iou = ops.where(real, pairwise_iou(boxes, anchors), -1.0)
    row, best = ops.argmax(iou, axis=1), ops.max(iou, axis=1)
    wanted = ops.one_hot(ops.argmax(iou, axis=2), iou.shape[2], dtype="float32")
    wanted = ops.where(real, wanted, 0.0)
    forced = ops.max(wanted, axis=1) > 0
    row = ops.where(forced, ops.argmax(wanted, axis=1), row)
    return ops.cast(row, "int32"), ops.logical_or(forced, best >= matched_iou)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """What the network should say, ``(B, N, 4)``: ``10 dy/h, 10 dx/w, 5 ln(h'/h), 5 ln(w'/w)`` of each anchor.

    ``boxes`` ``(B, N, 4)`` (y0, x0, y1, x1), one per anchor; ``anchors`` ``(N, 4)`` (centre y, centre x,
    height, width).
    """
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    offset = (centre - anchors[:, :2]) / anchors[:, 2:]
    growth = ops.log(sides / anchors[:, 2:])
    return ops.concatenate([offset, growth], axis=-1) * ops.convert_to_tensor(BOX_SCALES, dtype="float32")


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss of every logit: ``-a_t (1 - p_t)^gamma ln(p_t)`` (Lin et al. 2017, equation 5), numerically safe."""
    likelihood = ops.where(targets > 0, logits, -logits)  # p_t = sigmoid of this
    weight = ops.where(targets > 0, alpha, 1.0 - alpha)
    return weight * ops.power(ops.sigmoid(-likelihood), gamma) * ops.softplus(-likelihood)


def smooth_l1(error: Tensor) -> Tensor:
    """``0.5 e^2`` within 1, ``|e| - 0.5`` beyond (Girshick 2015, equation 3)."""
    size = ops.abs(error)
    return ops.where(size < 1.0, 0.5 * ops.square(size), size - 0.5)


class DetectionLoss:
    """Both losses of a batch, each summed over anchors and divided by the number of matched anchors in the batch."""

    def __init__(
        self, anchors: NDArray[np.float32], *, matched_iou: float, alpha: float, gamma: float
    ) -> None:
        """``anchors``: float32 ``(N, 4)``, centre y, centre x, height, width."""
        half = anchors[:, 2:] / 2
        self.anchors = anchors
        self.anchor_corners = np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=-1)
        self.matched_iou, self.alpha, self.gamma = matched_iou, alpha, gamma

    def __call__(
        self, boxes: Tensor, classes: Tensor, encodings: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(box loss, class loss)``, scalars; boxes ``(B, M, 4)``, classes ``(B, M)``, encodings ``(B, N, 4)``, logits ``(B, N, C)``."""
        encodings, logits = ops.cast(encodings, "float32"), ops.cast(logits, "float32")
        anchors = ops.convert_to_tensor(self.anchors, dtype="float32")
        row, matched = match(
            boxes, classes, ops.convert_to_tensor(self.anchor_corners, dtype="float32"), self.matched_iou
        )
        matches = ops.maximum(ops.sum(ops.cast(matched, "float32")), 1.0)
        wanted = ops.where(matched, ops.take_along_axis(classes, row, axis=1), -1)
        targets = ops.one_hot(
            wanted, logits.shape[-1], dtype="float32"
        )  # -1 becomes a row of zeros: background
        class_loss = ops.sum(focal_loss(logits, targets, self.alpha, self.gamma)) / matches
        goal = encode(ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1), anchors)
        error = ops.where(ops.expand_dims(matched, -1), encodings - goal, 0.0)
        return ops.sum(smooth_l1(error)) / matches, class_loss
