"""Which frames are shown, and in which order."""

import numpy as np
import pytest

from dataset import Log
from evaluation import Predictions
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy
from viewer.selection import detection_dissimilarity, frames_with, sort_by_dissimilarity


def predictions(*images: list[tuple[float, int, float]]) -> Predictions:
    """Per image detections (left edge, class id, score), each 10 × 10 pixels."""
    found = [
        Detections(
            np.array([(x, 0, 10, 10) for x, _, _ in image], np.float32).reshape(-1, 4),
            np.array([c for _, c, _ in image], np.int64),
            np.array([s for _, _, s in image], np.float32),
        )
        for image in images
    ]
    return Predictions.from_detections([f"frame{i}" for i in range(len(images))], found)


def test_frames_with_a_class_are_those_that_show_it(sample_log: Log, taxonomy: Taxonomy) -> None:
    """Every class gives exactly the frames whose labels name it, in the log's order."""
    frames = sample_log.frames("train")
    for waste_class in taxonomy.classes:
        expected = [
            i
            for i, frame in enumerate(frames)
            if frame.labels is not None and waste_class.id in frame.labels.class_ids
        ]
        assert frames_with(frames, waste_class.id).tolist() == expected


def test_any_class_is_every_frame(sample_log: Log) -> None:
    """Without a class no frame is left out."""
    assert frames_with(sample_log.frames("test"), None).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [], 0),
        ([(0, 12, 0.9)], [(0, 12, 0.5)], 0),  # one pair of two detections: 1 - 2 / 2
        ([(0, 12, 0.9)], [], 1),
        ([(0, 12, 0.9)], [(0, 57, 0.9)], 1),  # another class
        ([(0, 12, 0.9)], [(20, 12, 0.9)], 1),  # elsewhere
        ([(0, 12, 0.9), (20, 12, 0.9)], [(0, 12, 0.9)], 1 / 3),  # 1 - 2 / 3
        ([(0, 12, 0.9), (1, 12, 0.8)], [(0, 12, 0.9)], 1 / 3),  # one detection pairs once
        ([(0, 12, 0.9), (0, 57, 0.2)], [(0, 12, 0.9)], 0),  # 0.2 is too unsure to count
    ],
)
def test_disagreement_of_two_models(
    a: list[tuple[float, int, float]], b: list[tuple[float, int, float]], expected: float
) -> None:
    """Dice's distance over pairs of one class at an IoU of 0.5."""
    assert detection_dissimilarity([predictions(a), predictions(b)], 0.3).tolist() == pytest.approx(
        [expected]
    )


def test_disagreement_of_three_models_is_the_mean_over_their_pairs() -> None:
    """Two models detect the same, the third detects nothing: (0 + 1 + 1) / 3."""
    same: list[tuple[float, int, float]] = [(0, 12, 0.9)]
    assert detection_dissimilarity(
        [predictions(same), predictions(same), predictions([])], 0.3
    ).tolist() == pytest.approx([2 / 3])


def test_the_frames_that_models_disagree_on_come_first() -> None:
    """Only the given indices are sorted, the greatest distance first; equal ones keep their order."""
    dissimilarity = np.array([0.5, 0.0, 1.0, 0.5, 0.9])
    assert sort_by_dissimilarity(np.array([0, 1, 2, 3]), dissimilarity).tolist() == [2, 0, 3, 1]
