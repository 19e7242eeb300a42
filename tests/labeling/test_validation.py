"""An annotation is either parsed or refused with a reason; it never stops the run."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling import LabelingParams
from labeling.validation import validate_annotation
from tests.labeling.conftest import NO_WASTE_TAG, SIZE, region
from trashnet.boxes import Box
from trashnet.ledger import OUTCOMES, FrameRow
from trashnet.taxonomy import Taxonomy

FRAME = FrameRow(
    sha256="a" * 64, uploaded_sha256="a" * 64, state="tasked", inbox_key="inbox/x", width=SIZE, height=SIZE
)


def turned(angle: float) -> dict[str, Any]:
    """A box rotated by degrees."""
    made = region()
    made["value"]["rotation"] = angle
    return made


def shaped(kind: str, **value: Any) -> dict[str, Any]:
    """A region that is no box."""
    return region(type=kind, from_name="boxes", value=value)


REFUSED = [
    ([turned(30)], "rotated"),
    ([region(image_rotation=90)], "rotated"),
    ([shaped("polygonlabels", points=[[1, 1], [2, 2], [3, 1]], polygonlabels=["Battery"])], "polygon"),
    ([shaped("ellipselabels", x=1, y=1, radiusX=2, radiusY=2, ellipselabels=["Battery"])], "ellipse"),
    ([shaped("brushlabels", rle=[1, 2], brushlabels=["Battery"])], "brush"),
    ([shaped("keypointlabels", x=1, y=1, width=1, keypointlabels=["Battery"])], "keypoint"),
    ([shaped("rectangle", x=1, y=1, width=9, height=9, rotation=0)], "no class"),
    ([region(label="Unicorn")], "'Unicorn' is not a class"),
    ([region(x=90)], "outside"),  # 90 + 20 > 100
    ([region(y=-1)], "outside"),  # 6.4 pixels
    ([region(w=0)], "less than 2 pixels"),
    ([region(w=0.2)], "less than 2 pixels"),  # 1.28 pixels
    ([region(w=-5)], "less than 2 pixels"),
    ([region(x=float("nan"))], "no position"),
    ([region(x="12")], "no position"),  # type: ignore[arg-type]
    ([region(x=10**400)], "no position"),
    ([region(original_width=320, original_height=240)], "320 × 240 pixels; the frame has 640 × 640"),
    ([region(), NO_WASTE_TAG], "says “No waste here” and has 1 boxes"),
    ([], "neither boxes nor"),
    (None, "no result"),
    ([None], "unknown"),
    ([{"type": "choices", "from_name": "nothing", "value": {"choices": ["Maybe"]}}], "does not offer"),
]


@pytest.mark.parametrize(("result", "reason"), REFUSED)
def test_an_unusable_annotation_is_refused_with_its_reason(
    result: Any, reason: str, taxonomy: Taxonomy, params: LabelingParams
) -> None:
    """The reason is written for the annotator."""
    checked = validate_annotation({"result": result}, FRAME, taxonomy.names, params)
    assert (checked.outcome, checked.boxes) == ("refused", ())
    assert reason in (checked.reason or "")


def test_boxes_come_out_in_pixels(taxonomy: Taxonomy, params: LabelingParams) -> None:
    """10 % of 640 pixels are 64, 20 % are 128."""
    checked = validate_annotation(
        {"result": [region(), region(label="Shoe", x=50)]}, FRAME, taxonomy.names, params
    )
    assert checked.outcome == "boxes"
    assert checked.boxes == (Box("Battery", 64, 64, 128, 128), Box("Shoe", 320, 64, 128, 128))


def test_up_to_a_pixel_outside_is_cut_off(taxonomy: Taxonomy, params: LabelingParams) -> None:
    """80.1 % + 20 % of 640 end 0.64 pixels behind the edge."""
    checked = validate_annotation({"result": [region(x=80.1)]}, FRAME, taxonomy.names, params)
    assert checked.outcome == "boxes"
    assert checked.boxes[0].xywh == pytest.approx([512.64, 64, 127.36, 128])


def test_no_waste_here_is_an_answer_without_boxes(taxonomy: Taxonomy, params: LabelingParams) -> None:
    """An empty bin is a background frame of the dataset."""
    assert validate_annotation({"result": [NO_WASTE_TAG]}, FRAME, taxonomy.names, params).outcome == "nothing"


def test_a_skipped_task_is_skipped_whatever_was_drawn(taxonomy: Taxonomy, params: LabelingParams) -> None:
    """Boxes of a skipped task are not used."""
    assert (
        validate_annotation(
            {"result": [region()], "was_cancelled": True}, FRAME, taxonomy.names, params
        ).outcome
        == "skipped"
    )


def test_a_negligible_rotation_is_accepted(taxonomy: Taxonomy, params: LabelingParams) -> None:
    """So is a full rotation."""
    for angle in (0.001, 360, -360, 359.9999):
        assert (
            validate_annotation({"result": [turned(angle)]}, FRAME, taxonomy.names, params).outcome == "boxes"
        )


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
numbers = st.floats(-50, 150) | st.floats() | st.integers() | st.none() | st.text(max_size=3)
values = st.fixed_dictionaries(
    {},
    optional={
        "x": numbers,
        "y": numbers,
        "width": numbers,
        "height": numbers,
        "rotation": numbers,
        "rectanglelabels": st.lists(st.sampled_from(["Battery", "Shoe", "Unicorn"]), max_size=2) | json,
        "choices": st.just(["No waste here"]) | json,
    },
)
regions = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["rectanglelabels", "choices", "rectangle", "polygonlabels", "relation"])
        | json
    },
    optional={
        "from_name": st.sampled_from(["boxes", "nothing"]) | json,
        "value": values | json,
        "original_width": st.just(SIZE) | json,
        "original_height": st.just(SIZE) | json,
        "image_rotation": st.just(0) | json,
    },
)


@given(
    result=st.lists(regions, max_size=4) | st.lists(json, max_size=3) | json,
    skipped=st.booleans() | st.none(),
)
def test_any_answer_whatsoever_is_read_or_refused(result: Any, skipped: bool | None) -> None:
    """Boxes that pass are inside the frame and have area and a known label; a refusal has a reason."""
    names = ("Battery", "Shoe")
    params = LabelingParams.model_construct(edge_tolerance=1.0, min_box_side=2.0)
    checked = validate_annotation({"result": result, "was_cancelled": skipped}, FRAME, names, params)
    assert checked.outcome in OUTCOMES
    assert (checked.outcome == "boxes") == bool(checked.boxes)
    assert (checked.outcome == "refused") == bool(checked.reason)
    for box in checked.boxes:
        x, y, w, h = box.xywh
        assert box.label in names
        assert min(w, h) >= 2
        assert 0 <= x <= x + w <= SIZE + 1e-9
        assert 0 <= y <= y + h <= SIZE + 1e-9


@given(relative=st.tuples(*[st.floats(0, 1)] * 4), label=st.sampled_from(["Battery", "Shoe"]))
def test_a_box_drawn_inside_comes_back_where_it_was(relative: tuple[float, ...], label: str) -> None:
    """The error is at most a thousandth of a pixel, wherever the box lies."""
    x, y = relative[0] * 90, relative[1] * 90
    w, h = 1 + relative[2] * (99 - x), 1 + relative[3] * (99 - y)
    params = LabelingParams.model_construct(edge_tolerance=1.0, min_box_side=2.0)
    checked = validate_annotation({"result": [region(x, y, w, h, label)]}, FRAME, ("Battery", "Shoe"), params)
    (box,) = checked.boxes
    assert box.label == label
    assert box.xywh == pytest.approx([v * SIZE / 100 for v in (x, y, w, h)], abs=1e-3)
