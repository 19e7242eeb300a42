"""Anchors, box encoding, matching and loss of the student, against arithmetic done by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests.overfitted import decode_boxes
from training.ssd.anchors import feature_map_sizes, make_anchors, to_corners
from training.ssd.loss import DetectionLoss, encode_boxes, focal_loss, match_anchors, pairwise_iou, smooth_l1

pytestmark = pytest.mark.heavy

ROOT2 = math.sqrt(2)


@pytest.mark.parametrize(
    ("image_size", "sides"),
    [
        (300, [19, 10, 5, 3, 2, 1]),  # 300 -> 150 -> 75 -> 38 -> 19 -> 10 -> 5 -> 3 -> 2 -> 1
        (320, [20, 10, 5, 3, 2, 1]),
        (96, [6, 3, 2, 1, 1, 1]),
    ],
)
def test_feature_map_sizes_halve_and_round_up(image_size: int, sides: list[int]) -> None:
    """The six feature maps have strides 16, 32, 64, ...; sides are rounded up, as 'same' padding does."""
    assert feature_map_sizes(image_size) == sides


def test_300_pixels_have_1917_anchors() -> None:
    """The count every published Coral SSD has."""
    # 19*19*3 + (10*10 + 5*5 + 3*3 + 2*2 + 1)*6 = 1083 + 139*6 = 1917
    assert make_anchors(feature_map_sizes(300)).shape == (1917, 4)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, (0.5 / 19, 0.5 / 19, 0.1, 0.1)),  # first map: the small square
        (1, (0.5 / 19, 0.5 / 19, 0.2 / ROOT2, 0.2 * ROOT2)),  # then scale 0.2, twice as wide as high
        (2, (0.5 / 19, 0.5 / 19, 0.2 * ROOT2, 0.2 / ROOT2)),
        (3, (0.5 / 19, 1.5 / 19, 0.1, 0.1)),  # columns run before rows
        (57, (1.5 / 19, 0.5 / 19, 0.1, 0.1)),  # 19 cells * 3
        (1083, (0.05, 0.05, 0.35, 0.35)),  # second map: scale 0.2 + 0.75/5
        (1084, (0.05, 0.05, 0.35 / ROOT2, 0.35 * ROOT2)),
        (1086, (0.05, 0.05, 0.35 / math.sqrt(3), 0.35 * math.sqrt(3))),
        (1087, (0.05, 0.05, 0.35 * math.sqrt(3), 0.35 / math.sqrt(3))),
        # the square between this scale and the next
        (1088, (0.05, 0.05, math.sqrt(0.35 * 0.5), math.sqrt(0.35 * 0.5))),
        (1911, (0.5, 0.5, 0.95, 0.95)),  # last map
        (1916, (0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95))),  # the scale after the last is 1
    ],
)
def test_anchors_are_those_of_the_object_detection_api(index: int, expected: tuple[float, ...]) -> None:
    """Centre y, centre x, height, width, with scales 0.2 to 0.95 and the reduced lowest layer."""
    np.testing.assert_allclose(make_anchors(feature_map_sizes(300))[index], expected, rtol=1e-6)


def test_encode_by_hand() -> None:
    """Offsets are measured in the anchor's sides and scaled by 10, growth is logarithmic and scaled by 5."""
    anchor = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)  # centre y, x, height, width
    box = np.array([[[0.5, 0.3, 0.7, 0.9]]], np.float32)  # centre (0.6, 0.6), 0.2 high, 0.6 wide
    # ty = 10 * 0.1/0.2 = 5; tx = 10 * 0.1/0.4 = 2.5; th = 5 ln 1 = 0; tw = 5 ln 1.5
    np.testing.assert_allclose(
        ops.convert_to_numpy(encode_boxes(box, anchor)), [[[5, 2.5, 0, 5 * math.log(1.5)]]], atol=1e-5
    )


sides = st.floats(0.01, 0.5)
centres = st.floats(0.0, 1.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(centres, centres, sides, sides), min_size=6, max_size=6))
def test_decode_undoes_encode(boxes: list[tuple[float, float, float, float]]) -> None:
    """Any box with any anchor comes back, to float32 precision."""
    expected = to_corners(np.array(boxes, np.float32))
    anchors = make_anchors([1, 1, 1, 1, 1, 1])[:6]
    back = decode_boxes(ops.convert_to_numpy(encode_boxes(expected[None], anchors)), anchors)[0]
    np.testing.assert_allclose(back, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5), 1.0),
        ((0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5), 1 / 3),  # intersection 0.125, union 0.375
        ((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), 0.0),  # touching
        ((0, 0, 0.5, 0.5), (0.6, 0.6, 1, 1), 0.0),  # apart on both axes: two negative sides are no area
        ((0.2, 0.2, 0.2, 0.2), (0, 0, 1, 1), 0.0),  # zero area
    ],
)
def test_iou_by_hand(a: tuple[float, ...], b: tuple[float, ...], iou: float) -> None:
    """Intersection over union of one pair."""
    found = pairwise_iou(np.array([[a]], np.float32), np.array([b], np.float32))
    assert float(ops.convert_to_numpy(found)[0, 0, 0]) == pytest.approx(iou, abs=1e-6)


