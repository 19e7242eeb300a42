"""Boxes in percent and pixels, IoU, and the matching of two sets of boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trashnet.boxes import (
    Box,
    clip,
    from_percent,
    iou,
    match_greedily,
    match_optimally,
    stack,
    to_percent,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

sides = st.integers(16, 10_000)


def boxes(*xywh: tuple[float, float, float, float]) -> list[Box]:
    """Boxes of one label."""
    return [Box("Battery", *box) for box in xywh]


@pytest.mark.parametrize(
    ("box", "percent"),
    [
        ((0, 0, 640, 480), (0, 0, 100, 100)),
        ((64, 120, 32, 48), (10, 25, 5, 10)),  # 64 of 640, 120 of 480, 32 of 640, 48 of 480
        ((639, 479, 1, 1), (99.84375, 99.79166666666667, 0.15625, 0.20833333333333334)),
    ],
)
def test_a_box_in_percent_by_hand(box: tuple[float, ...], percent: tuple[float, ...]) -> None:
    """Each side is a percentage of its own side of the frame, 640 × 480 here."""
    assert tuple(to_percent(box, 640, 480).values()) == pytest.approx(percent)
    assert from_percent(to_percent(box, 640, 480), 640, 480) == pytest.approx(box)


@given(width=sides, height=sides, relative=st.tuples(*[st.floats(0, 1)] * 4))
def test_pixels_survive_the_way_to_percent_and_back(
    width: int, height: int, relative: tuple[float, ...]
) -> None:
    """The error is at most a millionth of a pixel, in frames of any size."""
    box = (relative[0] * width, relative[1] * height, relative[2] * width, relative[3] * height)
    percent = to_percent(box, width, height)
    assert all(0 <= value <= 100 + 1e-9 for value in percent.values())
    assert from_percent(percent, width, height) == pytest.approx(box, abs=1e-6)


@given(box=st.tuples(*[st.floats(-100, 200)] * 4), width=st.integers(1, 100), height=st.integers(1, 100))
def test_a_clipped_box_lies_inside_the_frame(box: tuple[float, ...], width: int, height: int) -> None:
    """A box that lies outside the frame has a side of at most zero."""
    x, y, w, h = clip(box, width, height)
    if w > 0 and h > 0:
        assert x >= 0
        assert y >= 0
        assert x + w <= width + 1e-9
        assert y + h <= height + 1e-9


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((10, 10, 20, 20), (10, 10, 20, 20)),
        ((-5, -8, 20, 20), (0, 0, 15, 12)),  # 20 - 5 and 20 - 8 are left
        ((50, 40, 20, 20), (50, 40, 14, 8)),  # up to 64 and 48
        ((-10, -10, 200, 200), (0, 0, 64, 48)),  # the whole frame
        ((64, 10, 5, 5), (64, 10, 0, 5)),  # it touches the right edge
        ((70, 10, 5, 5), (70, 10, -6, 5)),  # outside: a side is negative
        ((10, 10, 0, 0), (10, 10, 0, 0)),  # no area
    ],
)
def test_a_clipped_box_by_hand(box: tuple[float, ...], inside: tuple[float, ...]) -> None:
    """In a frame of 64 × 48."""
    assert clip(box, 64, 48) == inside


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 10, 10), 1 / 3),  # intersection 5 * 10 = 50, union 100 + 100 - 50 = 150
        ((10, 0, 10, 10), 0.0),  # they touch
        ((20, 20, 5, 5), 0.0),
        ((0, 0, 0, 0), 0.0),  # no area
    ],
)
def test_intersection_over_union_by_hand(other: tuple[float, ...], expected: float) -> None:
    """Of a box of 10 × 10 with another."""
    assert iou(np.array([[0, 0, 10, 10]], float), np.array([other], float))[0, 0] == pytest.approx(expected)


def test_boxes_without_area_overlap_nothing_and_no_boxes_give_no_rows() -> None:
    """Nothing is divided by zero, neither for a point with itself nor for one inside a crowd region."""
    point, frame = np.array([[5, 5, 0, 0]], float), np.array([[0, 0, 10, 10]], float)
    assert iou(point, point).tolist() == [[0.0]]
    assert iou(point, frame).tolist() == [[0.0]]
    assert iou(point, frame, np.array([True])).tolist() == [[0.0]]
    assert iou(stack([]), frame).shape == (0, 1)
    assert iou(frame, stack([])).shape == (1, 0)


def test_boxes_are_paired_for_the_largest_sum_not_one_after_the_other() -> None:
    """b0 overlaps both, a1 only b0: taking the best pair first would leave a1 alone.

    a0 = 0..10, a1 = 4..14, b0 = 2..12, b1 = -4..6 (all 10 high): a0b0 8/12 = .67, a0b1 6/14 = .43, a1b0 8/12
    = .67, a1b1 2/18.
    """
    a = boxes((0, 0, 10, 10), (4, 0, 10, 10))
    b = boxes((2, 0, 10, 10), (-4, 0, 10, 10))
    assert [(i, j) for i, j, _ in match_optimally(a, b, 0.4)] == [(0, 1), (1, 0)]
    assert [value for *_, value in match_optimally(a, b, 0.4)] == pytest.approx([6 / 14, 8 / 12])
    assert [(i, j) for i, j, _ in match_optimally(a, b, 0.5)] in ([(0, 0)], [(1, 0)])


def test_no_boxes_pair_with_none() -> None:
    """An empty list of boxes is no error."""
    assert match_optimally([], boxes((0, 0, 1, 1)), 0.5) == []
    assert match_optimally([], [], 0.5) == []


@pytest.mark.parametrize(
    ("overlap", "pairs"),
    [
        ([[0.9, 0.8], [0.8, 0.1]], [(0, 0)]),  # the best pair first; what is left overlaps by 0.1 only
        ([[0.6, 0.9], [0.5, 0.8]], [(0, 1), (1, 0)]),
        ([[0.7, 0.7]], [(0, 0)]),  # equal: the lower column
        ([[0.7], [0.7]], [(0, 0)]),  # equal: the lower row
        ([[0.49]], []),
        ([[0.0]], []),
    ],
)
def test_greedy_pairs_by_hand(overlap: list[list[float]], pairs: list[tuple[int, int]]) -> None:
    """Greatest IoU first, each row and column once, from 0.5 on."""
    assert match_greedily(np.array(overlap), 0.5) == pairs


def test_no_rows_or_columns_pair_with_none() -> None:
    """A frame without boxes is no error, and an IoU of 0 is never a pair."""
    assert match_greedily(np.zeros((0, 3)), 0.5) == []
    assert match_greedily(np.zeros((3, 0)), 0.5) == []
    assert match_greedily(np.zeros((1, 1)), 0.0) == []


def test_inside_a_crowd_region_the_detections_own_area_counts() -> None:
    """Intersection 10 * 10 = 100, the detection's area 100: 1.

    Without a crowd 100 / (100 + 10,000 - 100) = 0.01.
    """
    detection, region = np.array([[0, 0, 10, 10]], float), np.array([[0, 0, 100, 100]], float)
    assert iou(detection, region, np.array([True])).item() == 1.0
    assert iou(detection, region, np.array([False])).item() == pytest.approx(0.01)


def test_corners_and_sides_are_two_forms_of_one_box() -> None:
    """(10, 20) with sides 30 and 40 ends at (40, 60)."""
    assert xywh_to_xyxy(np.array([[10.0, 20, 30, 40]])).tolist() == [[10, 20, 40, 60]]
    assert xyxy_to_xywh(np.array([[10.0, 20, 40, 60]])).tolist() == [[10, 20, 30, 40]]
    assert xywh_to_xyxy(np.empty((0, 4))).shape == (0, 4)


def test_a_box_keeps_its_json_form() -> None:
    """A detection has its score between label and box, a person's box has none."""
    detection = {"label": "Shoe", "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}
    assert list(Box.from_json(detection).to_json().items()) == list(detection.items())
    assert Box.from_json({"label": "Shoe", "box": [1, 2, 3, 4]}).to_json() == {
        "label": "Shoe",
        "box": [1, 2, 3, 4],
    }
    assert stack([]).shape == (0, 4)
    assert Box("Shoe", -5, 10, 20, 100).clipped(64, 48) == Box("Shoe", 0, 10, 15, 38)
