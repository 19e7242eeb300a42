"""Runs a detector over a split, scores it and writes the results."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from dataset import Frames, Log, Split
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.frame_matches import FrameMatches
from evaluation.latency import summarise_latency
from evaluation.params import EvaluationParams
from evaluation.plot_tables import write_plots
from evaluation.scorecard import ModelInfo, Scorecard
from evaluation.scorecard_builder import build_scorecard
from evaluation.sorting_accuracy import match_items
from evaluation.sorting_score import pick_sort_score
from trashnet.detectors import Detections, Detector
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.progress import track
from trashnet.taxonomy import Taxonomy


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

    The score from which its detections count in sorting is chosen on the val split, unless
    ``params.sort_score`` gives one.

    ``model``: the detector's file, for its size and SHA-256. Writes ``predictions/NAME.json`` (COCO results,
    ``image_id`` = SHA-256 of the frame), ``matches/NAME.parquet`` (what pairs two models later:
    :mod:`evaluation.frame_matches`), ``metrics/NAME.json``, ``plots/NAME/*.csv`` and, last,
    ``scorecards/NAME.json``.

    Raises :class:`UserError` if the split has no labelled frame.
    """
    frames = log.frames(split)
    if not len(frames):
        raise UserError(
            f"{log.root}: no labelled frame in split {split!r}, so nothing to judge on; import some, or draw "
            "the sample"
        )
    truth = GroundTruth.from_frames(frames)
    sort_score = pick_sort_score(_predict_val(detector, log, params), taxonomy, params)
    predictions, seconds = predict(detector, frames, params.warm_up)
    groups = [frames[i].group for i in range(len(frames))]
    bins = [frames[i].bin_id for i in range(len(frames))]
    scorecard = build_scorecard(
        detector.name,
        truth,
        predictions,
        taxonomy,
        params,
        sort_score=sort_score,
        model=_model_info(model, detector),
        latency=summarise_latency(seconds),
        groups=groups,
        bins=bins,
        train_boxes=log.box_counts("train"),
        turns=log.turns,
    )
    predictions.write(out / "predictions" / f"{detector.name}.json")
    acted = predictions.above(sort_score.score)
    FrameMatches.collect(
        detector.name,
        sort_score.score,
        truth,
        acted,
        match_items(truth, acted),
        taxonomy,
        groups,
        bins,
    ).write(out / "matches" / f"{detector.name}.parquet")
    write_json(out / "metrics" / f"{detector.name}.json", scorecard.headline())
    write_plots(scorecard, out / "plots" / detector.name)
    scorecard.save(out / "scorecards" / f"{detector.name}.json")
    return scorecard


def _predict_val(
    detector: Detector, log: Log, params: EvaluationParams
) -> tuple[GroundTruth, Predictions] | None:
    """What the sorting score is chosen by; ``None`` where it is given or there are no frames."""
    if params.sort_score is not None:
        return None
    frames = log.frames("val")
    if not len(frames):
        return None
    return GroundTruth.from_frames(frames), predict(detector, frames, 0)[0]


def predict(detector: Detector, frames: Frames, warm_up: int) -> tuple[Predictions, list[float]]:
    """Detect on every frame, one call each.

    The predictions and the seconds each call took, decoding not counted.
    """
    return predict_in_turns([detector], frames, warm_up)[0]


def predict_in_turns(
    detectors: Sequence[Detector], frames: Frames, warm_up: int
) -> list[tuple[Predictions, list[float]]]:
    """As :func:`predict`, for several detectors that take turns on every frame.

    Whatever else keeps the machine busy then slows all of them alike: their seconds can be compared.
    """
    images: list[str] = []
    found: list[list[Detections]] = [[] for _ in detectors]
    seconds: list[list[float]] = [[] for _ in detectors]
    if len(frames):
        image = frames[0].image()
        for detector in detectors:
            for _ in range(warm_up):
                detector.detect([image])
    names = ", ".join(detector.name for detector in detectors)
    for position in track(range(len(frames)), len(frames), f"evaluate {names}", "frame"):
        frame = frames[position]
        images.append(frame.sha256)
        image = frame.image()
        for turn in range(len(detectors)):
            one = (position + turn) % len(detectors)  # nobody always goes first, with cold caches
            began = time.perf_counter()
            (detections,) = detectors[one].detect([image])
            seconds[one].append(time.perf_counter() - began)
            found[one].append(detections)
    return [
        (Predictions.from_detections(images, detections), timed)
        for detections, timed in zip(found, seconds, strict=True)
    ]


def _model_info(model: Path | None, detector: Detector) -> ModelInfo:
    side = getattr(
        detector, "image_size", None
    )  # pixels a side, where an opened model says it: not part of the protocol
    size = None if side is None else (int(side), int(side))
    if model is None:
        return ModelInfo(file=None, bytes=None, sha256=None, input_size=size)
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelInfo(file=model.name, bytes=model.stat().st_size, sha256=digest, input_size=size)
