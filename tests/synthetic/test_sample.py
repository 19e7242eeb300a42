"""The drawn sample: its boxes, classes, bytes and bursts."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset import Log
from synthetic import SampleParams, draw_sample, draw_scene
from synthetic.drawing import CLASS_DRAWINGS, Pen, drawing_of_class
from synthetic.sample import planned_box_counts
from synthetic.scenes import compose_scene, draw_light, draw_view
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

TINY = SampleParams(
    seed=3,
    image_size=96,
    largest_class=24,
    smallest_class=2,
    scale=0.5,
    items=(2, 5),
    views=(0.5, 0.3, 0.2),
    bins=3,
    empty=0.1,
    jpeg_quality=80,
)


@pytest.fixture(scope="module")
def few(taxonomy: Taxonomy) -> Taxonomy:
    """The first ten classes alone, so that a whole sample is drawn in a second."""
    return replace(taxonomy, classes=taxonomy.classes[:10])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, few: Taxonomy) -> Log:
    """A tiny sample of ten classes."""
    root = tmp_path_factory.mktemp("drawn") / "data"
    draw_sample(root, few, TINY)
    return Log(root, few)


def test_every_class_of_the_taxonomy_has_a_drawing_of_its_own(taxonomy: Taxonomy) -> None:
    """No class uses another's drawing, and no drawing is of an unknown class."""
    assert set(CLASS_DRAWINGS) == set(taxonomy.names)


@pytest.mark.parametrize("name", sorted(CLASS_DRAWINGS))
def test_an_item_fills_its_canvas_and_keeps_within_it(name: str) -> None:
    """A drawn item spans most of its canvas and never touches the border, where it would be cut."""
    for seed in range(3):
        pen = Pen(96, np.random.default_rng(seed))
        drawing_of_class(name)[1](pen)
        ys, xs = np.nonzero(pen.shape > 0.5)
        assert max(np.ptp(ys), np.ptp(xs)) > 0.5 * 96
        border = np.concatenate([pen.shape[0], pen.shape[-1], pen.shape[:, 0], pen.shape[:, -1]])
        assert border.max() < 0.5
        assert pen.colour.min() >= -1e-6
        assert (pen.colour <= pen.opacity[..., None] + 1e-5).all()


def test_a_scene_depends_on_its_random_generator_alone(taxonomy: Taxonomy) -> None:
    """The same seed draws the same pixels and boxes; another seed draws others."""
    first, repeated, other = (
        draw_scene(np.random.default_rng(seed), [12, 5, 57], 128, taxonomy) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, repeated, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_scenes_boxes_lie_in_the_image_and_have_area(taxonomy: Taxonomy) -> None:
    """Boxes are at least two pixels wide and high, within the image, in whole pixels, one per class id."""
    for seed in range(6):
        image, boxes, class_ids = draw_scene(
            np.random.default_rng(seed), [37, 19, 17, 5, 57, 57, 48], 128, taxonomy
        )
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert boxes.shape == (len(class_ids), 4)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] >= 2).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= 128).all()


def test_boxes_are_of_the_visible_part(taxonomy: Taxonomy) -> None:
    """Each box bounds the pixels that nothing opaque covers, and those are at least 30 % of the item."""
    scene = compose_scene(np.random.default_rng(5), [37, 19, 17, 34, 14, 45], 128, taxonomy, "steel")
    _, boxes, _ = draw_view(
        np.random.default_rng(0), scene, draw_light(np.random.default_rng(0)), (0, 0), 128
    )
    assert scene.visible.sum(0).max() == 1  # all six are opaque, and opaque items never share a pixel
    for plane, (x, y, w, h) in zip(scene.visible, boxes.astype(int), strict=True):
        inside = plane[y : y + h, x : x + w]
        assert inside.sum() == plane.sum() > 0
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_a_view_shifted_by_three_pixels_shifts_the_boxes_by_three(taxonomy: Taxonomy) -> None:
    """Views of a burst show one scene: if the window moves right, its contents move left by as much."""
    scene = compose_scene(np.random.default_rng(2), [12, 41], 128, taxonomy, "paper", margin=4)
    light = draw_light(np.random.default_rng(0))
    _, first, _ = draw_view(np.random.default_rng(0), scene, light, (2, 4), 128)
    _, second, _ = draw_view(np.random.default_rng(0), scene, light, (5, 4), 128)
    whole = (first[:, 0] > 3) & (first[:, 0] + first[:, 2] < 125)
    assert whole.any()
    assert np.array_equal(second[whole], first[whole] - [3, 0, 0, 0])


