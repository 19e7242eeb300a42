"""Sorting utility: what a bin gains by a model, in items sorted right.

An item that is sorted right earns 1, one that is sorted wrong costs ``wrong_cost``, a false detection costs
``false_cost``. An item that no detection met goes to the taxonomy's ``default_stream``: it is right if it
belongs there and wrong otherwise. Unlike sorting accuracy, which can only rise as the score threshold falls,
utility has a best threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.params import EvaluationParams
from evaluation.sorting_accuracy import IGNORED, UNMATCHED, Matches, destinations, match_items
from trashnet.taxonomy import Taxonomy

SAME = 9  # digits to which two utilities of a whole split are told apart: beyond lies the order of summation


@dataclass(frozen=True)
class ItemOutcomes:
    """What became of every ground-truth box.

    Attributes:
        item: bool ``(N,)``, False for crowds, which are no items.
        met: bool ``(N,)``, whether a detection met it.
        right: bool ``(N,)``, whether it arrives in its own stream, by a detection or by the default stream.
    """

    item: NDArray[np.bool_]
    met: NDArray[np.bool_]
    right: NDArray[np.bool_]


def item_outcomes(
    truth: GroundTruth, predictions: Predictions, matches: Matches, taxonomy: Taxonomy
) -> ItemOutcomes:
    """Where each item goes. ``predictions`` and ``matches``: those that the bin acts on (``above``)."""
    streams = [*dict.fromkeys(taxonomy.stream_of.values())]
    belongs, goes = destinations(truth, predictions, matches, taxonomy.stream_of)
    item, met = matches.detection_indices != IGNORED, matches.detection_indices >= 0
    if taxonomy.default_stream in streams:
        goes = np.where(met, goes, streams.index(taxonomy.default_stream))
    return ItemOutcomes(item, met, item & (goes == belongs))


def recognised_items(truth: GroundTruth, predictions: Predictions, matches: Matches) -> NDArray[np.bool_]:
    """Whether each item met a detection of its own class, bool ``(N,)``; false for crowds."""
    met = matches.detection_indices >= 0
    recognised = np.zeros(len(truth), np.bool_)
    recognised[met] = predictions.class_ids[matches.detection_indices[met]] == truth.class_ids[met]
    return recognised


def frame_utilities(
    truth: GroundTruth,
    predictions: Predictions,
    matches: Matches,
    taxonomy: Taxonomy,
    params: EvaluationParams,
) -> NDArray[np.float64]:
    """Per frame the sum of the utilities of its items and false detections, float64 ``(frames,)``.

    A model's utility is this sum over all frames, divided by the number of items: 1 is a perfect sorter, 0
    does as much harm as good. ``predictions`` and ``matches`` are those that the bin acts on (``above`` its
    score). A detection within a crowd region counts for nothing.
    """
    outcomes = item_outcomes(truth, predictions, matches, taxonomy)
    of_items = np.where(outcomes.right, 1.0, -params.wrong_cost)[outcomes.item]
    frames = len(truth.images)
    sums = np.bincount(truth.image[outcomes.item], weights=of_items, minlength=frames)
    false = np.bincount(predictions.image[matches.item_indices == UNMATCHED], minlength=frames)
    return np.asarray(sums - params.false_cost * false, np.float64)


def frames_right(
    truth: GroundTruth, predictions: Predictions, matches: Matches, taxonomy: Taxonomy
) -> NDArray[np.bool_]:
    """Per frame whether every item arrives in its stream and nothing false was detected, ``(frames,)``."""
    outcomes = item_outcomes(truth, predictions, matches, taxonomy)
    right = np.ones(len(truth.images), np.bool_)
    right[truth.image[outcomes.item & ~outcomes.right]] = False
    right[predictions.image[matches.item_indices == UNMATCHED]] = False
    return right


def utilities_by_score(
    truth: GroundTruth,
    predictions: Predictions,
    matches: Matches,
    taxonomy: Taxonomy,
    params: EvaluationParams,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of utilities at every threshold that makes a difference.

    Matching is greedy by score, so lowering the threshold past a detection only adds what that one brings:
    nothing is matched again.

    Returns:
        ``(thresholds, sums)``, both float64 ``(T,)``, thresholds descending. The first is 1, where a model
        acts on nothing but what it is certain of; the others are the distinct scores.
    """
    outcomes = item_outcomes(truth, predictions, matches, taxonomy)
    in_default = np.array(
        [taxonomy.stream_of[int(c)] == taxonomy.default_stream for c in truth.class_ids], np.bool_
    )
    alone = np.where(in_default, 1.0, -params.wrong_cost)[outcomes.item].sum()  # when nothing is detected
    swing = 1.0 + params.wrong_cost  # from wrong to right, or back
    met = outcomes.met
    gains = np.where(matches.item_indices == UNMATCHED, -params.false_cost, 0.0)
    gains[matches.detection_indices[met]] = swing * (
        outcomes.right[met].astype(np.float64) - in_default[met].astype(np.float64)
    )
    order = np.argsort(-predictions.scores, kind="stable")
    scores, sums = predictions.scores[order], alone + np.cumsum(gains[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    thresholds, totals = scores[last], sums[last]
    if not len(thresholds) or thresholds[0] < 1:
        thresholds, totals = np.insert(thresholds, 0, 1.0), np.insert(totals, 0, alone)
    return thresholds, totals


def choose_sort_score(
    truth: GroundTruth, predictions: Predictions, taxonomy: Taxonomy, params: EvaluationParams
) -> float | None:
    """The score threshold of the greatest utility on these frames; of equals the highest.

    ``None`` where they have no items, so that nothing can be chosen. 1 says that every detection costs more
    than it brings.
    """
    if truth.crowd.all():
        return None
    matches = match_items(truth, predictions)
    thresholds, totals = utilities_by_score(truth, predictions, matches, taxonomy, params)
    return float(thresholds[np.argmax(totals.round(SAME))])
