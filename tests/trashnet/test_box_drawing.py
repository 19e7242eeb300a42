"""Drawn boxes: the positions of outlines and labels, and the contrast of the text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trashnet import box_drawing as drawing
from trashnet.box_drawing import BoxOverlay, draw_boxes, line_width, luminance, text_colour
from trashnet.taxonomy import Taxonomy

BLUE, GREY = "#1f77b4", "#7f7f7f"
BLUE_RGB, WHITE_RGB = (31, 119, 180), (255, 255, 255)


def black(width: int = 960, height: int = 720) -> NDArray[np.uint8]:
    """A black picture; the default size, 960 × 720, is drawn without scaling."""
    return np.zeros((height, width, 3), np.uint8)


def is_colour(image: NDArray[np.uint8], rgb: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Where the picture has exactly this colour."""
    return np.asarray((image == np.array(rgb)).all(axis=2))


def test_an_outline_lies_on_its_box_and_leaves_the_inside_alone() -> None:
    """At scale 1 the box (200, 300, 400, 200) is outlined from pixel 200 to 599 and 300 to 499, its middle
    untouched.
    """
    drawn = draw_boxes(black(), [BoxOverlay((200, 300, 400, 200), "Drink can 0.90", BLUE)])
    blue = is_colour(drawn, BLUE_RGB)
    line = line_width(960, 720)  # sqrt(960 * 720) = 831.4; / 240 = 3.46, so 3
    assert line == 3
    assert blue[300 : 300 + line, 200:600].all()  # top
    assert blue[500 - line : 500, 200:600].all()  # bottom
    assert blue[300:500, 200 : 200 + line].all()  # left
    assert blue[300:500, 600 - line : 600].all()  # right
    assert not drawn[320:480, 220:580].any()
    assert not blue[502:, :].any()
    assert not blue[:, 602:].any()


def test_the_picture_given_is_not_drawn_on() -> None:
    """The caller's pixels stay as they were."""
    image = black(64, 64)
    draw_boxes(image, [BoxOverlay((0, 0, 64, 64), "Shoe", BLUE)])
    assert not image.any()


