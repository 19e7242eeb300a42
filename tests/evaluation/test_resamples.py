"""AP of resampled frames is COCO's AP of those frames."""

import numpy as np
import pytest

from benchmarks.coco import draw_problem
from evaluation.coco import coco_metrics
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.resamples import match_as_coco, mean_ap, resample_ap
from tests.evaluation.test_sorting_accuracy import HERE, THERE, found_of, truth_of


def draw_twice(
    truth: GroundTruth, predictions: Predictions, times: np.ndarray
) -> tuple[GroundTruth, Predictions]:
    """These images, each as often as ``times`` says, under names of their own."""
    positions = np.repeat(np.arange(len(times)), times)
    names = tuple(f"{n:064x}" for n in range(len(positions)))
    t, p = truth.take(positions), predictions.take(positions)
    return (
        GroundTruth(names, t.image, t.boxes, t.class_ids, t.crowd),
        Predictions(names, p.image, p.boxes, p.class_ids, p.scores),
    )


@pytest.mark.parametrize("seed", range(3))
def test_counting_again_is_evaluating_again(seed: int) -> None:
    """For random numbers of times that each frame is drawn, counting anew gives what COCO gives of such a
    split, crowds, ties and absent classes included.
    """
    truth, found = draw_problem(40, 5, 300, seed)
    class_ids = np.arange(1, 6)
    times = np.random.default_rng(seed).integers(0, 3, (40, 4))
    samples = resample_ap(match_as_coco(truth, found, class_ids), truth, found, np.arange(40), times)
    for column in range(4):
        metrics = coco_metrics(*draw_twice(truth, found, times[:, column]), class_ids)
        for k, class_id in enumerate(class_ids):
            assert samples.ap50[k, column] == pytest.approx(metrics.ap(class_id, 0.5), abs=1e-9)
            assert samples.ap[k, column] == pytest.approx(metrics.ap(class_id), abs=1e-9)
        assert mean_ap(samples.ap)[column] == pytest.approx(metrics.summary["ap"], abs=1e-9)


def test_by_hand() -> None:
    """Two frames, one item each; the second's is found after a false detection of the first."""
    truth = truth_of((0, 1, HERE), (1, 1, HERE))
    found = found_of((0, 1, HERE, 0.9), (0, 1, THERE, 0.8), (1, 1, HERE, 0.7))
    weights = np.array([[1, 2, 0, 1], [1, 0, 2, 0]])
    samples = resample_ap(
        match_as_coco(truth, found, np.array([1, 2])), truth, found, np.array([0, 1]), weights
    )
    # once each: recall 1/2 at 1, 2/2 at 2/3: (51 + 50 * 2/3) / 101; the first alone, twice or once: 1; the
    # second alone: its false detection is gone with the first: 1
    assert samples.ap50[0] == pytest.approx([(51 + 50 * 2 / 3) / 101, 1, 1, 1])
    assert np.isnan(samples.ap50[1]).all(), "of a class without items nothing is said"
    assert mean_ap(samples.ap50) == pytest.approx(samples.ap50[0])


def test_nothing_found_is_zero_and_nothing_there_is_nothing() -> None:
    """Items without a detection have an AP of 0; without items there is none."""
    truth, found = truth_of((0, 1, HERE)), found_of()
    samples = resample_ap(match_as_coco(truth, found, np.array([1])), truth, found, np.arange(2), np.eye(2))
    assert samples.ap[0, 0] == 0
    assert np.isnan(mean_ap(samples.ap)[1])
