"""Each frame becomes one task, in order, with pre-labels."""

import hashlib
from dataclasses import replace
from typing import Any

import httpx
import pytest

from labeling import LabelingParams
from labeling.tasks import needs_second_annotator, tasks_of
from tests.labeling.conftest import SIZE, Desk
from trashnet.boxes import Box
from trashnet.errors import UserError


class Crash(BaseException):
    """The process ends here; nothing of ours may catch this."""


def fake_hashes(count: int, start: int = 0) -> list[str]:
    """SHA-256s of frames without a picture."""
    return [
        hashlib.sha256(f"made up {number}".encode()).hexdigest() for number in range(start, start + count)
    ]


def test_tasks_come_in_the_order_asked_for_and_their_frames_are_tasked(desk: Desk) -> None:
    """Most valuable first: that is the order in which Label Studio hands them out."""
    shas = desk.draw(3)
    assert desk.ask([shas[2], shas[0], shas[1]]) == 3
    assert [task["data"]["sha256"] for task in desk.tasks()] == [shas[2], shas[0], shas[1]]
    assert [desk.task(task["data"]["sha256"]) for task in desk.tasks()] == [
        task["id"] for task in desk.tasks()
    ]
    assert desk.ledger.count_by_state() == {"tasked": 3}


def test_a_second_request_creates_no_task(desk: Desk) -> None:
    """The ledger knows which frames are tasked."""
    shas = desk.draw(2)
    desk.ask(shas)
    assert desk.ask(shas) == 0
    assert len(desk.tasks()) == 2


def test_a_task_holds_what_an_annotator_should_know(desk: Desk) -> None:
    """The task names the reason, the bin, the time and the acquisition score of its frame."""
    (sha,) = desk.draw(1, score=0.75)
    desk.ask([sha])
    (task,) = desk.tasks()
    assert task["data"] == {
        "image": f"s3://{desk.settings.s3_bucket}/frames/{sha}.jpg",
        "sha256": sha,
        "why": "rare class: Paper cup 0.31",
        "value": 0.75,
        "feedback": "",
        "bin_id": "bin07",
        "captured_at": "2026-11-02T09:30:00+00:00",
        "model": "bin r1",
        "prelabelled": True,
    }


def test_the_frame_is_served_presigned_from_the_store(desk: Desk) -> None:
    """Label Studio redirects to the store, which gives the very bytes without credentials."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    headers = {"Authorization": f"Token {desk.settings.label_studio_token.get_secret_value()}"}
    with httpx.Client(trust_env=False, base_url=desk.settings.label_studio_url) as http:
        link = desk.client.tasks.get(str(desk.task(sha))).data["image"]
        answer = http.get(link, headers=headers)
        assert answer.status_code == httpx.codes.SEE_OTHER
        assert answer.headers["location"].startswith(desk.settings.s3_endpoint)
        assert hashlib.sha256(http.get(answer.headers["location"]).content).hexdigest() == sha


def crash(*_: Any) -> None:
    """Stand in for what a run never came to."""
    raise Crash


def test_a_crash_between_import_and_ledger_creates_no_second_task(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run finds the tasks and records them in the ledger."""
    shas = desk.draw(3)
    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger, "mark_tasked", crash)
        with pytest.raises(Crash):
            desk.ask(shas)
    assert desk.ledger.count_by_state() == {"accepted": 3}
    assert len(desk.tasks()) == 3
    assert desk.ask(shas) == 0
    assert desk.ledger.count_by_state() == {"tasked": 3}
    assert [task["id"] for task in desk.tasks()] == [desk.task(sha) for sha in shas]


def test_only_missing_tasks_are_imported_after_a_crash(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for another batch size, and for more frames than one query takes."""
    shas = fake_hashes(200)
    for sha in shas:
        desk.enter(sha)
    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger, "mark_tasked", crash)
        with pytest.raises(Crash):
            desk.ask(shas[50:150])
    assert desk.ask(shas, desk.params.model_copy(update={"import_batch_size": 70})) == 100
    held = [task["data"]["sha256"] for task in desk.tasks()]
    assert sorted(held) == sorted(shas)
    assert tasks_of(desk.client, desk.project, shas) == {sha: desk.task(sha) for sha in shas}


def test_the_frames_of_a_crash_are_tasked_by_a_run_that_asks_about_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crashed import is taken up at once, also where deleted tasks' numbers are given again."""
    gone, *shas = desk.draw(4)
    desk.ask([gone])
    desk.client.tasks.delete(str(desk.task(gone)))
    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger, "mark_tasked", crash)
        with pytest.raises(Crash):
            desk.ask(shas[:2])
    assert desk.ask(shas[2:]) == 1
    assert [desk.state(sha) for sha in shas] == ["tasked"] * 3
    assert desk.ask(shas) == 0
    assert [task["data"]["sha256"] for task in desk.tasks()] == shas