def test_a_label_stands_above_its_box_with_words_that_contrast() -> None:
    """Above a box with room there is a plate of its colour, with white words on it, and nothing else beside
    it.
    """
    drawn = draw_boxes(black(), [BoxOverlay((200, 300, 400, 200), "Drink can 0.90", BLUE)])
    above = drawn[260:298, 200:600]
    assert is_colour(above, BLUE_RGB).mean() > 0.3
    assert 100 < is_colour(above, WHITE_RGB).sum() < 4000
    assert not drawn[:230].any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 960), (960, 480)),  # too wide by 2
        ((300, 200), (960, 640)),  # enlarged 3.2 times
        ((1000, 4000), (320, 1280)),  # too high by 3.125
        ((1, 5000), (1, 1280)),  # never without width
    ],
)
def test_a_picture_is_scaled_to_the_page_and_keeps_its_shape(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Width and height shrink or grow by one factor to fit 960 × 1280."""
    width, height = size
    assert draw_boxes(black(width, height), []).shape == (expected[1], expected[0], 3)


def test_a_box_is_scaled_with_its_picture() -> None:
    """On a picture twice too large the box (400, 600, 800, 400) is outlined at (200, 300, 400, 200)."""
    drawn = draw_boxes(black(1920, 1440), [BoxOverlay((400, 600, 800, 400), "", BLUE)])
    blue = is_colour(drawn, BLUE_RGB)
    assert blue[300, 250:600].all()
    assert blue[499, 200:600].all()
    assert not blue[502:].any()


def test_ground_truth_is_dashed_and_its_label_is_white() -> None:
    """A dashed outline, 4 pixels around its box, is half its colour and half white, and its words are black
    on white.
    """
    drawn = draw_boxes(black(), [BoxOverlay((200, 300, 480, 200), "Drink can", BLUE, "dashed")])
    bottom = drawn[502, 200:680]
    assert is_colour(bottom[None], BLUE_RGB).sum() == pytest.approx(240, abs=12)
    assert is_colour(bottom[None], WHITE_RGB).sum() == pytest.approx(240, abs=12)
    assert is_colour(drawn[262:297, 205:300], WHITE_RGB).mean() > 0.5


def test_a_detection_that_lies_just_on_the_ground_truth_is_seen_beside_it() -> None:
    """Both outlines of one box can be followed: the detection's whole, the person's around it."""
    box = (200, 300, 480, 200)
    drawn = draw_boxes(black(), [BoxOverlay(box, "", BLUE, "dashed"), BoxOverlay(box, "", GREY)])
    assert is_colour(drawn, (127, 127, 127))[499, 250:680].all()
    assert is_colour(drawn, WHITE_RGB)[502, 200:680].sum() > 200


def test_labels_of_equal_boxes_do_not_cover_each_other() -> None:
    """Four detections on one box have four labels that can all be read."""
    names = ["Drink can 0.90", "Food Can 0.80", "Aerosol 0.70", "Battery 0.60"]
    colours = ["#1f77b4", "#2ca02c", "#7f7f7f", "#d62728"]
    box = (300, 300, 200, 150)
    alone = []
    for name, colour in zip(names, colours, strict=True):
        drawn = draw_boxes(black(), [BoxOverlay(box, name, colour)])
        alone.append(int(drawn.any(axis=2).sum()))
    together = draw_boxes(black(), [BoxOverlay(box, n, c) for n, c in zip(names, colours, strict=True)])
    outline = int(
        draw_boxes(black(), [BoxOverlay((0, 0, 0, 0), "", BLUE), BoxOverlay(box, "", BLUE)]).any(axis=2).sum()
    )
    assert int(together.any(axis=2).sum()) > 0.8 * (sum(alone) - 3 * outline)
    for colour in colours:
        rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert is_colour(together, rgb).sum() > 1500  # type: ignore[arg-type]


def test_the_first_box_is_drawn_on_top() -> None:
    """Where the outlines of two boxes cross, the best detection's can be followed."""
    drawn = draw_boxes(
        black(), [BoxOverlay((300, 300, 200, 200), "", BLUE), BoxOverlay((400, 400, 200, 200), "", GREY)]
    )
    assert is_colour(drawn, BLUE_RGB)[300:500, 499].all()
    assert not is_colour(drawn, (127, 127, 127))[400, 400:599].all()


@pytest.mark.parametrize(
    "box", [(-50, -50, 20, 20), (950, 710, 500, 500), (0, 0, 960, 720), (480, 360, 0, 0), (0, 0, 0.4, 0.4)]
)
def test_boxes_at_and_beyond_the_border_are_drawn_within_it(box: tuple[float, float, float, float]) -> None:
    """A box without area, or partly or wholly outside, raises nothing, and its words are still on the
    picture.
    """
    drawn = draw_boxes(black(), [BoxOverlay(box, "Cigarette 0.31", GREY)])
    assert is_colour(drawn, (127, 127, 127)).sum() > 1500


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(*[st.floats(-400, 400)] * 2, *[st.floats(0, 600)] * 2), max_size=5),
)
def test_any_boxes_on_any_picture_can_be_drawn(
    width: int, height: int, boxes: list[tuple[float, float, float, float]]
) -> None:
    """Nothing that a model can report makes drawing fail, and the picture fits the page."""
    drawn = draw_boxes(
        black(width, height),
        [
            BoxOverlay(box, "Garbage bag 0.50", GREY, "dashed" if i % 2 else "solid")
            for i, box in enumerate(boxes)
        ],
    )
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] <= drawing.MAX_WIDTH
    assert drawn.shape[0] <= drawing.MAX_HEIGHT


def test_lines_grow_with_the_picture() -> None:
    """1/240 of the side of a square of the picture's area, and never so thin that it vanishes."""
    assert line_width(2400, 2400) == 10
    assert line_width(40, 40) == 2


@pytest.mark.parametrize(
    ("background", "words"),
    [
        ("#ffffff", "#111111"),
        ("#000000", "#ffffff"),
        ("#ffff00", "#111111"),
        ("#1f77b4", "#ffffff"),  # luminance 0.17: white 1.05 / 0.22 = 4.8, ink 0.22 / 0.056 = 3.9
        ("#2ca02c", "#111111"),  # luminance 0.26: white 3.4, ink 5.5
    ],
)
def test_words_take_the_colour_that_contrasts_more(background: str, words: str) -> None:
    """Black on light colours, white on dark ones."""
    assert text_colour(background) == words


def test_every_stream_of_the_taxonomy_has_a_readable_label(taxonomy: Taxonomy) -> None:
    """Words on the colour of a stream reach a contrast of 4:1 or better (WCAG asks 3:1 of large ones)."""
    for colour in taxonomy.streams.values():
        low, high = sorted((luminance(colour), luminance(text_colour(colour))))
        assert (high + 0.05) / (low + 0.05) >= 4


def test_luminance_of_the_ends_of_the_scale() -> None:
    """Black is 0, white is 1, and green weighs most."""
    assert luminance("#000000") == 0
    assert luminance("#ffffff") == pytest.approx(1)
    assert luminance("#00ff00") == pytest.approx(0.7152)
