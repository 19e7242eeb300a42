"""AP50 under weights: against arithmetic done by hand, and against COCO's own evaluator."""

from math import inf

import numpy as np
import pytest

from benchmarks.support.fleet_outcomes import Difference, FleetShape, draw_outcomes
from evaluation.coco import coco_metrics
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.gate import GateFrames, ModelOutcomes
from evaluation.gate.ap50 import Ap50, ap50_columns, ap50_interval, ap50_of
from evaluation.gate.outcomes import scored_detections
from tests.evaluation.gate.small_outcomes import frames_of, model_of, pair

# one class with four items, in three groups of one frame each (two items in the last)
FRAMES = frames_of([0, 1, 2], [(0, 0), (1, 0), (2, 0), (2, 0)])
FOUND = [(0, 0, 0.9, True), (1, 0, 0.8, False), (2, 0, 0.7, True)]


def test_ap50_by_hand() -> None:
    """Hit, false detection, hit, and two items never found."""
    # precision 1, 1/2, 2/3 at recall 1/4, 1/4, 2/4: the envelope is 1 up to 0.25 (26 recalls: 0 ... 0.25),
    # then 2/3 up to 0.50 (25 recalls), then 0
    model = model_of(FRAMES, [True] * 4, FOUND)
    assert ap50_of(FRAMES, model, class_boxes=1) == pytest.approx((26 + 25 * 2 / 3) / 101)


def test_ap50_under_weights_by_hand() -> None:
    """A group drawn twice counts twice, one not drawn not at all, as if its frames were so often there."""
    estimator = Ap50.of(FRAMES, model_of(FRAMES, [True] * 4, FOUND), class_boxes=1)
    weights = np.array([[2, 1, 0], [0, 1, 2], [3, 0, 0], [0, 3, 0]], np.float64).T
    # (2, 1, 0): 3 boxes, 2 hits at precision 1: recall 2/3, 67 recalls (0 ... 0.66)
    # (0, 1, 2): 5 boxes, a false detection, then 2 hits: precision 2/3 up to recall 0.4, 41 recalls
    # (3, 0, 0): 3 boxes, all found. (0, 3, 0): 3 boxes, none found
    expected = [67 / 101, 41 * (2 / 3) / 101, 1.0, 0.0]
    assert estimator.mean(weights) == pytest.approx(expected)


def test_rarer_classes_are_pooled_into_one_tail() -> None:
    """Their detections are ranked together, and the tail counts as one class in the mean."""
    frames = frames_of([0, 1], [(0, 0), (1, 0), (0, 1), (1, 2)])
    assert ap50_columns(frames, class_boxes=2).tolist() == [0, 1, 1]
    found = [(0, 0, 0.9, True), (1, 0, 0.8, True), (0, 1, 0.5, False), (1, 2, 0.4, True)]
    # class 0: both found, 1. The tail: false, then one of two: precision 1/2 up to recall 0.5, 51 recalls
    expected = (1 + 51 * 0.5 / 101) / 2
    assert ap50_of(frames, model_of(frames, [True] * 4, found), 2) == pytest.approx(expected)


def test_a_class_without_boxes_does_not_count() -> None:
    """Detections of a class that the gate set does not hold are left out, and so is an empty gate set."""
    frames = frames_of([0], [(0, 0)])
    found = [(0, 2, 0.9, False), (0, 0, 0.8, True)]
    assert ap50_columns(frames, 1).tolist() == [0, -1, -1]
    assert ap50_of(frames, model_of(frames, [True], found), 1) == pytest.approx(1)
    empty = frames_of([0], [])
    assert ap50_of(empty, model_of(empty, []), 1) is None


