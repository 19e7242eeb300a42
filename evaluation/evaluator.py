"""Run a detector over a split and say everything there is to say about it."""

import hashlib
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataset import Frames, Log, Split
from evaluation.coco import IOU_THRESHOLDS, RECALLS, CocoMetrics, coco_metrics
from evaluation.error_causes import CAUSES, HIT, count_causes, find_causes
from evaluation.flat_arrays import SIZES, GroundTruth, Predictions
from evaluation.params import EvaluationParams
from evaluation.plot_tables import write_plots
from evaluation.scorecard import (
    ClassScore,
    ConfusionCell,
    Curves,
    Latency,
    ModelFacts,
    OperatingPoint,
    Proportion,
    Scorecard,
    Slice,
    SortingScore,
    SplitFacts,
    StreamScore,
    WorstConfusion,
)
from evaluation.sorting_accuracy import (
    Matches,
    Share,
    Sorting,
    confusion_pairs,
    match_items,
    sort_items,
    worst_confusions,
)
from trashnet.detectors import Detections, Detector
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.taxonomy import Taxonomy

MOST_BINS = 50  # slices per bin, the bins with most frames first: beyond that nobody reads the table


def evaluate(
    detector: Detector,
    log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    out: Path,
    *,
    split: Split = "test",
    model: Path | None = None,
) -> Scorecard:
    """Judge a detector on the labelled frames of a split and write what was found under ``out``.

    ``model``: the detector's file, for its size and SHA-256. Writes ``predictions/NAME.json`` (COCO results,
    ``image_id`` = SHA-256 of the frame), ``metrics/NAME.json``, ``plots/NAME/*.csv`` and, last,
    ``scorecards/NAME.json``.

    Raises :class:`UserError` if the split has no labelled frame.
    """
    frames = log.frames(split)
    if not len(frames):
        raise UserError(
            f"{log.root}: no labelled frame in split {split!r}, so nothing to judge on; import some, or draw "
            "the sample"
        )
    truth = GroundTruth.of(frames)
    predictions, seconds = predict(detector, frames, params.warm_up)
    bins = [frames[i].bin_id for i in range(len(frames))]
    scorecard = judge(
        detector.name,
        truth,
        predictions,
        taxonomy,
        params,
        model=_model_facts(model, detector),
        latency=_latency(seconds),
        bins=bins,
        train_boxes=log.box_counts("train"),
        turns=log.turns,
    )
    predictions.write(out / "predictions" / f"{detector.name}.json")
    write_json(out / "metrics" / f"{detector.name}.json", scorecard.headline())
    write_plots(scorecard, out / "plots" / detector.name)
    scorecard.save(out / "scorecards" / f"{detector.name}.json")
    return scorecard


def predict(detector: Detector, frames: Frames, warm_up: int) -> tuple[Predictions, list[float]]:
    """Detect on every frame, one call each.

    The predictions and the seconds each call took, decoding not counted.
    """
    images: list[str] = []
    found: list[Detections] = []
    seconds: list[float] = []
    for _ in range(warm_up):
        detector.detect([frames[0].image()])
    for position in tqdm(range(len(frames)), desc=f"judge {detector.name}", unit="frame", disable=None):
        frame = frames[position]
        image = frame.image()
        began = time.perf_counter()
        (detections,) = detector.detect([image])
        seconds.append(time.perf_counter() - began)
        images.append(frame.sha256)
        found.append(detections)
    return Predictions.of(images, found), seconds


def judge(
    name: str,
    truth: GroundTruth,
    predictions: Predictions,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    *,
    model: ModelFacts,
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
    sorting = sort_items(truth, acted, acted_matches, taxonomy.stream_of)
    pairs = confusion_pairs(truth, acted, acted_matches)
    causes = count_causes(truth, acted, find_causes(truth, acted))
    right = _sent_right(truth, acted, acted_matches, taxonomy)
    return Scorecard(
        name=name,
        model=model,
        split=SplitFacts(
            frames=len(truth.images),
            items=sorting.items,
            crowds=int(truth.crowd.sum()),
            digest=truth.digest(),
            turns=tuple(turns),
        ),
        coco=coco.twelve,
        sorting=_sorting_score(sorting, params.sort_score),
        operating_points=_operating_points(truth, predictions, matches, taxonomy),
        classes=_class_scores(coco, causes, right, truth, taxonomy, train_boxes),
        causes={cause: sum(c[cause] for c in causes.values()) for cause in (HIT, *CAUSES)},
        slices=tuple(_slices(truth, predictions, right, coco, bins)),
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
            for c in worst_confusions(pairs, params.worst_confusions)
        ),
        curves=_curves(coco),
        latency=latency,
    )


