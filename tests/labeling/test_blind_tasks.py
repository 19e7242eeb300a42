"""Tasks without pre-labels: of frames that judge models, and of a share of the others."""

import hashlib

import pytest

from labeling import LabelingParams
from labeling.tasks import BLIND, is_blind
from tests.labeling.conftest import Desk, region
from trashnet.ledger import FrameRow

BLIND_TO_ALL = {"upload_reason": "exploration", "selected_by": "exploration"}


def row(number: int, **columns: str) -> FrameRow:
    """A frame by its number."""
    sha = hashlib.sha256(str(number).encode()).hexdigest()
    return FrameRow(sha256=sha, uploaded_sha256=sha, state="accepted", inbox_key="", **columns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("columns", "blind"),
    [
        (BLIND_TO_ALL, True),
        ({"upload_reason": "exploration", "selected_by": "held_out"}, True),
        ({"upload_reason": "model", "selected_by": "exploration"}, False),
        ({"upload_reason": "model", "selected_by": "score"}, False),
        ({}, False),
    ],
)
def test_frames_that_val_and_test_may_get_are_blind(columns: dict[str, str], blind: bool) -> None:
    """Without a share of the others, those alone."""
    assert is_blind(row(1, **columns), LabelingParams(blind_share=0)) is blind


def test_a_share_of_the_others_is_blind_too_and_always_the_same() -> None:
    """Of 2,000 frames 10 % are 200: within four standard deviations, sqrt(2000 * 0.1 * 0.9) = 13.4."""
    params = LabelingParams(blind_share=0.1)
    assert 147 <= sum(is_blind(row(number), params) for number in range(2000)) <= 253


@pytest.mark.server
def test_a_blind_task_shows_nothing_of_a_model_and_its_label_says_so(desk: Desk) -> None:
    """No prediction, no score and no explanation; the annotations know which of the two they are."""
    (blind,), (usual,) = desk.draw(1, **BLIND_TO_ALL), desk.draw(1)
    desk.ask([blind, usual])
    first, second = desk.tasks()
    assert (first["predictions"], first["data"]["prelabelled"]) == ([], False)
    assert (first["data"]["why"], first["data"]["value"], first["data"]["model"]) == (BLIND, 0.0, "")
    assert second["predictions"]
    assert second["data"]["prelabelled"] is True
    for sha in (blind, usual):
        desk.answer(sha, region())
    desk.collect()
    made = [one.prelabelled for sha in (blind, usual) for one in desk.ledger.annotations_of(sha)]
    assert made == [False, True]