ANCHORS = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]], np.float32)


def _matched(boxes: list[list[float]], classes: list[int]) -> tuple[list[int], list[bool]]:
    row, matched = match_anchors(np.array([boxes], np.float32), np.array([classes], np.int32), ANCHORS, 0.5)
    return ops.convert_to_numpy(row)[0].tolist(), ops.convert_to_numpy(matched)[0].tolist()


def test_a_box_that_overlaps_no_anchor_enough_is_matched_to_its_best() -> None:
    """Anchor 0 overlaps box 0 by 0.8, anchor 1 box 1 by 0.04 only and is its best; anchor 2 is background."""
    row, matched = _matched([[0, 0, 0.5, 0.4], [0.6, 0.6, 0.7, 0.7]], [3, 7])
    assert matched == [True, True, False]
    assert row[:2] == [0, 1]


def test_of_two_boxes_with_the_same_best_anchor_the_first_has_it() -> None:
    """Anchor 0 overlaps box 0 by 0.8 and box 1 by 0.64 and is the best of both; box 0 is the first."""
    row, matched = _matched([[0, 0, 0.5, 0.4], [0, 0, 0.4, 0.4]], [3, 7])
    assert matched == [True, False, False]
    assert row[0] == 0


def test_padding_matches_nothing() -> None:
    """Rows of class -1 are not boxes, wherever they lie."""
    _, matched = _matched([[0, 0, 0.5, 0.5], [0, 0, 1, 1]], [-1, -1])
    assert matched == [False, False, False]


def test_focal_loss_by_hand() -> None:
    """At logit 0 every p_t is 1/2: alpha or 1 - alpha, times 1/2 squared, times ln 2."""
    loss = ops.convert_to_numpy(focal_loss(np.zeros(2, np.float32), np.array([1, 0], np.float32), 0.75, 2.0))
    np.testing.assert_allclose(loss, [0.75 * 0.25 * math.log(2), 0.25 * 0.25 * math.log(2)], rtol=1e-5)


def test_focal_loss_stays_finite_where_the_network_is_confident_and_wrong() -> None:
    """A logit of -100 for a positive costs alpha * 100, not infinity."""
    loss = ops.convert_to_numpy(
        focal_loss(np.array([-100, 100], np.float32), np.array([1, 1], np.float32), 0.75, 2.0)
    )
    np.testing.assert_allclose(loss, [75, 0], atol=1e-4)


def test_smooth_l1_by_hand() -> None:
    """Half the square up to 1, then the size less one half."""
    np.testing.assert_allclose(
        ops.convert_to_numpy(smooth_l1(np.array([0.5, -1, 3], np.float32))), [0.125, 0.5, 2.5]
    )


def test_the_loss_of_a_batch_by_hand() -> None:
    """Both losses are sums over anchors, divided by the number of matched anchors in the whole batch."""
    anchors = np.array([[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1]], np.float32)
    loss = DetectionLoss(anchors, matched_iou=0.5, alpha=0.75, gamma=2.0)
    # The first image's box has its best anchor in anchor 0; the second image has none. Class 1 of 2. All
    # predictions are 0.
    boxes = np.array([[[0.5, 0.3, 0.7, 0.9]], [[0, 0, 0, 0]]], np.float32)
    classes = np.array([[1], [-1]], np.int32)
    box_loss, class_loss = loss(
        boxes, classes, np.zeros((2, 2, 4), np.float32), np.zeros((2, 2, 2), np.float32)
    )
    # target (5, 2.5, 0, 5 ln 1.5 = 2.02733): 4.5 + 2 + 0 + 1.52733
    assert float(box_loss) == pytest.approx(8.02733, abs=1e-4)
    # one positive, 2 images * 2 anchors * 2 classes - 1 = 7 negatives, one match
    assert float(class_loss) == pytest.approx((0.75 + 7 * 0.25) * 0.25 * math.log(2), rel=1e-5)


def test_the_loss_of_a_batch_without_boxes_is_finite() -> None:
    """Background images train too: nothing is divided by zero."""
    anchors = make_anchors([2, 1, 1, 1, 1, 1])
    loss = DetectionLoss(anchors, matched_iou=0.5, alpha=0.75, gamma=2.0)
    box_loss, class_loss = loss(
        np.zeros((1, 1, 4), np.float32),
        np.full((1, 1), -1, np.int32),
        np.ones((1, len(anchors), 4), np.float32),
        np.zeros((1, len(anchors), 3), np.float32),
    )
    assert float(box_loss) == 0
    assert 0 < float(class_loss) < math.inf
