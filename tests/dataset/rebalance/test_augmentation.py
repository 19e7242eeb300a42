"""Augmentation moves boxes with the pixels: against arithmetic by hand, and against the pixels themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dataset import Labels
from dataset.rebalance.augmentation import Augmenter, AugmentParams, mirror
from trashnet.letterbox import FILL

STILL = AugmentParams(flip=0, translate=0, rotate=0, scale=(1, 1), min_visible=0.4, jpeg_quality=90)
USUAL = AugmentParams(flip=0.5, translate=0.2, rotate=2, scale=(0.8, 1.2), min_visible=0.4, jpeg_quality=90)
WIDTH, HEIGHT = 400, 300


def labels_of(*boxes: tuple[float, float, float, float], crowd: tuple[bool, ...] = ()) -> Labels:
    """Boxes of the classes 1, 2, 3, ..."""
    array = np.array(boxes, float).reshape(-1, 4)
    flags = np.array(crowd, bool) if crowd else np.zeros(len(array), bool)
    return Labels(array, np.arange(1, len(array) + 1), flags, tuple({"number": i} for i in range(len(array))))


def black() -> NDArray[np.uint8]:
    """An image of 400 x 300."""
    return np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def bounds(plane: NDArray[np.bool_]) -> list[float]:
    """The box of a mask's pixels, as (x, y, w, h)."""
    ys, xs = np.nonzero(plane)
    return [float(xs.min()), float(ys.min()), float(np.ptp(xs) + 1), float(np.ptp(ys) + 1)]


def test_a_flip_mirrors_the_box() -> None:
    """x' = W - x - w: of (30, 40, 50, 60) in 400 pixels 400 - 30 - 50 = 320; y, w and h stay."""
    always = Augmenter(STILL.model_copy(update={"flip": 1.0}))
    _, flipped = always.copy(black(), labels_of((30, 40, 50, 60)), {1}, seed=1)
    assert flipped.boxes.tolist() == [[320, 40, 50, 60]]
    assert mirror(black(), labels_of((30, 40, 50, 60)))[1].boxes.tolist() == [[320, 40, 50, 60]]


@pytest.mark.parametrize(
    ("change", "box", "expected"),
    [
        # scale 1.2 about the centre (200, 150): x' = 200 + 1.2 (x - 200), w' = 1.2 w
        ({"scale": (1.2, 1.2)}, (150, 100, 50, 40), [140, 90, 60, 48]),
        # scale 0.5: the corner (0, 0) comes to (100, 75)
        ({"scale": (0.5, 0.5)}, (0, 0, 400, 300), [100, 75, 200, 150]),
        # 2 degrees about the centre, ellipse: w' = sqrt(w^2 cos^2 + h^2 sin^2) = sqrt(100^2 * 0.998782 + 20^2
        # * 0.001218) = 99.9415, h' = sqrt(w^2 sin^2 + h^2 cos^2) = sqrt(100^2 * 0.001218 + 20^2 * 0.998782) =
        # 20.2911; the centre stays at (200, 150)
        ({"rotate": 2.0}, (150, 140, 100, 20), [150.0292, 139.8545, 99.9415, 20.2911]),
    ],
)
def test_boxes_agree_with_arithmetic_by_hand(
    change: dict[str, object], box: tuple[float, ...], expected: list[float]
) -> None:
    """Scaling is about the image's centre, and a turned box is the bounds of its turned ellipse."""
    params = STILL.model_copy(update=change)
    step = Augmenter(params)._transforms[1.0]
    if "rotate" in change:
        step.transforms[1].rotate = (2.0, 2.0)
    result = step(image=black(), bboxes=[box], rows=[0])
    assert np.allclose(result["bboxes"][0], expected, atol=2e-3)


def test_a_translation_moves_the_box_by_as_much_as_the_image() -> None:
    """A shift by (0.1 W, -0.2 H) gives x' = x + 40, y' = y - 60, and what leaves the frame is clipped."""
    step = Augmenter(STILL)._transforms[1.0]
    step.transforms[1].translate_percent = {"x": (0.1, 0.1), "y": (-0.2, -0.2)}
    result = step(
        image=black(),
        bboxes=[(100, 100, 50, 40), (10, 50, 20, 20), (350, 100, 20, 20), (100, 20, 20, 20)],
        rows=[0, 1, 2, 3],
    )
    # the second: y' = -10, 10 of 20 rows are left (0.5 >= 0.4); the third: x' = 390, 10 of 20 columns; the
    # fourth: y' = -40, gone
    assert np.allclose(result["bboxes"], [[140, 40, 50, 40], [50, 0, 20, 10], [390, 40, 10, 20]], atol=2e-3)
    assert list(result["rows"]) == [0, 1, 2]