def scattered(seed: int, images: int = 40, classes: int = 4) -> tuple[GroundTruth, Predictions]:
    """Crowded frames, equal scores, crowds and equal boxes: what COCO's rules differ in."""
    draw = np.random.default_rng(seed)
    names = tuple(f"frame{i}" for i in range(images))
    image = np.sort(draw.integers(0, images, 160))
    boxes = np.concatenate([draw.integers(0, 30, (160, 2)), draw.integers(10, 30, (160, 2))], axis=1)
    truth = GroundTruth(
        names, image, boxes.astype(np.float64), draw.integers(1, classes + 1, 160), draw.random(160) < 0.1
    )
    copies = draw.integers(0, 160, 600)
    near = boxes[copies] + draw.integers(-4, 5, (600, 4)) * draw.integers(0, 2, (600, 1))
    near[:, 2:] = near[:, 2:].clip(1)
    other = draw.integers(1, classes + 1, 600)
    named = np.where(draw.random(600) < 0.7, truth.class_ids[copies], other)
    scores = draw.integers(1, 20, 600) / 20
    return truth, Predictions.from_arrays(names, image[copies], near.astype(np.float64), named, scores)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_coco(seed: int) -> None:
    """Every class a column of its own: the mean is COCO's AP at IoU 0.5."""
    truth, predictions = scattered(seed)
    item = ~truth.crowd
    frames = GateFrames(
        group=np.arange(len(truth.images)),
        bin=np.zeros(len(truth.images), np.int64),
        item_frame=truth.image[item],
        item_class=truth.class_ids[item] - 1,
        bin_names=("bin",),
        class_names=("a", "b", "c", "d"),
        class_stream=np.zeros(4, np.int64),
        stream_names=("landfill",),
    )
    detections = scored_detections(truth, predictions, 4)
    model = ModelOutcomes(np.zeros(len(frames)), *[np.zeros(int(item.sum()), np.bool_)] * 2, detections)
    expected = coco_metrics(truth, predictions, np.arange(1, 5)).mean_ap(0.5)
    assert ap50_of(frames, model, class_boxes=1) == pytest.approx(expected, abs=1e-12)


def test_only_the_first_hundred_of_a_class_count() -> None:
    """A hit behind a hundred better detections of its class in its frame is none, and is not counted."""
    here, away = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 10.0, 10.0)
    truth = GroundTruth(("frame",), np.array([0]), np.array([here]), np.array([1]), np.array([False]))
    boxes, scores = np.array([away] * 100 + [here]), np.linspace(0.9, 0.1, 101)
    predictions = Predictions.from_arrays(
        ("frame",), np.zeros(101, np.int64), boxes, np.ones(101, np.int64), scores
    )
    detections = scored_detections(truth, predictions, 1)
    assert not detections.hit.any()
    assert len(detections.hit) == 100
    # the same behind a hundred detections of another class does count
    others = Predictions(
        predictions.images, predictions.image, boxes, np.array([2] * 100 + [1]), predictions.scores
    )
    assert scored_detections(truth, others, 2).hit.tolist() == [True] + [False] * 100


def test_a_copy_has_no_interval_to_speak_of() -> None:
    """Two equal models differ by nothing in every resample."""
    outcomes = draw_outcomes(FleetShape(groups=40, scale=0.2), Difference(), seed=1)
    copy = pair(outcomes.frames, outcomes.champion, outcomes.champion)
    estimate = ap50_interval(copy, 30, 0.05, 100, seed=1)
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_two_groups_say_nothing() -> None:
    """A bootstrap of two groups has no acceleration, so the bounds are infinite."""
    frames = frames_of([0, 1], [(0, 0), (1, 0)])
    better = model_of(frames, [True] * 2, [(0, 0, 0.9, True)])
    estimate = ap50_interval(pair(frames, model_of(frames, [True] * 2), better), 1, 0.05, 100, seed=1)
    assert (estimate.low, estimate.high) == (-inf, inf)


def test_the_interval_holds_the_estimate_and_repeats_itself() -> None:
    """The same seed gives the same bounds, and exchanged roles the opposite estimate."""
    outcomes = draw_outcomes(FleetShape(groups=80, scale=0.3), Difference(overall=0.1), seed=3)
    first, again = (ap50_interval(outcomes, 30, 0.05, 300, seed=5) for _ in range(2))
    assert first == again
    assert first.low < first.value < first.high < 0
    assert ap50_interval(outcomes.swapped(), 30, 0.05, 300, seed=5).value == pytest.approx(-first.value)
