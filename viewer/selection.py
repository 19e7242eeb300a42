"""The choice and the order of the frames that the viewer shows."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dataset import Frames
from evaluation.flat_arrays import MATCH_IOU, Predictions
from trashnet.boxes import iou, match_greedily


def frames_with(frames: Frames, class_id: int | None) -> NDArray[np.int64]:
    """Indices of the frames whose labels name this class, crowds included; of all frames for ``None``.

    Returns:
        int64 ``(K,)``.
    """
    if class_id is None:
        return np.arange(len(frames))
    found = [
        (labels := frames.labels(i)) is not None and class_id in labels.class_ids for i in range(len(frames))
    ]
    return np.flatnonzero(found)


def detection_dissimilarity(models: Sequence[Predictions], score: float) -> NDArray[np.float64]:
    """Compute the dissimilarity of the models' detections on each image.

    For two models ``1 - 2 * pairs / (detections of both)``, the Dice distance (Dice, 1945), where a pair is
    two detections of one class at IoU >= 0.5; 0 where neither detects anything. For more models it is
    the mean over all pairs of models.

    Args:
        models: Each model's detections on the same images.
        score: Detections below it do not count.

    Returns:
        float64 ``(images,)`` in [0, 1].
    """
    model_pairs = list(combinations([predictions.above(score) for predictions in models], 2))
    dissimilarity = np.zeros((max(len(model_pairs), 1), len(models[0].images) if models else 0))
    for row, (a, b) in enumerate(model_pairs):
        for image in range(dissimilarity.shape[1]):
            slice_a, slice_b = slice(*a.offsets[image : image + 2]), slice(*b.offsets[image : image + 2])
            count = (slice_a.stop - slice_a.start) + (slice_b.stop - slice_b.start)
            if count:
                same_class = a.class_ids[slice_a, None] == b.class_ids[None, slice_b]
                overlaps = np.where(same_class, iou(a.boxes[slice_a], b.boxes[slice_b]), 0)
                pairs = len(match_greedily(overlaps, MATCH_IOU))
                dissimilarity[row, image] = 1 - 2 * pairs / count
    return np.asarray(dissimilarity.mean(axis=0))


def sort_by_dissimilarity(
    indices: NDArray[np.int64], dissimilarity: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The same indices, the greatest dissimilarity first; equal ones keep their order."""
    return indices[np.argsort(-dissimilarity[indices], kind="stable")]
