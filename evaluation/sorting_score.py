"""The part of a scorecard that says where items go, with intervals that are clustered by group."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.intervals import ClusteredProportion, bca_interval
from evaluation.params import EvaluationParams
from evaluation.scorecard import (
    Interval,
    OperatingPoint,
    Proportion,
    ScoreSource,
    SortingScore,
    StreamScore,
)
from evaluation.sorting_accuracy import (
    IGNORED,
    Matches,
    count_sorted_items,
    destinations,
    match_items,
)
from evaluation.utility import choose_sort_score, frame_utilities, frames_right
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True)
class SortScore:
    """The score from which a bin acts on a model's detections, and where it came from."""

    score: float
    source: ScoreSource


@dataclass(frozen=True)
class Clusters:
    """How frames belong together. ``frame``: int64 ``(frames,)``, each frame's group as a number below
    ``count``; ``weights``: ``(count, S)``, the resamples (:func:`evaluation.intervals.group_weights`).
    """

    frame: NDArray[np.int64]
    count: int
    weights: NDArray[np.float64]


def pick_sort_score(
    val: tuple[GroundTruth, Predictions] | None, taxonomy: Taxonomy, params: EvaluationParams
) -> SortScore:
    """``params.sort_score`` where it is given; else the best on ``val``; else ``params.fallback_score``.

    ``val``: the val split's boxes and this model's detections on them, ``None`` where it has no frames.
    """
    if params.sort_score is not None:
        return SortScore(params.sort_score, "params")
    chosen = None if val is None else choose_sort_score(*val, taxonomy, params)
    if chosen is None:
        return SortScore(params.fallback_score, "fallback")
    return SortScore(chosen, "val")


def score_sorting(
    truth: GroundTruth,
    acted: Predictions,
    matches: Matches,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    sort_score: SortScore,
    clusters: Clusters,
) -> SortingScore:
    """Where items go at the sorting score. ``acted`` and ``matches``: those from this score on."""
    counts = count_sorted_items(truth, acted, matches, taxonomy.stream_of)
    belongs, goes = destinations(truth, acted, matches, taxonomy.stream_of)
    item, met = matches.detection_indices != IGNORED, matches.detection_indices >= 0
    group = clusters.frame[truth.image]

    def share(hit: NDArray[np.bool_], within: NDArray[np.bool_]) -> Proportion:
        return Proportion.from_groups(ClusteredProportion.count(hit, group, within))

    frames = len(truth.images)
    whole = frames_right(truth, acted, matches, taxonomy)
    utilities = frame_utilities(truth, acted, matches, taxonomy, params)
    return SortingScore(
        score=sort_score.score,
        score_from=sort_score.source,
        utility=float(utilities.sum() / counts.items) if counts.items else None,
        utility_interval=_utility_interval(truth, utilities, item, clusters),
        frame_accuracy=Proportion.from_groups(
            ClusteredProportion.count(whole, clusters.frame, np.ones(frames, np.bool_))
        ),
        items=counts.items,
        right=counts.right,
        wrong=counts.wrong,
        missed=counts.missed,
        false_detections=counts.false_detections,
        accuracy=share(goes == belongs, item),
        accuracy_of_found=share(goes == belongs, met),
        contamination=share(goes != belongs, met),
        streams=tuple(
            StreamScore(
                name=name,
                items=stream.items,
                missed=stream.missed,
                accuracy=share(goes == s, item & (belongs == s)),
                contamination=share(belongs != s, met & (goes == s)),
                false_detections=stream.false_detections,
            )
            for s, (name, stream) in enumerate(counts.streams.items())
        ),
    )


def _utility_interval(
    truth: GroundTruth, utilities: NDArray[np.float64], item: NDArray[np.bool_], clusters: Clusters
) -> Interval | None:
    """Of the ratio of two sums over groups: utilities and items."""
    sums = np.bincount(clusters.frame, weights=utilities, minlength=clusters.count)
    items = np.bincount(clusters.frame[truth.image[item]], minlength=clusters.count)
    drawn = items @ clusters.weights
    values = np.where(drawn > 0, (sums @ clusters.weights) / np.maximum(drawn, 1), np.nan)
    return interval_of(values, clusters)


def interval_of(values: NDArray[np.float64], clusters: Clusters) -> Interval | None:
    """The interval of a statistic at every column of ``clusters.weights``."""
    ends = bca_interval(values, clusters.count)
    return None if ends is None else Interval(low=ends[0], high=ends[1])


def operating_points(
    truth: GroundTruth,
    predictions: Predictions,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    sort_score: float,
) -> tuple[OperatingPoint, ...]:
    """Sorting at other thresholds, and at the one in use.

    Matching is greedy by score, so what is matched at a threshold stays matched below it.
    """
    matches = match_items(truth, predictions)
    points = []
    for score in np.union1d(np.arange(5, 100, 5) / 100, [sort_score]):
        acted, acted_matches = predictions.above(score), matches.above(predictions, score)
        at = count_sorted_items(truth, acted, acted_matches, taxonomy.stream_of)
        utilities = frame_utilities(truth, acted, acted_matches, taxonomy, params)
        points.append(
            OperatingPoint(
                score=float(score),
                utility=float(utilities.sum() / at.items) if at.items else None,
                accuracy=at.accuracy.value,
                contamination=at.contamination.value,
                missed=at.missed / at.items if at.items else None,
                false_per_frame=at.false_detections / len(truth.images),
            )
        )
    return tuple(points)
