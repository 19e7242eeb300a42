"""Why a model is worse on a class: every false detection and every miss has one cause (TIDE; Bolya et al.,
ECCV 2020, section 2.2).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import MATCH_IOU, GroundTruth, Predictions
from trashnet.boxes import iou

Cause = Literal["classification", "localisation", "both", "duplicate", "background", "missed"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
BACKGROUND_IOU = 0.1  # TIDE's t_b: below it a detection has nothing to do with an item
HIT, IN_CROWD = "hit", "left out"


@dataclass(frozen=True)
class ErrorCauses:
    """The cause of every mistake.

    ``detection_causes``: per detection ``"hit"``, ``"left out"`` (in a crowd) or its cause; ``item_indices``:
    ``(M,)``, the item it speaks of, -1 for background; ``missed``: bool ``(N,)``, items without a hit that no
    detection comes near enough to blame.
    """

    detection_causes: list[str]
    item_indices: NDArray[np.int64]
    missed: NDArray[np.bool_]


def find_causes(ground_truth: GroundTruth, predictions: Predictions) -> ErrorCauses:
    """Name the cause of every mistake, in TIDE's order.

    Hits are COCO's at IoU 0.5: within a class, best score first. A false detection is, in this order,
    *background* (IoU < 0.1 with everything), *localisation* (right class, 0.1 <= IoU < 0.5),
    *classification* (another class's item at IoU >= 0.5), *duplicate* (right class, IoU >= 0.5, but the
    item is taken) or *both* (another class's item, 0.1 <= IoU < 0.5). An item without a hit is *missed*
    unless a localisation or classification mistake already accounts for it.
    """
    detection_causes = [HIT] * len(predictions)
    item_indices = np.full(len(predictions), -1, np.int64)
    missed = ~ground_truth.crowd
    for image in np.unique(predictions.image):
        found = np.arange(predictions.offsets[image], predictions.offsets[image + 1])
        there = np.arange(ground_truth.offsets[image], ground_truth.offsets[image + 1])
        crowd = ground_truth.crowd[there]
        overlaps = iou(predictions.boxes[found], ground_truth.boxes[there], crowd)
        same = predictions.class_ids[found][:, None] == ground_truth.class_ids[there][None, :]
        hits = _hits(np.where(same & ~crowd, overlaps, 0.0))
        taken = np.zeros(len(there), bool)
        taken[hits[hits >= 0]] = True
        missed[there[taken]] = False
        for row, overlap, own, hit in zip(found, overlaps, same, hits, strict=True):
            if hit >= 0:
                item_indices[row] = there[hit]
                continue
            if (overlap[crowd & own] >= MATCH_IOU).any():
                detection_causes[row] = IN_CROWD
                continue
            cause, item = _cause(np.where(crowd, 0.0, overlap), own)
            detection_causes[row] = cause
            item_indices[row] = there[item] if item >= 0 else -1
            if cause in ("localisation", "classification"):
                missed[there[item]] = False
    return ErrorCauses(detection_causes, item_indices, missed)


def _hits(overlaps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Per detection, best first, the free item it overlaps most at IoU >= 0.5, else -1.

    The last of equals, as pycocotools has it.
    """
    hits = np.full(len(overlaps), -1, np.int64)
    free = np.ones(overlaps.shape[1], bool)
    for row, overlap in enumerate(overlaps):
        candidates = np.where(free, overlap, 0.0)
        if candidates.size and candidates.max() >= MATCH_IOU:
            hits[row] = len(candidates) - 1 - int(candidates[::-1].argmax())
            free[hits[row]] = False
    return hits


def _cause(overlap: NDArray[np.float64], own: NDArray[np.bool_]) -> tuple[Cause, int]:
    """Cause of a false detection and the item it speaks of (-1: none), from its overlap with each item and
    whether that is of its class.
    """
    if not overlap.size or overlap.max() < BACKGROUND_IOU:
        return "background", -1
    mine, other = np.where(own, overlap, 0.0), np.where(own, 0.0, overlap)
    if BACKGROUND_IOU <= mine.max() < MATCH_IOU:
        return "localisation", int(mine.argmax())
    if other.max() >= MATCH_IOU:
        return "classification", int(other.argmax())
    if mine.max() >= MATCH_IOU:
        return "duplicate", int(mine.argmax())
    return "both", int(other.argmax())


def count_causes(
    ground_truth: GroundTruth, predictions: Predictions, causes: ErrorCauses
) -> dict[int, Counter[str]]:
    """Hits and causes per class id.

    A mistake is laid to the class of the item it spoils, and where it spoils none to the class it claims.

    So "cartons: 40 classification" reads: forty detections that lie on a carton call it something else.
    """
    counts: dict[int, Counter[str]] = {}
    for row, cause in enumerate(causes.detection_causes):
        if cause != IN_CROWD:
            item = int(causes.item_indices[row])
            blamed = int(ground_truth.class_ids[item]) if item >= 0 else int(predictions.class_ids[row])
            counts.setdefault(blamed, Counter())[cause] += 1
    for class_id in ground_truth.class_ids[causes.missed].tolist():
        counts.setdefault(class_id, Counter())["missed"] += 1
    return counts
