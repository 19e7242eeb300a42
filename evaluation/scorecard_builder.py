"""Scores predictions against ground truth: everything that a scorecard says, from arrays alone."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.coco import IOU_THRESHOLDS, RECALLS, CocoMetrics, coco_metrics
from evaluation.error_causes import CAUSES, HIT, count_causes, find_causes
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.intervals import ClusteredProportion, group_weights, number_groups
from evaluation.params import EvaluationParams
from evaluation.resamples import match_as_coco, mean_ap, resample_ap
from evaluation.scorecard import (
    ClassScore,
    ConfusionCell,
    Curves,
    Interval,
    Latency,
    ModelInfo,
    Proportion,
    Scorecard,
    SplitInfo,
    WorstConfusion,
)
from evaluation.slices import score_slices
from evaluation.sorting_accuracy import (
    confusion_pairs,
    destinations,
    find_worst_confusions,
    match_items,
)
from evaluation.sorting_score import Clusters, SortScore, interval_of, operating_points, score_sorting
from trashnet.taxonomy import Taxonomy


def build_scorecard(
    name: str,
    truth: GroundTruth,
    predictions: Predictions,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    *,
    sort_score: SortScore,
    model: ModelInfo,
    latency: Latency,
    groups: Sequence[str],
    bins: Sequence[str | None] = (),
    train_boxes: NDArray[np.int64] | None = None,
    turns: Sequence[str] = (),
) -> Scorecard:
    """The scorecard of these predictions; reads and writes nothing.

    ``groups``: per image the group of frames that it belongs to, by which intervals are clustered; ``bins``:
    per image the bin it came from.
    """
    class_ids = np.array([c.id for c in taxonomy.classes])
    coco = coco_metrics(truth, predictions, class_ids)
    acted = predictions.above(sort_score.score)
    matches = match_items(truth, acted)
    frame = number_groups(groups)
    count = int(frame.max(initial=-1)) + 1
    clusters = Clusters(frame, count, group_weights(count, params.resamples, params.seed))
    pairs = confusion_pairs(truth, acted, matches)
    causes = count_causes(truth, acted, find_causes(truth, acted))
    belongs, goes = destinations(truth, acted, matches, taxonomy.stream_of)
    right, group = belongs == goes, frame[truth.image]
    return Scorecard(
        name=name,
        model=model,
        split=SplitInfo(
            frames=len(truth.images),
            groups=count,
            items=int((~truth.crowd).sum()),
            crowds=int(truth.crowd.sum()),
            digest=truth.digest(),
            turns=tuple(turns),
        ),
        coco=coco.summary,
        coco_intervals=_coco_intervals(truth, predictions, class_ids, clusters),
        sorting=score_sorting(truth, acted, matches, taxonomy, params, sort_score, clusters),
        operating_points=operating_points(truth, predictions, taxonomy, params, sort_score.score),
        classes=_class_scores(coco, causes, right, group, truth, taxonomy, train_boxes),
        causes={cause: sum(c[cause] for c in causes.values()) for cause in (HIT, *CAUSES)},
        slices=tuple(score_slices(truth, predictions, right, group, coco, bins)),
        confusion=_cells((_name(a, taxonomy.name_of), _name(p, taxonomy.name_of)) for a, p, _, _ in pairs),
        stream_confusion=_cells(
            (_name(a, taxonomy.stream_of), _name(p, taxonomy.stream_of)) for a, p, _, _ in pairs
        ),
        worst_confusions=_worst_confusions(pairs, taxonomy, params.worst_confusions),
        curves=_curves(coco),
        latency=latency,
    )


def _coco_intervals(
    truth: GroundTruth, predictions: Predictions, class_ids: NDArray[np.int64], clusters: Clusters
) -> dict[str, Interval | None]:
    samples = resample_ap(
        match_as_coco(truth, predictions, class_ids), truth, predictions, clusters.frame, clusters.weights
    )
    return {
        "ap": interval_of(mean_ap(samples.ap), clusters),
        "ap50": interval_of(mean_ap(samples.ap50), clusters),
    }


def _worst_confusions(
    pairs: list[tuple[int | None, int | None, str, float]], taxonomy: Taxonomy, limit: int
) -> tuple[WorstConfusion, ...]:
    return tuple(
        WorstConfusion(
            actual=taxonomy.name_of[c.actual],
            predicted=taxonomy.name_of[c.predicted],
            crosses_streams=taxonomy.stream_of[c.actual] != taxonomy.stream_of[c.predicted],
            count=c.count,
            frames=c.frames,
        )
        for c in find_worst_confusions(pairs, limit)
    )


def _class_scores(
    coco: CocoMetrics,
    causes: dict[int, Counter[str]],
    right: NDArray[np.bool_],
    group: NDArray[np.int64],
    truth: GroundTruth,
    taxonomy: Taxonomy,
    train_boxes: NDArray[np.int64] | None,
) -> tuple[ClassScore, ...]:
    scores = []
    for one in taxonomy.classes:
        items = (truth.class_ids == one.id) & ~truth.crowd
        count = int(items.sum())
        why = causes.get(one.id, Counter())
        scores.append(
            ClassScore(
                class_id=one.id,
                name=one.name,
                stream=taxonomy.stream_of[one.id],
                test_boxes=count,
                train_boxes=None if train_boxes is None else int(train_boxes[one.id - 1]),
                ap=coco.ap(one.id),
                ap50=coco.ap(one.id, iou=0.5),
                ar=coco.ar(one.id),
                recall=why[HIT] / count if count else None,
                sorting=Proportion.from_groups(ClusteredProportion.count(right, group, items)),
                causes={cause: why[cause] for cause in (HIT, *CAUSES)},
            )
        )
    return tuple(scores)


def _name(class_id: int | None, names: dict[int, str]) -> str | None:
    return None if class_id is None else names[class_id]


def _cells(pairs: Iterable[tuple[str | None, str | None]]) -> tuple[ConfusionCell, ...]:
    return tuple(ConfusionCell(actual=a, predicted=p, count=n) for (a, p), n in Counter(pairs).most_common())


def _curves(coco: CocoMetrics) -> Curves:
    curves = [coco.curve(float(iou)) for iou in IOU_THRESHOLDS]
    if curves[0] is None:
        return Curves(recall=(), precision_50=(), precision_75=(), precision_mean=())
    table = np.stack([np.clip(c, 0, 1) for c in curves if c is not None])
    return Curves(
        recall=tuple(RECALLS.round(2).tolist()),
        precision_50=tuple(table[0].tolist()),
        precision_75=tuple(table[5].tolist()),
        precision_mean=tuple(table.mean(axis=0).tolist()),
    )
