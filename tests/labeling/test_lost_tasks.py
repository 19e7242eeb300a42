"""Tasks, projects and whole installations of Label Studio vanish, and clocks are wrong: no answer is lost."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labeling import connect, count_queue, ensure_project, room_for_tasks
from labeling.collection import FOREIGN
from operations.stack import find_free_port, start_label_studio
from tests.labeling.conftest import NO_WASTE_TAG, Desk, region
from tests.labeling.test_tasks import fake_hashes
from tests.servers import LabelStudioServer, S3Server
from tests.trashnet.ledger.inspection import history
from trashnet.boxes import Box
from trashnet.ledger import AnnotationRow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_frames_whose_tasks_were_deleted_are_asked_about_again(desk: Desk) -> None:
    """They leave the queue, so that there is room, and get new tasks; what was answered stays."""
    shas = fake_hashes(5)
    for sha in shas:
        desk.enter(sha)
    desk.ask(shas)
    desk.answer(shas[0], region())
    desk.collect()
    assert room_for_tasks(desk.ledger, 5) == 1
    for sha in shas[:4]:
        desk.client.tasks.delete(str(desk.task(sha)))
    assert desk.collect().returned == 3
    assert room_for_tasks(desk.ledger, 5) == 4
    assert [desk.state(sha) for sha in shas] == ["labelled", "accepted", "accepted", "accepted", "tasked"]
    assert history(desk.ledger, shas[1])[-1][:2] == ("tasked", "accepted")
    assert desk.ask(shas) == 3
    assert [task["data"]["sha256"] for task in desk.tasks()] == [shas[4], *shas[1:4]]
    desk.answer(shas[1], NO_WASTE_TAG)
    found = desk.collect()
    assert (found.labelled, found.returned) == (1, 0)


def test_a_project_that_was_deleted_by_hand_is_made_anew_and_its_frames_asked_again(desk: Desk) -> None:
    """Labels that were collected stay as they are."""
    shas = desk.draw(3)
    desk.ask(shas)
    desk.answer(shas[0], region())
    desk.collect()
    before = desk.ledger.annotations_of(shas[0])
    desk.client.projects.delete(desk.project.id)
    again = ensure_project(desk.client, desk.settings, desk.taxonomy, desk.params)
    assert again.id != desk.project.id
    desk.project = again
    assert desk.collect().returned == 2
    assert desk.ask(shas) == 2
    assert [task["data"]["sha256"] for task in desk.tasks()] == shas[1:]
    assert (desk.state(shas[0]), desk.ledger.annotations_of(shas[0])) == ("labelled", before)


def test_a_frame_that_returned_and_has_a_task_after_all_gets_no_second_one(desk: Desk) -> None:
    """The setting named another project for a while; in the first one the tasks are still there."""
    shas = desk.draw(2)
    desk.ask(shas)
    first = desk.project
    settings = desk.settings.model_copy(update={"label_studio_project": f"{first.title} (2)"})
    desk.project = ensure_project(desk.client, settings, desk.taxonomy, desk.params)
    assert desk.collect().returned == 2
    desk.project = first
    assert desk.ask(shas) == 0
    assert len(desk.tasks()) == 2
    assert [desk.state(sha) for sha in shas] == ["tasked", "tasked"]


def test_a_clock_that_was_an_hour_ahead_loses_no_answer(desk: Desk, set_update_time: Any) -> None:
    """Neither a new one, nor a correction of one that was collected: both are dated before the odd hour."""
    shas = desk.draw(3)
    desk.ask(shas)
    desk.answer(shas[0], region())
    corrected = desk.answer(shas[1], region())
    set_update_time(desk.project.id, [desk.task(sha) for sha in shas], seconds_ago=-3600)
    assert desk.collect().labelled == 2
    desk.answer(shas[2], region())
    desk.client.annotations.update(corrected, result=[region(label="Shoe")])
    found = desk.collect()
    assert (found.boxes, found.labelled) == (2, 1)
    assert desk.ledger.annotations_of(shas[1])[0].boxes[0].label == "Shoe"


def test_a_cursor_that_is_yet_to_come_is_not_believed(desk: Desk, set_update_time: Any) -> None:
    """An odd clock of our own left it: everything is read again, once."""
    shas = desk.draw(2)
    desk.ask(shas)
    number = desk.answer(shas[0], region())
    set_update_time(desk.project.id, [desk.task(sha) for sha in shas], seconds_ago=-3600)
    desk.collect(now=lambda: datetime.now(UTC) + timedelta(hours=1))
    desk.client.annotations.update(number, result=[region(label="Shoe")])
    assert desk.collect().boxes == 1
    assert desk.collect().boxes == 0


def test_an_answer_that_the_cursor_passed_by_is_collected_all_the_same(
    desk: Desk, set_update_time: Any
) -> None:
    """Label Studio's clock went back by an hour: the answer is dated long before the cursor."""
    shas = desk.draw(2)
    desk.ask(shas)
    desk.answer(shas[0], region())
    desk.collect()
    desk.answer(shas[1], region())
    set_update_time(desk.project.id, [desk.task(shas[1])], seconds_ago=3600)
    assert desk.collect().labelled == 1


