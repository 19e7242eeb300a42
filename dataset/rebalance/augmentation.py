"""Augment a labelled image offline: flip, translate, rotate a little, scale, boxes and all (albumentations)."""

import hashlib
from collections.abc import Collection
from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.log import Labels
from dataset.rebalance.params import AugmentParams
from trashnet.letterbox import FILL

# Each try at a copy that keeps what it must: how much of the magnitudes is left. After the last the copy is
# only flipped, which loses nothing.
STRENGTHS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25)


class Augmenter:
    """Draws augmented copies; the same image, labels and seed give the same copy, in any process.

    Pixels that the transformation brings in from outside are filled with the grey that the detectors'
    letterbox uses: reflection or replication would show waste that nobody labelled. A rotated box is the
    bounds of its rotated inscribed ellipse, not of its corners: nothing fills its box to the corners, so at 2
    degrees the corners' bounds are 7 % too large on the drawn scenes (IoU with the true bounds 0.93, with the
    ellipse 0.96); see Kalra et al., "Towards Rotation Invariance in Object Detection", ICCV 2021.
    """

    def __init__(self, params: AugmentParams) -> None:
        self._steps = {strength: _compose(params, strength) for strength in STRENGTHS}

    def copy(
        self, image: NDArray[np.uint8], labels: Labels, keep: Collection[int], seed: int
    ) -> tuple[NDArray[np.uint8], Labels]:
        """One augmented copy that still shows a box, not a crowd's, of every class in ``keep``.

        ``image``: uint8 RGB ``(H, W, 3)``; the copy has the same size. Boxes are clipped to it; one of which
        less than ``min_visible`` is left in it is dropped. ``crowd`` flags and extras stay with their boxes.
        """
        wanted = set(keep)
        for number, strength in enumerate(STRENGTHS):
            changed, kept = _apply(self._steps[strength], image, labels, seed_of(seed, number))
            if wanted <= set(kept.class_ids[~kept.crowd].tolist()):
                return changed, kept
        return mirror(image, labels)


def mirror(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
    """Image and boxes flipped left to right: ``x' = W - x - w``."""
    boxes = labels.boxes.copy()
    boxes[:, 0] = image.shape[1] - boxes[:, 0] - boxes[:, 2]
    return np.ascontiguousarray(image[:, ::-1]), _with(labels, boxes, np.arange(len(labels)))


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from whatever identifies a draw."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def _compose(params: AugmentParams, strength: float) -> Any:
    shift = params.translate * strength
    low, high = (1 + (limit - 1) * strength for limit in params.scale)
    turn = params.rotate * strength
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=params.flip),
            albumentations.Affine(
                scale=(low, high),
                keep_ratio=True,
                translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                rotate=(-turn, turn),
                rotate_method="ellipse",
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,
                fill=FILL,
                p=1.0,
            ),
        ],
        # `clip` mends boxes that stand out of the frame by a rounding error; albumentations refuses them
        # otherwise.
        bbox_params=albumentations.BboxParams(
            format="coco", label_fields=["rows"], min_visibility=params.min_visible, clip=True
        ),
    )


def _apply(
    step: Any, image: NDArray[np.uint8], labels: Labels, seed: int
) -> tuple[NDArray[np.uint8], Labels]:
    step.set_random_seed(seed)
    result = step(image=image, bboxes=labels.boxes, rows=np.arange(len(labels)))
    rows = np.asarray(result["rows"], np.int64)
    boxes = np.asarray(result["bboxes"], np.float64).reshape(-1, 4)
    return result["image"], _with(labels, boxes, rows)


def _with(labels: Labels, boxes: NDArray[np.float64], rows: NDArray[np.int64]) -> Labels:
    return Labels(
        boxes=boxes.round(3),  # albumentations reckons in float32: beyond a thousandth of a pixel it is noise
        class_ids=labels.class_ids[rows],
        crowd=labels.crowd[rows],
        extra=tuple(labels.extra[row] for row in rows),
        labelled_at=labels.labelled_at,
        annotator=labels.annotator,
    )
