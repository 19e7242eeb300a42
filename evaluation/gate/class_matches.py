"""True positives at IoU 0.5 by COCO's rules, class by class: what AP50 counts."""

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import MATCH_IOU, GroundTruth, Predictions
from trashnet.boxes import iou

MAX_DETECTIONS = 100  # of one class in one image: COCO's largest limit


def match_classes(
    truth: GroundTruth, predictions: Predictions
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each detection is a true positive, and whether it counts, both bool ``(M,)``.

    As ``COCOeval.evaluateImg`` does at IoU 0.5 and all areas: within an image and class, best first, each
    detection takes the free item it overlaps most, the later one of two equals; one that meets only a crowd
    does not count, nor does one beyond the first hundred.
    """
    hit = np.zeros(len(predictions), np.bool_)
    counted = _rank_in_class(predictions) < MAX_DETECTIONS
    for image in np.unique(truth.image):
        here = np.arange(predictions.offsets[image], predictions.offsets[image + 1])
        there = slice(truth.offsets[image], truth.offsets[image + 1])
        crowd, classes = truth.crowd[there], truth.class_ids[there]
        overlap = iou(predictions.boxes[here], truth.boxes[there], crowd)
        overlap[predictions.class_ids[here][:, None] != classes] = 0.0
        free = ~crowd
        for row in np.flatnonzero((overlap >= MATCH_IOU).any(axis=1) & counted[here]):
            candidates = np.where(free, overlap[row], 0.0)
            best = len(candidates) - 1 - int(candidates[::-1].argmax())
            if candidates[best] >= MATCH_IOU:
                free[best] = False
                hit[here[row]] = True
            elif (overlap[row][crowd] >= MATCH_IOU).any():
                counted[here[row]] = False
    return hit, counted


def _rank_in_class(predictions: Predictions) -> NDArray[np.int64]:
    """How many better detections of its class a detection's image has, ``(M,)``."""
    order = np.lexsort((predictions.class_ids, predictions.image))
    key = np.stack([predictions.image[order], predictions.class_ids[order]])
    starts = np.flatnonzero(np.r_[True, (key[:, 1:] != key[:, :-1]).any(axis=0)]) if len(order) else order
    lengths = np.diff(np.r_[starts, len(order)])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return rank