def test_a_ledger_restored_from_a_backup_makes_no_second_tasks(desk: Desk) -> None:
    """Label Studio's tasks are newer than what it knows of them."""
    shas = desk.draw(3)
    desk.ask(shas[:1])
    cursors = {
        name: desk.ledger.cursor(name) for name in (f"tasks/{desk.project.id}/{desk.project.installation}",)
    }
    desk.ask(shas[1:])
    for sha in shas[1:]:
        desk.ledger.move(sha, "tasked", "accepted", task_id=None)
    for name, value in cursors.items():
        desk.ledger.set_cursor(name, value or "")
    assert desk.ask(shas) == 0
    assert len(desk.tasks()) == 3


def test_a_task_of_another_project_is_ignored(desk: Desk, client: Any) -> None:
    """Two deployments may share a server and, in tests, frames."""
    (sha,) = desk.draw(1)
    other = client.projects.create(
        title="another", label_config=client.projects.get(desk.project.id).label_config
    )
    client.projects.import_tasks(
        other.id, request=[{"data": {"sha256": sha, "image": "s3://x/y", "feedback": "", "why": ""}}]
    )
    assert desk.ask([sha]) == 1


def test_pre_labels_are_the_teachers_where_there_is_one(desk: Desk) -> None:
    """The teacher is more accurate than the bin, so its prediction counts even if it is empty."""
    prediction = (Box("Shoe", 64, 32, 320, 64, 0.8),)
    (taught,) = desk.draw(1, prediction=prediction, model="2026.11")
    (empty,) = desk.draw(1, prediction=(), model="2026.11")
    (bins,) = desk.draw(1)
    desk.ask([taught, empty, bins])
    by_teacher, by_nobody, by_bin = desk.tasks()
    (shoe,) = by_teacher["predictions"][0]["result"]
    assert shoe["value"] == {
        "x": 10,
        "y": 5,
        "width": 50,
        "height": 10,
        "rotation": 0,
        "rectanglelabels": ["Shoe"],
    }
    assert (shoe["original_width"], shoe["original_height"], shoe["score"]) == (SIZE, SIZE, 0.8)
    assert (by_teacher["data"]["model"], by_nobody["data"]["model"], by_bin["data"]["model"]) == (
        "teacher 2026.11",
    ) * 2 + ("bin r1",)
    assert by_nobody["predictions"] == []
    assert len(by_bin["predictions"][0]["result"]) == 5


def test_all_pre_labels_are_of_the_version_that_the_project_starts_from(desk: Desk) -> None:
    """Label Studio shows predictions of one version only: older tasks would be bare after every release."""
    old, new = desk.draw(1, prediction=(), model="1"), desk.draw(1)
    desk.ask([*old, *new])
    assert (
        desk.client.projects.get(desk.project.id).model_version
        == desk.tasks()[1]["predictions"][0]["model_version"]
    )


def test_unusable_pre_labels_are_left_out(desk: Desk) -> None:
    """A low score, a box outside, a removed class and too many boxes: Label Studio would refuse the batch."""
    sure = Box("Shoe", 0, 0, 64, 64, 0.9)
    poor = [
        replace(sure, score=0.29),
        replace(sure, label="Vape"),
        replace(sure, x=700, w=20, h=20),
        replace(sure, x=-32, y=600, score=0.5),  # half outside: clipped
    ]
    (sha,) = desk.draw(1, prediction=(*poor, sure), model="1")
    desk.ask([sha])
    values = [guess["value"] for guess in desk.tasks()[0]["predictions"][0]["result"]]
    assert [(value["x"], value["y"], value["width"], value["height"]) for value in values] == [
        (0, 0, 10, 10),
        (0, 93.75, 5, 6.25),
    ]
    (many,) = desk.draw(1, prediction=(sure,) * 50, model="1")
    desk.ask([many])
    assert len(desk.tasks()[1]["predictions"][0]["result"]) == desk.params.prelabel_boxes


def test_a_frame_that_the_ledger_does_not_know_is_an_error(desk: Desk) -> None:
    """A mistyped SHA-256 is not skipped silently."""
    with pytest.raises(UserError, match="does not know it"):
        desk.ask(["0" * 64])


def test_a_request_for_no_frames_creates_no_tasks(desk: Desk) -> None:
    """An empty request is no error."""
    assert desk.ask([]) == 0


def test_the_share_that_two_people_answer_is_the_same_everywhere(params: LabelingParams) -> None:
    """By the frame's name: about a tenth of all, and a smaller share is part of a larger one."""
    shas = fake_hashes(5000)
    tenth = {sha for sha in shas if needs_second_annotator(sha, 0.1)}
    assert 400 < len(tenth) < 600
    assert tenth < {sha for sha in shas if needs_second_annotator(sha, 0.2)}
    assert not any(needs_second_annotator(sha, 0) for sha in shas)
    assert all(needs_second_annotator(sha, 1) for sha in shas)
