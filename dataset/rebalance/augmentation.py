"""Offline augmentation of labelled images: flip, translation, small rotation and scale (albumentations)."""

import hashlib
from collections.abc import Collection
from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.frame import Labels
from dataset.rebalance.params import AugmentParams
from trashnet.letterbox import FILL

# The factor on all magnitudes at each attempt to draw a copy that keeps the required classes. After the last
# attempt the copy is only flipped, which loses no box.
STRENGTHS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25)


class Augmenter:
    """Draws augmented copies; the same image, labels and seed give the same copy, in any process.

    Pixels from outside the original are filled with the grey of the detectors' letterbox: reflection or
    replication would show waste that nobody labelled. A rotated box bounds its rotated inscribed ellipse, not
    its rotated corners: objects do not fill their boxes to the corners, so at 2 degrees the corners' bounds
    are 7 % too large on the drawn scenes (IoU with the true bounds 0.93, with the ellipse 0.96). See Kalra et
    al., "Towards Rotation Invariance in Object Detection", ICCV 2021.
    """

    def __init__(self, params: AugmentParams) -> None:
        self._transforms = {strength: _compose(params, strength) for strength in STRENGTHS}

    def copy(
        self, image: NDArray[np.uint8], labels: Labels, keep: Collection[int], seed: int
    ) -> tuple[NDArray[np.uint8], Labels]:
        """Draw one augmented copy that still shows a box, other than a crowd's, of every required class.

        Args:
            image: uint8 RGB ``(H, W, 3)``.
            labels: The image's labels, boxes ``(N, 4)`` as ``(x, y, w, h)`` in pixels.
            keep: Ids of the classes that the copy must still show.
            seed: What the copy is drawn from.

        Returns:
            The copy, uint8 RGB ``(H, W, 3)``, and its labels. Boxes are clipped to the image; a box of which
            less than ``min_visible`` is left is dropped. Crowd flags and extras stay with their boxes.
        """
        required = set(keep)
        for attempt, strength in enumerate(STRENGTHS):
            copy, copy_labels = _apply(self._transforms[strength], image, labels, seed_of(seed, attempt))
            if required <= set(copy_labels.class_ids[~copy_labels.crowd].tolist()):
                return copy, copy_labels
        return mirror(image, labels)


def mirror(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
    """Flip an image, uint8 ``(H, W, 3)``, and its boxes left to right: ``x' = W - x - w``."""
    boxes = labels.boxes.copy()
    boxes[:, 0] = image.shape[1] - boxes[:, 0] - boxes[:, 2]
    return np.ascontiguousarray(image[:, ::-1]), _select_labels(labels, boxes, np.arange(len(labels)))


def seed_of(*parts: object) -> int:
    """Hash the parts that identify a random draw into a seed of 63 bits."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def _compose(params: AugmentParams, strength: float) -> Any:
    shift = params.translate * strength
    low, high = (1 + (limit - 1) * strength for limit in params.scale)
    angle = params.rotate * strength
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=params.flip),
            albumentations.Affine(
                scale=(low, high),
                keep_ratio=True,
                translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                rotate=(-angle, angle),
                rotate_method="ellipse",
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,
                fill=FILL,
                p=1.0,
            ),
        ],
        # Without `clip` albumentations refuses boxes that reach out of the image by a rounding error.
        bbox_params=albumentations.BboxParams(
            format="coco", label_fields=["rows"], min_visibility=params.min_visible, clip=True
        ),
    )


def _apply(
    transform: Any, image: NDArray[np.uint8], labels: Labels, seed: int
) -> tuple[NDArray[np.uint8], Labels]:
    transform.set_random_seed(seed)
    result = transform(image=image, bboxes=labels.boxes, rows=np.arange(len(labels)))
    rows = np.asarray(result["rows"], np.int64)
    boxes = np.asarray(result["bboxes"], np.float64).reshape(-1, 4)
    return result["image"], _select_labels(labels, boxes, rows)


def _select_labels(labels: Labels, boxes: NDArray[np.float64], rows: NDArray[np.int64]) -> Labels:
    return Labels(
        boxes=boxes.round(3),  # albumentations computes in float32: less than 0.001 pixels is noise
        class_ids=labels.class_ids[rows],
        crowd=labels.crowd[rows],
        extra=tuple(labels.extra[row] for row in rows),
        labelled_at=labels.labelled_at,
        annotator=labels.annotator,
    )