def known(desk: Desk, sha: str, number: int, installation: str = "") -> AnnotationRow:
    """An annotation as it was collected before, of a task that has another number."""
    row = AnnotationRow(
        installation=installation,
        annotation_id=number,
        task_id=10**6,
        sha256=sha,
        annotator="ann@example.org",
        labelled_at=NOON,
        outcome="boxes",
        boxes=(Box("Shoe", 1, 2, 30, 40),),
    )
    assert desk.ledger.record_annotations(sha, [row], finished=True).labelled
    return row


def test_a_new_installations_annotation_overwrites_no_other_frames(desk: Desk) -> None:
    """It counts from 1 again, and both answers are kept."""
    old, new = desk.draw(2)
    desk.ask([old, new])
    number = desk.answer(new, region())
    rows = [known(desk, old, number)]
    assert desk.collect().labelled == 1
    assert desk.ledger.annotations_of(old) == rows
    (row,) = desk.ledger.annotations_of(new)
    assert (row.installation, row.annotation_id) == (desk.project.installation, number)
    assert len(desk.ledger.labels_to_grow()) == 2


def test_an_annotation_of_another_frame_of_this_installation_is_refused(desk: Desk) -> None:
    """Label Studio was restored from a backup and gives the same numbers again: nothing is overwritten."""
    old, new = desk.draw(2)
    desk.ask([old, new])
    number = desk.answer(new, region())
    rows = [known(desk, old, number, desk.project.installation)]
    found = desk.collect()
    assert (found.labelled, found.refused, desk.state(new)) == (0, 1, "tasked")
    assert FOREIGN in found.refusals[0]
    assert f"task={desk.task(new)}" in found.refusals[0]
    assert FOREIGN in desk.tasks()[1]["data"]["feedback"]
    assert desk.ledger.annotations_of(old) == rows
    assert desk.collect().refused == 0  # it is said once
    desk.client.annotations.delete(number)
    desk.answer(new, region())
    assert desk.collect().labelled == 1


def test_annotations_of_an_older_ledger_are_known_again(desk: Desk) -> None:
    """They have no installation there; seen again they get theirs, and grow no second time."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    number = desk.answer(sha, region())
    desk.collect()
    with desk.ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE annotations SET installation = '', turn = 'turn-1'")
        connection.exec_driver_sql("DELETE FROM cursors")
    assert desk.collect().boxes == 0
    (row,) = desk.ledger.annotations_of(sha)
    assert (row.key, row.turn) == ((desk.project.installation, number), "turn-1")


def test_a_project_says_the_same_installation_every_time(desk: Desk) -> None:
    """However often it is set up, renamed or changed; another project says another."""
    again = ensure_project(desk.client, desk.settings, desk.taxonomy, desk.params)
    assert again.installation == desk.project.installation
    desk.client.projects.update(desk.project.id, description="changed by hand")
    again = ensure_project(desk.client, desk.settings, desk.taxonomy, desk.params)
    assert again.installation == desk.project.installation
    settings = desk.settings.model_copy(update={"label_studio_project": f"{again.title} (2)"})
    other = ensure_project(desk.client, settings, desk.taxonomy, desk.params)
    assert other.installation != desk.project.installation


def test_an_answer_given_before_its_task_vanished_counts_as_the_first_of_two(
    desk: Desk, people: tuple[int, ...]
) -> None:
    """The frame waits for one more, from somebody else."""
    (sha,) = desk.draw(1)
    twice = desk.params.model_copy(update={"double_share": 1.0})
    desk.ask([sha], twice)
    desk.answer(sha, region(), person=people[0])
    desk.collect(twice)
    desk.client.tasks.delete(str(desk.task(sha)))
    assert desk.collect(twice).returned == 1
    desk.ask([sha], twice)
    desk.answer(sha, region(x=11), person=people[1])
    assert desk.collect(twice).labelled == 1
    assert [row.outcome for row in desk.ledger.annotations_of(sha)] == ["boxes", "boxes"]


def test_a_refused_answer_goes_with_its_task(desk: Desk) -> None:
    """The new task is one that nobody has answered."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    desk.answer(sha, region(x=95))
    desk.collect()
    desk.client.tasks.delete(str(desk.task(sha)))
    desk.collect()
    desk.ask([sha])
    desk.collect()
    assert count_queue(desk.ledger).untouched == 1


