"""The demo's simulated bins and its annotator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labeling import LabelingParams
from labeling.validation import validate_annotation
from operations.demo import IMAGE_SIZE, SMALL_PARAMS, _to_result, draw_captures
from tests.conftest import REPOSITORY
from trashnet.detectors import Detections
from trashnet.ledger import FrameRow
from trashnet.params import load_params, set_params
from trashnet.taxonomy import Taxonomy


class Student:
    """Sees two things in every frame, one surely and one hardly."""

    name = "student"

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """The same for every image."""
        boxes = np.array([[10, 10, 50, 50], [100, 100, 20, 20]], np.float32)
        return [Detections(boxes, np.array([5, 12]), np.array([0.9, 0.35], np.float32)) for _ in images]


def test_the_same_seed_draws_the_same_frames_and_another_others(taxonomy: Taxonomy) -> None:
    """A demo can be repeated; the next turn brings new frames."""
    first, again, other = (
        [c.sha256 for c in draw_captures(seed, 3, None, taxonomy, 0.3)] for seed in (1, 1, 2)
    )
    assert first == again
    assert not set(first) & set(other)


def test_a_bin_is_as_sure_as_of_the_thing_it_is_least_sure_of(taxonomy: Taxonomy) -> None:
    """Detections under the threshold are not seen; a bin that sees nothing is not sure of anything."""
    (seen,) = draw_captures(1, 1, Student(), taxonomy, 0.3)
    assert seen.confidence == pytest.approx(0.35)
    (surely,) = draw_captures(1, 1, Student(), taxonomy, 0.5)
    assert surely.confidence == pytest.approx(0.9)
    (blind,) = draw_captures(1, 1, None, taxonomy, 0.3)
    assert blind.confidence == 0


@pytest.mark.parametrize("empty", [False, True])
def test_the_demo_annotator_s_answers_pass_the_checks_that_people_s_pass(
    taxonomy: Taxonomy, empty: bool
) -> None:
    """What was drawn comes through Label Studio's percent and back; an empty bin is answered as one."""
    (capture,) = draw_captures(1, 1, None, taxonomy, 0.3)
    truth: list[dict[str, Any]] = [] if empty else capture.truth
    frame = FrameRow(
        sha256=capture.sha256,
        uploaded_sha256=capture.sha256,
        state="tasked",
        inbox_key="",
        width=IMAGE_SIZE,
        height=IMAGE_SIZE,
        task_id=1,
    )
    params = load_params("labeling", LabelingParams, REPOSITORY / "params.yaml")
    checked = validate_annotation(
        {"result": _to_result(truth, frame), "was_cancelled": False}, frame, set(taxonomy.names), params
    )
    assert checked.outcome == ("nothing" if empty else "boxes")
    assert [box.label for box in checked.boxes] == [box.label for box in truth]
    for found, drawn in zip(checked.boxes, truth, strict=True):
        assert found.xywh == pytest.approx(drawn.xywh, abs=1e-6)


def test_every_number_the_demo_changes_is_one_that_the_pipeline_reads(tmp_path: Any) -> None:
    """A parameter that was renamed would stop the demo's training; here it stops the tests."""
    path = tmp_path / "params.yaml"
    path.write_text((REPOSITORY / "params.yaml").read_text())
    set_params(SMALL_PARAMS, path)
