"""Anchor matching and the detection loss, in ``keras.ops``: the same code on TensorFlow, JAX and torch.

Classification is sigmoid focal loss (Lin et al. 2017, arXiv:1708.02002), not softmax with 3:1 hard negatives
(Liu et al. 2016, arXiv:1512.02325, section 2.2). Reasons: the scores are computed on the EdgeTPU, whose
Softmax takes one dimension only while LOGISTIC maps at any shape; no background column is needed; and no sort
over 1,917 anchors per image. The Object Detection API's own SSD MobileNet v2 for the Coral trains with it too
(alpha 0.75, gamma 2). Localisation is smooth L1 on the encodings of matched anchors.
"""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.ssd.anchors import BOX_SCALES, to_corners

Tensor = Any  # a tensor of whichever backend Keras runs on


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Intersection over union of every box with every anchor; 0 where they only touch or have no area.

    Args:
        boxes: ``(B, M, 4)``, (y0, x0, y1, x1).
        anchors: ``(N, 4)``, (y0, x0, y1, x1) in the same unit.

    Returns:
        ``(B, M, N)`` in [0, 1].
    """
    a, b = ops.expand_dims(boxes, 2), ops.reshape(anchors, (1, 1, -1, 4))
    sides = ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]), 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - intersection
    return intersection / ops.maximum(union, 1e-9)


def match_anchors(boxes: Tensor, classes: Tensor, anchors: Tensor, min_iou: float) -> tuple[Tensor, Tensor]:
    """Assign to every anchor the box it must predict, or none.

    An anchor is matched to the box it overlaps most if their IoU is at least ``min_iou``. Besides, every box
    is matched to the anchor it overlaps most, so that no box is left out of training; of two boxes with the
    same best anchor the first has it ("argmax matcher" of the Object Detection API,
    ``force_match_for_each_row``).

    Args:
        boxes: ``(B, M, 4)``, (y0, x0, y1, x1).
        classes: ``(B, M)``, the class index, -1 where a row is padding.
        anchors: ``(N, 4)``, (y0, x0, y1, x1) in the same unit.
        min_iou: The IoU from which an anchor is matched.

    Returns:
        The row of each anchor's box, int32 ``(B, N)``, and whether the anchor is matched, bool ``(B, N)``.
    """
    is_box = ops.expand_dims(classes >= 0, -1)
    iou = ops.where(is_box, pairwise_iou(boxes, anchors), -1.0)
    row, best_iou = ops.argmax(iou, axis=1), ops.max(iou, axis=1)
    best_anchor = ops.one_hot(ops.argmax(iou, axis=2), iou.shape[2], dtype="float32")
    best_anchor = ops.where(is_box, best_anchor, 0.0)
    forced = ops.max(best_anchor, axis=1) > 0
    row = ops.where(forced, ops.argmax(best_anchor, axis=1), row)
    return ops.cast(row, "int32"), ops.logical_or(forced, best_iou >= min_iou)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """What the network should predict for each anchor: ``10 dy/h, 10 dx/w, 5 ln(h'/h), 5 ln(w'/w)``.

    Args:
        boxes: ``(B, N, 4)``, (y0, x0, y1, x1), one per anchor.
        anchors: ``(N, 4)``, (centre y, centre x, height, width) in the same unit.

    Returns:
        ``(B, N, 4)``.
    """
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    offset = (centre - anchors[:, :2]) / anchors[:, 2:]
    growth = ops.log(sides / anchors[:, 2:])
    return ops.concatenate([offset, growth], axis=-1) * ops.convert_to_tensor(BOX_SCALES, dtype="float32")


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss of every logit, numerically safe (Lin et al. 2017, equation 5).

    ``-a_t (1 - p_t)^gamma ln(p_t)``.

    Args:
        logits: Any shape.
        targets: The same shape, 1 for the class that is there, else 0.
        alpha: Weight of a positive; a negative has ``1 - alpha``.
        gamma: How strongly confident right answers are discounted.

    Returns:
        The same shape.
    """
    likelihood = ops.where(targets > 0, logits, -logits)  # p_t = sigmoid of this
    weight = ops.where(targets > 0, alpha, 1.0 - alpha)
    return weight * ops.power(ops.sigmoid(-likelihood), gamma) * ops.softplus(-likelihood)


def smooth_l1(error: Tensor) -> Tensor:
    """``0.5 e^2`` within 1, ``|e| - 0.5`` beyond (Girshick 2015, equation 3); element by element."""
    size = ops.abs(error)
    return ops.where(size < 1.0, 0.5 * ops.square(size), size - 0.5)


class DetectionLoss:
    """Both losses of a batch, each summed over anchors and divided by the number of matched anchors."""

    def __init__(
        self, anchors: NDArray[np.float32], *, matched_iou: float, alpha: float, gamma: float
    ) -> None:
        """``anchors``: float32 ``(N, 4)``, (centre y, centre x, height, width) in [0, 1]."""
        self.anchors = anchors
        self.anchor_corners = to_corners(anchors)
        self.matched_iou, self.alpha, self.gamma = matched_iou, alpha, gamma

    def __call__(
        self, boxes: Tensor, classes: Tensor, encodings: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compare a batch of predictions with its boxes.

        Args:
            boxes: ``(B, M, 4)``, (y0, x0, y1, x1) in [0, 1].
            classes: ``(B, M)``, the class index, -1 for padding.
            encodings: ``(B, N, 4)``, as :func:`encode_boxes` returns them.
            logits: ``(B, N, C)``.

        Returns:
            The box loss and the class loss, scalars.
        """
        encodings, logits = ops.cast(encodings, "float32"), ops.cast(logits, "float32")
        anchors = ops.convert_to_tensor(self.anchors, dtype="float32")
        anchor_corners = ops.convert_to_tensor(self.anchor_corners, dtype="float32")
        row, matched = match_anchors(boxes, classes, anchor_corners, self.matched_iou)
        num_matched = ops.maximum(ops.sum(ops.cast(matched, "float32")), 1.0)
        target_classes = ops.where(matched, ops.take_along_axis(classes, row, axis=1), -1)
        # -1 becomes a row of zeros: background.
        targets = ops.one_hot(target_classes, logits.shape[-1], dtype="float32")
        class_loss = ops.sum(focal_loss(logits, targets, self.alpha, self.gamma)) / num_matched
        matched_boxes = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        error = encodings - encode_boxes(matched_boxes, anchors)
        error = ops.where(ops.expand_dims(matched, -1), error, 0.0)
        return ops.sum(smooth_l1(error)) / num_matched, class_loss
