"""Sorting accuracy: is an item sent to the right stream? What a bin is for, where mAP is what a detector is
for.

The rule. Of the detections that score at least ``sort_score``, best first, each takes the free item it
overlaps most, if that is at IoU >= 0.5; *the class plays no part*, so every item meets at most one detection
and every detection at most one item. The item goes where the stream of the detection's class says. Then

- an item is **right** (sent to its own stream), **wrong** (sent to another) or **missed** (no detection met
  it);
- *sorting accuracy* = right / all items; *of items found* = right / (right + wrong);
- a stream's *contamination* = of the items sent to it, the share that belong elsewhere;
- a **false detection** met no item: nothing lies there, so it contaminates nothing; it is counted beside.

Confusing two classes of one stream (clear bottle, other bottle) therefore costs nothing, as in the chamber it
costs nothing. Crowd regions are no items; a detection that lies at least half in one and met no item is left
out of every count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import MATCH_IOU, GroundTruth, Predictions
from trashnet.boxes import iou

Outcome = Literal["right", "wrong", "missed"]
MISSED = -1  # an item that no detection met
UNMATCHED = -1  # a detection that met no item
IGNORED = -2  # a crowd region; a detection within one


@dataclass(frozen=True)
class Matches:
    """Which detection was matched with which item.

    Attributes:
        detection_indices: int64 ``(N,)``, per ground-truth box the row of its detection, ``MISSED`` without
            one, ``IGNORED`` for a crowd.
        item_indices: int64 ``(M,)``, per detection the row of its item, ``UNMATCHED`` without one,
            ``IGNORED`` within a crowd.
    """

    detection_indices: NDArray[np.int64]
    item_indices: NDArray[np.int64]

    def above(self, predictions: Predictions, score: float) -> "Matches":
        """The matches that ``predictions.above(score)`` would give: matching is greedy, a detection never
        depends on a lesser one.
        """
        keep = predictions.scores >= score
        row_after = np.where(keep, np.cumsum(keep) - 1, MISSED)
        met = self.detection_indices >= 0
        detection_indices = self.detection_indices.copy()
        detection_indices[met] = row_after[self.detection_indices[met]]
        return Matches(detection_indices, self.item_indices[keep])


def match_items(ground_truth: GroundTruth, predictions: Predictions, min_iou: float = MATCH_IOU) -> Matches:
    """Match detections and items one to one, greedily by score, whatever their classes (the rule above)."""
    detection_indices = np.where(ground_truth.crowd, IGNORED, MISSED)
    item_indices = np.full(len(predictions), UNMATCHED, np.int64)
    for image in np.unique(predictions.image):
        found = slice(predictions.offsets[image], predictions.offsets[image + 1])
        there = slice(ground_truth.offsets[image], ground_truth.offsets[image + 1])
        crowd = ground_truth.crowd[there]
        overlaps = iou(predictions.boxes[found], ground_truth.boxes[there], crowd)
        free = ~crowd
        for row, overlap in enumerate(overlaps, start=found.start):
            candidates = np.where(free, overlap, 0.0)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best >= 0 and candidates[best] >= min_iou:
                free[best] = False
                item_indices[row], detection_indices[there.start + best] = there.start + best, row
            elif (overlap[crowd] >= MATCH_IOU).any():
                item_indices[row] = IGNORED
    return Matches(detection_indices, item_indices)


@dataclass(frozen=True)
class Share:
    """``hits`` of ``of``; :mod:`evaluation.intervals` says how sure it is."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, ``None`` of nothing."""
        return self.hits / self.of if self.of else None


