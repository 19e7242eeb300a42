"""AP on the validation frames, which is watched while the teacher trains."""

from typing import Any, cast

import numpy as np
import pytest

from dataset import Frames
from dataset.frame import Labels
from training.efficientdet.average_precision import average_precision


class TwoFrames:
    """What :func:`average_precision` asks of frames: how many, and their labels."""

    def __init__(self, *boxes: list[tuple[float, float, float, float]]) -> None:
        self._boxes = boxes

    def __len__(self) -> int:
        return len(self._boxes)

    def labels(self, index: int) -> Any:
        """The labels of one frame, all of class 2."""
        boxes = np.array(self._boxes[index], np.float64).reshape(-1, 4)
        return Labels(boxes, np.full(len(boxes), 2), np.zeros(len(boxes), np.bool_))


def test_by_hand() -> None:
    """Corners, scores and class indexes become COCO's results: two of two items found, a false detection
    between them.
    """
    frames = cast(Frames, TwoFrames([(10, 20, 30, 40)], [(0, 0, 50, 50)]))
    found = {
        0: np.array([[10, 20, 40, 60, 0.9, 1], [200, 200, 240, 240, 0.8, 1]], np.float32),
        1: np.array([[0, 0, 50, 50, 0.7, 1], [0, 0, 50, 50, 0.95, 0]], np.float32),
    }
    # recall 1/2 at precision 1, recall 2/2 at 2/3: 51 points of the 101 at 1, 50 at 2/3; class 0 has no item
    expected = (51 + 50 * 2 / 3) / 101
    assert average_precision(frames, found, 3) == pytest.approx({"ap50": expected, "ap": expected})


def test_nothing_to_find_or_nothing_found_is_zero() -> None:
    """No box, and no detection, are an AP of 0."""
    nothing = {0: np.empty((0, 6), np.float32)}
    assert average_precision(cast(Frames, TwoFrames([])), nothing, 3) == {"ap50": 0.0, "ap": 0.0}
    assert average_precision(cast(Frames, TwoFrames([(0, 0, 9, 9)])), nothing, 3) == {"ap50": 0.0, "ap": 0.0}
