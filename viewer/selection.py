"""Which frames of the dataset log to look at, and in which order."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dataset import Frames
from evaluation.flat_arrays import MATCH_IOU, Predictions
from trashnet.boxes import iou, match_greedily


def frames_with(frames: Frames, class_id: int | None) -> NDArray[np.int64]:
    """Positions, in order, of the frames on which somebody boxed this class (crowds count too).

    Of all frames for ``None``.
    """
    if class_id is None:
        return np.arange(len(frames))
    found = [
        (labels := frames.labels(i)) is not None and class_id in labels.class_ids for i in range(len(frames))
    ]
    return np.flatnonzero(found)


def detection_dissimilarity(models: Sequence[Predictions], score: float) -> NDArray[np.float64]:
    """How little the models' detections on each image have in common, ``(images,)`` in [0, 1].

    For two models ``1 - 2 * pairs / (detections of both)`` (Dice), where a pair is the same class at an IoU
    of 0.5 or more and detections below ``score`` are left out; 0 where neither finds anything. For three
    models the mean over the three couples.
    """
    sure = [predictions.above(score) for predictions in models]
    couples = list(combinations(sure, 2))
    apart = np.zeros((max(len(couples), 1), len(models[0].images) if models else 0))
    for row, (a, b) in enumerate(couples):
        for image in range(apart.shape[1]):
            here_a, here_b = slice(*a.offsets[image : image + 2]), slice(*b.offsets[image : image + 2])
            count = (here_a.stop - here_a.start) + (here_b.stop - here_b.start)
            if count:
                same = a.class_ids[here_a, None] == b.class_ids[None, here_b]
                overlaps = np.where(same, iou(a.boxes[here_a], b.boxes[here_b]), 0)
                pairs = len(match_greedily(overlaps, MATCH_IOU))
                apart[row, image] = 1 - 2 * pairs / count
    return np.asarray(apart.mean(axis=0))


def most_dissimilar_first(positions: NDArray[np.int64], apart: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same positions, the greatest disagreement first; equal ones keep their order."""
    return positions[np.argsort(-apart[positions], kind="stable")]
