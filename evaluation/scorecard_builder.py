"""Scores predictions against ground truth: everything that a scorecard says, from arrays alone."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.coco import IOU_THRESHOLDS, RECALLS, CocoMetrics, coco_metrics
from evaluation.error_causes import CAUSES, HIT, count_causes, find_causes
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.params import EvaluationParams
from evaluation.scorecard import (
    ClassScore,
    ConfusionCell,
    Curves,
    Latency,
    ModelInfo,
    OperatingPoint,
    Proportion,
    Scorecard,
    SortingScore,
    SplitInfo,
    StreamScore,
    WorstConfusion,
)
from evaluation.slices import score_slices
from evaluation.sorting_accuracy import (
    BinomialProportion,
    Matches,
    SortingCounts,
    confusion_pairs,
    count_sorted_items,
    find_worst_confusions,
    match_items,
)
from trashnet.taxonomy import Taxonomy


def build_scorecard(
    name: str,
    truth: GroundTruth,
    predictions: Predictions,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    *,
    model: ModelInfo,
    latency: Latency,
    bins: Sequence[str | None] = (),
    train_boxes: NDArray[np.int64] | None = None,
    turns: Sequence[str] = (),
) -> Scorecard:
    """The scorecard of these predictions; reads and writes nothing.

    ``bins``: per image the bin it came from.
    """
    class_ids = np.array([c.id for c in taxonomy.classes])
    coco = coco_metrics(truth, predictions, class_ids)
    matches = match_items(truth, predictions)
    acted = predictions.above(params.sort_score)
    acted_matches = matches.above(predictions, params.sort_score)
    sorting = count_sorted_items(truth, acted, acted_matches, taxonomy.stream_of)
    pairs = confusion_pairs(truth, acted, acted_matches)
    causes = count_causes(truth, acted, find_causes(truth, acted))
    right = _sorted_right(truth, acted, acted_matches, taxonomy)
    return Scorecard(
        name=name,
        model=model,
        split=SplitInfo(
            frames=len(truth.images),
            items=sorting.items,
            crowds=int(truth.crowd.sum()),
            digest=truth.digest(),
            turns=tuple(turns),
        ),
        coco=coco.summary,
        sorting=_sorting_score(sorting, params.sort_score),
        operating_points=_operating_points(truth, predictions, matches, taxonomy),
        classes=_class_scores(coco, causes, right, truth, taxonomy, train_boxes),
        causes={cause: sum(c[cause] for c in causes.values()) for cause in (HIT, *CAUSES)},
        slices=tuple(score_slices(truth, predictions, right, coco, bins)),
        confusion=_cells((_name(a, taxonomy.name_of), _name(p, taxonomy.name_of)) for a, p, _, _ in pairs),
        stream_confusion=_cells(
            (_name(a, taxonomy.stream_of), _name(p, taxonomy.stream_of)) for a, p, _, _ in pairs
        ),
        worst_confusions=tuple(
            WorstConfusion(
                actual=taxonomy.name_of[c.actual],
                predicted=taxonomy.name_of[c.predicted],
                crosses_streams=taxonomy.stream_of[c.actual] != taxonomy.stream_of[c.predicted],
                count=c.count,
                frames=c.frames,
            )
            for c in find_worst_confusions(pairs, params.worst_confusions)
        ),
        curves=_curves(coco),
        latency=latency,
    )


def _sorting_score(sorting: SortingCounts, score: float) -> SortingScore:
    return SortingScore(
        score=score,
        items=sorting.items,
        right=sorting.right,
        wrong=sorting.wrong,
        missed=sorting.missed,
        false_detections=sorting.false_detections,
        accuracy=Proportion.from_counts(sorting.accuracy),
        accuracy_of_found=Proportion.from_counts(sorting.accuracy_of_found),
        contamination=Proportion.from_counts(sorting.contamination),
        streams=tuple(
            StreamScore(
                name=name,
                items=s.items,
                missed=s.missed,
                accuracy=Proportion.from_counts(BinomialProportion(s.right, s.items)),
                contamination=Proportion.from_counts(BinomialProportion(s.foreign, s.received)),
                false_detections=s.false_detections,
            )
            for name, s in sorting.streams.items()
        ),
    )


def _operating_points(
    truth: GroundTruth, predictions: Predictions, matches: Matches, taxonomy: Taxonomy
) -> tuple[OperatingPoint, ...]:
    """Sorting at other thresholds.

    Matching is greedy by score, so what is matched at a threshold stays matched below it.
    """
    points = []
    for score in np.arange(5, 100, 5) / 100:
        at = count_sorted_items(
            truth, predictions.above(score), matches.above(predictions, score), taxonomy.stream_of
        )
        points.append(
            OperatingPoint(
                score=float(score),
                accuracy=at.accuracy.value,
                contamination=at.contamination.value,
                missed=at.missed / at.items if at.items else None,
                false_per_frame=at.false_detections / len(truth.images),
            )
        )
    return tuple(points)


def _sorted_right(
    truth: GroundTruth, predictions: Predictions, matches: Matches, taxonomy: Taxonomy
) -> NDArray[np.bool_]:
    """Per ground-truth box whether it went to its own stream, ``(N,)``.

    False for crowds, which are no items.
    """
    right = np.zeros(len(truth), bool)
    for row in np.flatnonzero(matches.detection_indices >= 0):
        sent_as = int(predictions.class_ids[matches.detection_indices[row]])
        right[row] = taxonomy.stream_of[sent_as] == taxonomy.stream_of[int(truth.class_ids[row])]
    return right


def _class_scores(
    coco: CocoMetrics,
    causes: dict[int, Counter[str]],
    right: NDArray[np.bool_],
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
                sorting=Proportion.from_counts(BinomialProportion(int(right[items].sum()), count)),
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