def test_an_answer_deleted_after_it_has_grown_is_to_grow_as_no_label(desk: Desk) -> None:
    """Also where the frame was released: somebody has looked again."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    number = desk.answer(sha, region())
    desk.collect()
    with desk.ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE annotations SET turn = '00001-bins'")
        connection.exec_driver_sql("UPDATE frames SET turn = '00001-bins', state = 'released'")
    desk.client.annotations.delete(number)
    assert desk.collect().deleted == 1
    (label,) = desk.ledger.labels_to_grow()
    assert (label.sha256, label.newest) == (sha, None)
    desk.answer(sha, region(label="Shoe"))
    assert desk.collect().boxes == 1
    (label,) = desk.ledger.labels_to_grow()
    assert label.newest is not None
    assert label.newest.boxes[0].label == "Shoe"


@pytest.fixture
def fresh_label_studio(tmp_path: Path, s3_server: S3Server) -> Iterator[LabelStudioServer]:
    """A second installation, on a data folder of its own."""
    token, password = secrets.token_hex(20), secrets.token_hex(12)
    server = start_label_studio(
        tmp_path / "fresh", find_free_port(), token, "annotator@example.org", password, s3_server.url
    )
    yield LabelStudioServer(server, server.url, token, "annotator@example.org", password)
    server.stop()


@pytest.mark.slow
def test_label_studio_begun_anew_keeps_what_was_collected_and_is_asked_what_was_not(
    desk: Desk, fresh_label_studio: LabelStudioServer, people: tuple[int, ...]
) -> None:
    """A fresh data folder counts tasks and annotations from 1: each number stands for another frame."""
    shas = desk.draw(4)
    desk.ask(shas)
    desk.answer(shas[0], region())
    desk.collect()
    with desk.ledger.transaction() as connection:  # as if this installation had been young as well
        for number, sha in enumerate(shas, start=1):
            connection.exec_driver_sql(f"UPDATE frames SET task_id = {number} WHERE sha256 = '{sha}'")
        connection.exec_driver_sql("UPDATE annotations SET annotation_id = 1, task_id = 1")
    before = desk.ledger.annotations_of(shas[0])
    settings = desk.settings.model_copy(
        update={
            "label_studio_url": fresh_label_studio.url,
            "label_studio_token": type(desk.settings.label_studio_token)(fresh_label_studio.token),
        }
    )
    client = connect(settings)
    project = ensure_project(client, settings, desk.taxonomy, desk.params)
    fresh = replace(desk, client=client, settings=settings, project=project)
    assert fresh.collect().returned == 3
    assert fresh.ask(shas[:0:-1]) == 3  # task 1 shows the last frame
    assert [fresh.task(sha) for sha in shas[:0:-1]] == [1, 2, 3]
    assert fresh.answer(shas[3], region(label="Battery")) == 1
    assert fresh.collect().labelled == 1
    assert fresh.ledger.annotations_of(shas[0]) == before
    assert [row.boxes[0].label for row in fresh.ledger.annotations_of(shas[3])] == ["Battery"]


def test_a_deleted_task_starts_a_collection(desk: Desk) -> None:
    """The webhook notifies of it; the sweep would find it a quarter of an hour later."""
    hooks: list[Any] = list(desk.client.webhooks.list(project=desk.project.id))
    assert "TASKS_DELETED" in hooks[0].actions


def test_the_queue_is_read_in_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty waiting tasks are asked for in three requests, whatever the cursor says."""
    shas = fake_hashes(30)
    for sha in shas:
        desk.enter(sha)
    desk.ask(shas)
    desk.answer(shas[0], region())
    params = desk.params.model_copy(update={"page_size": 10, "cursor_overlap_seconds": 0.0})
    desk.collect(params)
    read: list[int] = []
    original: Callable[..., list[dict[str, Any]]] = desk.client.list_tasks

    def count(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        page = original(*args, **kwargs)
        read.append(len(page))
        return page

    monkeypatch.setattr(desk.client, "list_tasks", count)
    desk.collect(params)
    assert read == [1, 10, 10, 9]
