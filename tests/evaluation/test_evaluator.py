"""A detector goes in, a scorecard and its files come out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset import Log
from evaluation import EvaluationParams, GroundTruth, Predictions, Scorecard, evaluate
from evaluation.sorting_score import SortScore, pick_sort_score
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def params() -> EvaluationParams:
    """As shipped."""
    return load_params("evaluation", EvaluationParams, REPOSITORY / "params.yaml")


def test_a_perfect_detector_scores_one(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """Boxes that are the labels themselves are AP 1, everything sorted right, nothing contaminated, no cause
    of error.
    """
    card = evaluate(jittering("perfect"), sample_log, taxonomy, params, tmp_path)
    assert card.coco["ap"] == pytest.approx(1)
    assert card.sorting.accuracy.value == 1
    assert card.sorting.contamination.value == 0
    assert {cause: n for cause, n in card.causes.items() if n} == {"hit": card.split.items}
    assert card.worst_confusions == ()


def test_everything_it_writes_agrees_with_what_it_returns(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """The scorecard on disk is the one returned, strict JSON, and its predictions file gives the same AP
    through pycocotools.
    """
    detector = jittering("clumsy", blur=0.06, confuse=0.3, lose=0.1, clutter=5)
    model = tmp_path / "clumsy.onnx"
    model.write_bytes(b"weights")
    card = evaluate(detector, sample_log, taxonomy, params, tmp_path, model=model)
    frames = sample_log.frames("test")
    assert detector.calls == len(frames) + len(sample_log.frames("val")) + params.warm_up

    text = (tmp_path / "scorecards/clumsy.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert Scorecard.load(tmp_path / "scorecards/clumsy.json") == card
    assert card.model.bytes == 7
    assert card.split.turns == tuple(sample_log.turns)
    assert card.latency.calls == len(frames)

    truth = GroundTruth.from_frames(frames)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": sha} for sha in truth.images],
        "categories": [{"id": c.id, "name": c.name} for c in taxonomy.classes],
        "annotations": [
            {
                "id": n,
                "image_id": truth.images[i],
                "category_id": int(c),
                "bbox": b.tolist(),
                "area": b[2] * b[3],
                "iscrowd": 0,
            }
            for n, (i, c, b) in enumerate(
                zip(truth.image, truth.class_ids, truth.boxes, strict=True), start=1
            )
        ],
    }
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(str(tmp_path / "predictions/clumsy.json")), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert card.coco["ap"] == pytest.approx(judge.stats[0], abs=1e-12)
    assert 0.1 < judge.stats[0] < 0.9, "the case must be able to tell right from wrong"

    metrics = json.loads((tmp_path / "metrics/clumsy.json").read_text())
    assert metrics["ap"] == pytest.approx(card.coco["ap"], abs=1e-6)
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert 20 <= len(metrics) <= 45


def test_plots_are_what_dvc_reads(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """The confusion file has a row per item and false detection under `actual` and `predicted`.

    The curve has 101 points.
    """
    card = evaluate(
        jittering("clumsy", confuse=0.5, lose=0.2, clutter=4), sample_log, taxonomy, params, tmp_path
    )
    folder = tmp_path / "plots/clumsy"
    with (folder / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == card.sorting.items + card.sorting.false_detections
    assert sum(r["predicted"] == "(missed)" for r in rows) == card.sorting.missed
    assert sum(r["actual"] == "(nothing)" for r in rows) == card.sorting.false_detections
    with (folder / "precision_recall.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 101
    with (folder / "per_class.csv").open() as file:
        assert len(list(csv.DictReader(file))) == sum(c.test_boxes > 0 for c in card.classes)


def test_a_class_without_test_boxes_has_no_number(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """Most of the 57 classes have no box in four frames: their AP and recall are null in the file, not 0."""
    evaluate(jittering("perfect"), sample_log, taxonomy, params, tmp_path)
    classes = json.loads((tmp_path / "scorecards/perfect.json").read_text())["classes"]
    assert len(classes) == 57
    absent = [c for c in classes if c["test_boxes"] == 0]
    assert absent
    assert all(c["ap"] is None and c["ap50"] is None and c["recall"] is None for c in absent)
    assert all(c["ap"] is not None for c in classes if c["test_boxes"])


def test_each_model_gets_the_sorting_score_that_is_best_on_val(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """A model with much clutter below 0.6 acts from a higher score on than one without, and earns more by it
    than at the fallback; ``params.sort_score`` overrides the choice.
    """
    cluttered = evaluate(jittering("clumsy", clutter=12), sample_log, taxonomy, params, tmp_path)
    clean = evaluate(jittering("perfect"), sample_log, taxonomy, params, tmp_path)
    assert cluttered.sorting.score_from == clean.sorting.score_from == "val"
    assert cluttered.sorting.score > clean.sorting.score
    assert clean.sorting.utility == 1
    assert clean.sorting.frame_accuracy.value == 1

    given = params.model_copy(update={"sort_score": 0.3})
    fixed = evaluate(jittering("clumsy", clutter=12), sample_log, taxonomy, given, tmp_path)
    assert (fixed.sorting.score, fixed.sorting.score_from) == (0.3, "params")
    assert (cluttered.sorting.utility or -9) > (fixed.sorting.utility or -9)
    assert "given in params.yaml" in fixed.summary()
    at = {p.score: p.utility for p in fixed.operating_points}
    assert at[0.3] == fixed.sorting.utility, "the score in use is among the operating points"


def test_without_items_in_val_the_fallback_is_taken_and_said(
    taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """No val frames, or empty ones alone: ``fallback_score``, marked as such."""
    empty = GroundTruth(("a",), np.empty(0, int), np.empty((0, 4)), np.empty(0, int), np.empty(0, bool))
    nothing = Predictions.from_arrays(
        ("a",), np.empty(0, int), np.empty((0, 4)), np.empty(0, int), np.empty(0)
    )
    for val in (None, (empty, nothing)):
        assert pick_sort_score(val, taxonomy, params) == SortScore(params.fallback_score, "fallback")


def test_intervals_surround_their_numbers(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """AP, AP50 and utility have resampled intervals, every share a clustered one; the same run gives the same
    numbers, and terminal and metrics show them.
    """
    card = evaluate(jittering("clumsy", confuse=0.4, lose=0.3), sample_log, taxonomy, params, tmp_path)
    again = evaluate(jittering("clumsy", confuse=0.4, lose=0.3), sample_log, taxonomy, params, tmp_path)
    assert again.coco_intervals == card.coco_intervals
    for name, value in (("ap", card.coco["ap"]), ("ap50", card.coco["ap50"])):
        interval = card.coco_intervals[name]
        assert interval is not None
        assert value is not None
        assert 0 <= interval.low <= value <= interval.high <= 1
    assert card.sorting.utility_interval is not None
    shares = [card.sorting.accuracy, card.sorting.contamination, card.sorting.frame_accuracy]
    shares += [c.sorting for c in card.classes] + [s.accuracy for s in card.slices]
    for share in shares:
        if share.of:
            assert share.low is not None
            assert share.high is not None
            assert share.low <= (share.value or 0) <= share.high
            assert (share.effective_of or 0) <= share.of
    assert f"({card.sorting.utility_interval})" in card.summary()
    assert {"ap_low", "utility_high", "sort_score", "frame_accuracy"} <= set(card.headline())


def test_a_scorecard_of_another_format_is_refused_with_the_remedy(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """One from before version 0.4 lacks utility and clustered intervals; the stage writes it anew."""
    evaluate(jittering("perfect"), sample_log, taxonomy, params, tmp_path)
    path = tmp_path / "scorecards/perfect.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    with pytest.raises(UserError, match="`dvc repro evaluate` writes it anew"):
        Scorecard.load(path)


def test_slices_cover_the_split(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """Each way of slicing counts every item once."""
    card = evaluate(jittering("clumsy", confuse=0.4), sample_log, taxonomy, params, tmp_path)
    for kind in ("box size", "items in frame", "bin"):
        parts = [s for s in card.slices if s.kind == kind]
        assert sum(s.accuracy.of for s in parts) == card.split.items, kind
        assert sum(s.accuracy.hits for s in parts) == card.sorting.right, kind


def test_nothing_to_judge_on_is_said(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """A log without test frames is a user's error that says what to do."""
    (tmp_path / "data" / "labels").mkdir(parents=True)
    with pytest.raises(UserError, match="no labelled frame in split 'test'"):
        evaluate(jittering("perfect"), Log(tmp_path / "data", taxonomy), taxonomy, params, tmp_path)


def test_a_damaged_scorecard_is_named(tmp_path: Path) -> None:
    """A file that is not a scorecard is refused with its path and the remedy."""
    (tmp_path / "s.json").write_text('{"format": 1, "name": "x"}')
    with pytest.raises(UserError, match=r"s\.json: not a scorecard"):
        Scorecard.load(tmp_path / "s.json")
    with pytest.raises(UserError, match="no such scorecard"):
        Scorecard.load(tmp_path / "gone.json")


def test_ground_truth_digest_follows_the_labels(sample_log: Log) -> None:
    """Two scorecards are comparable where digests agree, so any change of frames or boxes changes it."""
    truth = GroundTruth.from_frames(sample_log.frames("test"))
    assert truth.digest() == GroundTruth.from_frames(sample_log.frames("test")).digest()
    moved = GroundTruth(
        truth.images, truth.image, truth.boxes + np.eye(len(truth), 4), truth.class_ids, truth.crowd
    )
    assert moved.digest() != truth.digest()