def wilson_interval(hits: float, of: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval at 95% (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4).

    Within [0, 1], sensible at 0 and at 1. It takes the items to be independent; their number may be an
    effective one, and so no integer.
    """
    p = hits / of
    centre = (p + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return (0.0 if hits == 0 else centre - half, 1.0 if hits == of else centre + half)


@dataclass(frozen=True)
class StreamCounts:
    """One stream: its items, and what was sent to it."""

    items: int  # that belong to it
    right: int  # of these, sent to it
    missed: int  # of these, met by no detection
    received: int  # items sent to it, whatever they are
    foreign: int  # of these, belonging elsewhere
    false_detections: int  # detections of its classes that met no item


@dataclass(frozen=True)
class SortingCounts:
    """Where items went at one score threshold."""

    items: int
    right: int
    wrong: int
    missed: int
    false_detections: int
    streams: dict[str, StreamCounts]

    @property
    def accuracy(self) -> Share:
        """Right, of all items."""
        return Share(self.right, self.items)

    @property
    def accuracy_of_found(self) -> Share:
        """Right, of the items that a detection met."""
        return Share(self.right, self.right + self.wrong)

    @property
    def contamination(self) -> Share:
        """Items in a stream where they do not belong, of all items sent anywhere."""
        return Share(self.wrong, self.right + self.wrong)


def count_sorted_items(
    ground_truth: GroundTruth, predictions: Predictions, matches: Matches, stream_of: Mapping[int, str]
) -> SortingCounts:
    """Count what went where. ``stream_of``: stream by class id, its order gives the order of streams."""
    streams = list(dict.fromkeys(stream_of.values()))
    sends = stream_numbers(predictions.class_ids, stream_of, streams)
    belongs, goes = destinations(ground_truth, predictions, matches, stream_of)
    item = matches.detection_indices != IGNORED
    found = matches.detection_indices >= 0
    false = matches.item_indices == UNMATCHED
    by_stream = {
        name: StreamCounts(
            items=int((item & (belongs == s)).sum()),
            right=int((found & (belongs == s) & (goes == s)).sum()),
            missed=int((item & ~found & (belongs == s)).sum()),
            received=int((found & (goes == s)).sum()),
            foreign=int((found & (goes == s) & (belongs != s)).sum()),
            false_detections=int((false & (sends == s)).sum()),
        )
        for s, name in enumerate(streams)
    }
    right = int((found & (goes == belongs)).sum())
    return SortingCounts(
        int(item.sum()),
        right,
        int(found.sum()) - right,
        int((item & ~found).sum()),
        int(false.sum()),
        by_stream,
    )


def destinations(
    ground_truth: GroundTruth, predictions: Predictions, matches: Matches, stream_of: Mapping[int, str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per ground-truth box the number of the stream it belongs to, and of the one a detection sends it to.

    Both int64 ``(N,)``; ``MISSED`` without a detection. Streams are numbered in the order of ``stream_of``.
    """
    streams = list(dict.fromkeys(stream_of.values()))
    belongs = stream_numbers(ground_truth.class_ids, stream_of, streams)
    sends = stream_numbers(predictions.class_ids, stream_of, streams)
    found = matches.detection_indices >= 0
    goes = np.full(len(ground_truth), MISSED)
    goes[found] = sends[matches.detection_indices[found]]
    return belongs, goes


def stream_numbers(
    class_ids: NDArray[np.int64], stream_of: Mapping[int, str], streams: list[str]
) -> NDArray[np.int64]:
    """The number of each class's stream in ``streams``, int64 ``(N,)``."""
    number = {class_id: streams.index(stream) for class_id, stream in stream_of.items()}
    return np.array([number[int(c)] for c in class_ids], np.int64).reshape(-1)


@dataclass(frozen=True)
class ClassConfusion:
    """One cell off the diagonal: items of class id ``actual`` taken for ``predicted``."""

    actual: int
    predicted: int
    count: int
    frames: tuple[str, ...]  # up to three that show it, the most confident mistakes first


def confusion_pairs(
    ground_truth: GroundTruth, predictions: Predictions, matches: Matches
) -> list[tuple[int | None, int | None, str, float]]:
    """Every item and every false detection as ``(actual class id, predicted class id, frame, score)``.

    The rows of a confusion matrix.
    """
    pairs: list[tuple[int | None, int | None, str, float]] = []
    for row in np.flatnonzero(matches.detection_indices != IGNORED):
        met = int(matches.detection_indices[row])
        predicted = int(predictions.class_ids[met]) if met >= 0 else None
        score = float(predictions.scores[met]) if met >= 0 else 0.0
        pairs.append(
            (int(ground_truth.class_ids[row]), predicted, ground_truth.images[ground_truth.image[row]], score)
        )
    for row in np.flatnonzero(matches.item_indices == UNMATCHED):
        image = predictions.images[predictions.image[row]]
        pairs.append((None, int(predictions.class_ids[row]), image, float(predictions.scores[row])))
    return pairs


def find_worst_confusions(
    pairs: list[tuple[int | None, int | None, str, float]], limit: int
) -> list[ClassConfusion]:
    """The most frequent mistakes of one class for another, with frames to look at.

    Misses and false detections are not among them.
    """
    cells: dict[tuple[int, int], list[tuple[float, str]]] = {}
    for actual, predicted, frame, score in pairs:
        if actual is not None and predicted is not None and actual != predicted:
            cells.setdefault((actual, predicted), []).append((-score, frame))
    worst = sorted(cells.items(), key=lambda cell: (-len(cell[1]), cell[0]))[:limit]
    return [
        ClassConfusion(
            actual, predicted, len(seen), tuple(dict.fromkeys(frame for _, frame in sorted(seen)))[:3]
        )
        for (actual, predicted), seen in worst
    ]