def test_an_empty_scene_is_a_background_frame(taxonomy: Taxonomy) -> None:
    """A scene without items has an image and no boxes."""
    image, boxes, class_ids = draw_scene(np.random.default_rng(0), [], 64, taxonomy)
    assert boxes.shape == (0, 4)
    assert class_ids.shape == (0,)
    assert image.std() > 0


def test_planned_counts_fall_geometrically_and_never_below_three() -> None:
    """1300, 95.4 and 7 at the ends and in the middle (7 * sqrt(1300 / 7) = 95.39); at 0.1: 130 and 3."""
    full = TINY.model_copy(update={"largest_class": 1300, "smallest_class": 7, "scale": 1.0})
    counts = planned_box_counts(full, 57)
    assert (counts[0], counts[28], counts[56]) == (1300, 95, 7)
    tenth = planned_box_counts(full.model_copy(update={"scale": 0.1}), 57)
    assert (tenth[0], tenth[56]) == (130, 3)


def test_the_sample_holds_the_planned_boxes_exactly(drawn: Log) -> None:
    """Each class has as many boxes as planned, the rarest included."""
    assert sorted(drawn.box_counts()) == sorted(planned_box_counts(TINY, 10))


def test_every_class_lies_in_three_groups_at_least(drawn: Log) -> None:
    """A class in fewer than three groups could not be in train, val and test at once."""
    groups: dict[int, set[str]] = {}
    for frame in drawn.frames():
        assert frame.labels is not None
        for class_id in frame.labels.class_ids.tolist():
            groups.setdefault(class_id, set()).add(frame.group)
    assert min(len(g) for g in groups.values()) >= 3


def test_bursts_have_several_views_and_one_split(drawn: Log) -> None:
    """Views of one scene are two seconds apart, come from one bin, and share their group's split."""
    by_group: dict[str, list[int]] = {}
    for row, group in enumerate(drawn.column("group")):
        by_group.setdefault(group, []).append(row)
    assert max(len(rows) for rows in by_group.values()) > 1
    for group, rows in by_group.items():
        frames = [drawn.frame(row) for row in rows]
        assert {f"{f.bin_id}/{f.burst}" for f in frames} == {group}
        assert len({f.split for f in frames}) == 1
        times = [f.captured_at for f in frames if f.captured_at is not None]
        assert [(t - times[0]).total_seconds() for t in times] == [2 * i for i in range(len(frames))]


def test_some_frames_are_empty_bins(drawn: Log) -> None:
    """A background frame is labelled: its list of boxes is empty, not missing."""
    assert any(f.labels is not None and len(f.labels) == 0 for f in drawn.frames())


def test_frames_are_named_by_their_bytes(drawn: Log) -> None:
    """A frame's name is the SHA-256 of its JPEG, and its image has the size in its columns."""
    frame = drawn.frame(0)
    assert hashlib.sha256(frame.jpeg).hexdigest() == frame.sha256
    assert frame.image().shape == (frame.height, frame.width, 3) == (96, 96, 3)


def test_drawing_twice_changes_nothing(tmp_path: Path, few: Taxonomy, drawn: Log) -> None:
    """The same parameters give the same turn, byte for byte, elsewhere; in the same log they add none."""
    turn = draw_sample(tmp_path / "data", few, TINY)
    assert [turn] == drawn.turns
    first, second = (
        (root / "frames" / f"{turn}.arrow").read_bytes() for root in (drawn.root, tmp_path / "data")
    )
    assert first == second
    assert draw_sample(tmp_path / "data", few, TINY) == turn
    assert Log(tmp_path / "data", few).turns == [turn]


def test_the_shipped_parameters_are_read(taxonomy: Taxonomy) -> None:
    """The `sample` section of params.yaml is complete."""
    params = load_params("sample", SampleParams, Path(__file__).parents[2] / "params.yaml")
    assert planned_box_counts(params, len(taxonomy.classes))[0] == round(params.scale * params.largest_class)