def test_a_box_less_than_min_visible_is_dropped() -> None:
    """Shifted by 40, (345, 0, 30, 30) keeps 15 of 30 columns (0.5); (352, ...) keeps 8 (0.27) and goes."""
    step = Augmenter(STILL)._transforms[1.0]
    step.transforms[1].translate_percent = {"x": (0.1, 0.1), "y": (0, 0)}
    result = step(image=black(), bboxes=[(345, 0, 30, 30), (352, 0, 30, 30)], rows=[0, 1])
    assert list(result["rows"]) == [0]
    assert np.allclose(result["bboxes"], [[385, 0, 15, 30]], atol=2e-3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_boxes_follow_the_pixels(seed: int) -> None:
    """After any augmentation a drawn ellipse lies where its box says, to 1.5 pixels (drawing rounds)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    image = black()
    image[((x - 200) / 60) ** 2 + ((y - 150) / 20) ** 2 <= 1] = 255
    copy, labels = Augmenter(USUAL).copy(image, labels_of((140, 130, 120, 40)), {1}, seed)
    assert np.allclose(labels.boxes[0], bounds(copy[..., 0] > 190), atol=1.5)


@given(
    seed=st.integers(0, 10_000),
    boxes=st.lists(
        st.tuples(st.floats(0, 390), st.floats(0, 290), st.floats(0.5, 400), st.floats(0.5, 300)).map(
            lambda b: (b[0], b[1], min(b[2], WIDTH - b[0]), min(b[3], HEIGHT - b[1]))
        ),
        min_size=1,
        max_size=6,
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_copy_keeps_a_box_of_every_class_it_counts_for(
    seed: int, boxes: list[tuple[float, float, float, float]]
) -> None:
    """No wanted class is lost and no box leaves the frame; each keeps its class and extras."""
    wild = USUAL.model_copy(update={"translate": 0.9, "scale": (0.5, 3.0)})
    given_labels = labels_of(*boxes)
    copy, labels = Augmenter(wild).copy(black(), given_labels, set(given_labels.class_ids.tolist()), seed)
    assert copy.shape == (HEIGHT, WIDTH, 3)
    assert set(labels.class_ids) == set(given_labels.class_ids)
    assert (labels.boxes >= -1e-3).all()
    assert (labels.boxes[:, 0] + labels.boxes[:, 2] <= WIDTH + 2e-3).all()
    assert (labels.boxes[:, 1] + labels.boxes[:, 3] <= HEIGHT + 2e-3).all()
    assert [e["number"] + 1 for e in labels.extra] == labels.class_ids.tolist()


def test_the_last_resort_is_a_flip() -> None:
    """Corners at once cannot survive a doubling; the copy is then the mirror image, with every box."""
    corners = labels_of((0, 0, 4, 4), (396, 0, 4, 4), (0, 296, 4, 4), (396, 296, 4, 4))
    doubled = STILL.model_copy(update={"scale": (3.0, 3.0)})
    image = black()
    image[:, :200] = 255
    copy, labels = Augmenter(doubled).copy(image, corners, {1, 2, 3, 4}, seed=1)
    assert np.array_equal(copy, image[:, ::-1])
    assert labels.boxes.tolist() == [[396, 0, 4, 4], [0, 0, 4, 4], [396, 296, 4, 4], [0, 296, 4, 4]]


def test_a_crowd_stays_a_crowd_and_satisfies_no_class() -> None:
    """A class of which only a crowd is left has lost its box: another copy is drawn."""
    labels = Labels(
        np.array([[0, 0, 400, 300], [0, 140, 12, 12]], float), np.array([5, 5]), np.array([True, False])
    )
    for seed in range(12):
        _, kept = Augmenter(USUAL).copy(black(), labels, {5}, seed)
        assert False in kept.crowd.tolist()
        assert kept.crowd.tolist() == [row[2] > 100 for row in kept.boxes.tolist()]


def test_a_box_that_stands_out_by_rounding_is_taken() -> None:
    """Sources round: a box half a pixel past the border is clipped, not refused."""
    _, labels = Augmenter(STILL).copy(black(), labels_of((390, 290, 10.5, 10.5)), {1}, seed=0)
    assert np.allclose(labels.boxes, [[390, 290, 10, 10]], atol=2e-3)


def test_what_comes_in_from_outside_is_the_letterbox_s_grey() -> None:
    """The pixels beyond the original hold no mirrored or smeared waste, which nobody would have labelled."""
    half = Augmenter(STILL.model_copy(update={"scale": (0.5, 0.5)}))
    copy, _ = half.copy(black(), labels_of((190, 140, 20, 20)), {1}, seed=0)
    assert copy[0, 0].tolist() == copy[-1, -1].tolist() == list(FILL)
    assert (copy[80:220, 105:295] == 0).all()


def test_the_same_seed_gives_the_same_copy_and_another_a_different_one() -> None:
    """Copies are a function of image, labels and seed, whatever was drawn before."""
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    labels = labels_of((150, 100, 100, 100))
    augmenter = Augmenter(USUAL)
    first, *_, again = (augmenter.copy(image, labels, {1}, seed) for seed in (1, 2, 3, 1))
    other = Augmenter(USUAL).copy(image, labels, {1}, 2)
    assert np.array_equal(first[0], again[0])
    assert first[1].same_boxes(again[1])
    assert not np.array_equal(first[0], other[0])