def _sorting_score(sorting: Sorting, score: float) -> SortingScore:
    return SortingScore(
        score=score,
        items=sorting.items,
        right=sorting.right,
        wrong=sorting.wrong,
        missed=sorting.missed,
        false_detections=sorting.false_detections,
        accuracy=Proportion.of_share(sorting.accuracy),
        accuracy_of_found=Proportion.of_share(sorting.accuracy_of_found),
        contamination=Proportion.of_share(sorting.contamination),
        streams=tuple(
            StreamScore(
                name=name,
                items=s.items,
                missed=s.missed,
                accuracy=Proportion.of_share(Share(s.right, s.items)),
                contamination=Proportion.of_share(Share(s.foreign, s.received)),
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
        at = sort_items(
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


def _sent_right(
    truth: GroundTruth, predictions: Predictions, matches: Matches, taxonomy: Taxonomy
) -> NDArray[np.bool_]:
    """Per ground-truth box whether it went to its own stream, ``(N,)``.

    False for crowds, which are no items.
    """
    right = np.zeros(len(truth), bool)
    for row in np.flatnonzero(matches.detection_of >= 0):
        sent_as = int(predictions.class_ids[matches.detection_of[row]])
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
                sorting=Proportion.of_share(Share(int(right[items].sum()), count)),
                causes={cause: why[cause] for cause in (HIT, *CAUSES)},
            )
        )
    return tuple(scores)


def _slices(
    truth: GroundTruth,
    predictions: Predictions,
    right: NDArray[np.bool_],
    coco: CocoMetrics,
    bins: Sequence[str | None],
) -> Iterable[Slice]:
    item = ~truth.crowd
    area = truth.boxes[:, 2] * truth.boxes[:, 3]
    for size, (low, high) in SIZES.items():
        here = item & (area >= low) & (area < high)
        yield Slice(
            kind="box size",
            value=size,
            frames=len(np.unique(truth.image[here])),
            accuracy=Proportion.of_share(Share(int(right[here].sum()), int(here.sum()))),
            ap=coco.twelve[f"ap_{size}"],
            ap50=coco.mean_ap(0.5, size),
        )
    items_in = np.bincount(truth.image[item], minlength=len(truth.images))
    groups = {
        "none": items_in == 0,
        "1": items_in == 1,
        "2 to 4": (items_in >= 2) & (items_in <= 4),
        "5 or more": items_in >= 5,
    }
    yield from (
        _part("items in frame", value, np.flatnonzero(here), truth, predictions, right, coco)
        for value, here in groups.items()
    )
    for bin_id, _ in Counter(b for b in bins if b is not None).most_common(MOST_BINS):
        positions = np.array([i for i, b in enumerate(bins) if b == bin_id])
        yield _part("bin", bin_id, positions, truth, predictions, right, coco)


def _part(
    kind: str,
    value: str,
    positions: NDArray[np.int64],
    truth: GroundTruth,
    predictions: Predictions,
    right: NDArray[np.bool_],
    coco: CocoMetrics,
) -> Slice:
    here = np.isin(truth.image, positions) & ~truth.crowd
    part = coco_metrics(truth.take(positions), predictions.take(positions), coco.class_ids)
    return Slice(
        kind=kind,  # type: ignore[arg-type]
        value=value,
        frames=len(positions),
        accuracy=Proportion.of_share(Share(int(right[here].sum()), int(here.sum()))),
        ap=part.twelve["ap"],
        ap50=part.twelve["ap50"],
    )


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


def _model_facts(model: Path | None, detector: Detector) -> ModelFacts:
    side = getattr(
        detector, "image_size", None
    )  # pixels a side, where an opened model says it: not part of the protocol
    size = None if side is None else (int(side), int(side))
    if model is None:
        return ModelFacts(file=None, bytes=None, sha256=None, input_size=size)
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFacts(file=model.name, bytes=model.stat().st_size, sha256=digest, input_size=size)


def _latency(seconds: list[float]) -> Latency:
    return Latency(
        calls=len(seconds),
        median_s=float(np.median(seconds)),
        p95_s=float(np.quantile(seconds, 0.95)),
        cpu=cpu_name(),
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def cpu_name() -> str:
    """The processor as its maker calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
