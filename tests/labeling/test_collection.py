"""Annotations are collected: each once, validated, and again when it is edited."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labeling import TaskQueue, count_queue
from labeling.collection import DIFFERENT, WITHDRAWN
from tests.labeling.conftest import NO_WASTE_TAG, Desk, region
from tests.labeling.test_tasks import Crash, fake_hashes
from tests.trashnet.ledger.inspection import history
from trashnet.boxes import Box
from trashnet.ledger import annotations


def outcomes(desk: Desk, sha: str) -> list[tuple[str, str | None]]:
    """The outcome and reason of each annotation of a frame in the ledger."""
    return [(row.outcome, row.reason) for row in desk.ledger.annotations_of(sha)]


def test_an_annotation_with_boxes_labels_a_frame(desk: Desk) -> None:
    """The ledger holds the boxes in pixels, the annotator and the time, and the label is ready to grow."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    number = desk.answer(sha, region(), lead_time=12.5)
    found = desk.collect()
    assert (found.boxes, found.labelled, found.refused) == (1, 1, 0)
    assert desk.state(sha) == "labelled"
    (row,) = desk.ledger.annotations_of(sha)
    assert (row.annotation_id, row.task_id, row.outcome, row.turn) == (number, desk.task(sha), "boxes", None)
    assert row.boxes == (Box("Battery", 64, 64, 128, 128),)
    assert "@" in row.annotator
    assert row.seconds == 12.5
    assert abs(datetime.now(UTC) - row.labelled_at) < timedelta(minutes=5)
    assert [label.keys for label in desk.ledger.labels_to_grow()] == [(row.key,)]


def test_collecting_again_changes_nothing(desk: Desk) -> None:
    """An event may arrive twice."""
    shas = desk.draw(2)
    desk.ask(shas)
    desk.answer(shas[0], region())
    desk.answer(shas[1], region(x=90))
    desk.collect()
    before = [desk.ledger.annotations_of(sha) for sha in shas], [history(desk.ledger, sha) for sha in shas]
    for _ in range(2):
        found = desk.collect()
        assert (
            found.boxes,
            found.nothing,
            found.skipped,
            found.refused,
            found.labelled,
            found.refusals,
        ) == (0, 0, 0, 0, 0, ())
    assert (
        [desk.ledger.annotations_of(sha) for sha in shas],
        [history(desk.ledger, sha) for sha in shas],
    ) == before


def test_no_waste_here_labels_a_frame_without_boxes(desk: Desk) -> None:
    """An empty bin is a background frame of the dataset."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    desk.answer(sha, NO_WASTE_TAG)
    assert desk.collect().nothing == 1
    assert desk.state(sha) == "labelled"
    assert desk.ledger.annotations_of(sha)[0].boxes == ()


def test_a_skipped_frame_stays_tasked_for_somebody_else(desk: Desk, people: tuple[int, ...]) -> None:
    """It is labelled when another person annotates it."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    desk.answer(sha, person=people[0], was_cancelled=True)
    assert desk.collect().skipped == 1
    assert desk.state(sha) == "tasked"
    assert not desk.tasks()[0]["is_labeled"]
    desk.answer(sha, region(), person=people[1])
    assert desk.collect().labelled == 1
    assert desk.state(sha) == "labelled"


def test_a_refused_answer_gets_feedback_on_its_task_and_is_replaced_when_fixed(desk: Desk) -> None:
    """The frame stays tasked; the refusal names the address of the task."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    number = desk.answer(
        sha,
        region(
            type="polygonlabels", value={"points": [[1, 1], [2, 2], [3, 1]], "polygonlabels": ["Battery"]}
        ),
    )
    found = desk.collect()
    assert (found.refused, found.labelled, desk.state(sha)) == (1, 0, "tasked")
    assert found.refusals[0].startswith(
        f"{desk.settings.label_studio_url}/projects/{desk.project.id}/data?task={desk.task(sha)}: "
    )
    assert "polygon" in found.refusals[0]
    assert "polygon" in desk.tasks()[0]["data"]["feedback"]
    desk.client.annotations.update(number, result=[region()])
    found = desk.collect()
    assert (found.boxes, found.refused, found.labelled, desk.state(sha)) == (1, 0, 1, "labelled")
    assert outcomes(desk, sha) == [("boxes", None)]
    assert desk.tasks()[0]["data"]["feedback"] == ""


REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([region(value={**region()["value"], "rotation": 20})], "rotated"),
    ([region(label="Unicorn")], "not a class"),
    ([region(x=95)], "outside"),
    ([region(w=0.1)], "less than 2 pixels"),
    ([region(), NO_WASTE_TAG], "No waste here"),
    ([], "neither"),
]


def test_every_kind_of_invalid_answer_is_listed_and_none_stops_the_others(desk: Desk) -> None:
    """One valid answer among them is collected."""
    shas = desk.draw(len(REFUSED) + 1)
    desk.ask(shas)
    for sha, (result, _) in zip(shas, REFUSED, strict=False):
        desk.answer(sha, *result)
    desk.answer(shas[-1], region())
    found = desk.collect()
    assert (found.refused, found.boxes, found.labelled) == (len(REFUSED), 1, 1)
    for refusal, sha, (_, reason) in zip(found.refusals, shas, REFUSED, strict=False):
        assert f"task={desk.task(sha)}:" in refusal
        assert reason in refusal
    views = [
        view
        for view in desk.client.views.list(project=desk.project.id)
        if view.data["title"] == "Needs fixing"
    ]  # type: ignore[index, call-overload]
    shown = desk.client.tasks.list(view=views[0].id, project=desk.project.id)
    assert {task.id for task in shown} == {desk.task(sha) for sha in shas[:-1]}


def test_an_answer_edited_after_it_has_grown_grows_again(desk: Desk) -> None:
    """The newer label has to reach the dataset."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    number = desk.answer(sha, region())
    desk.collect()
    with desk.ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE annotations SET turn = 'turn-1'")
    assert desk.ledger.labels_to_grow() == []
    desk.collect()
    assert desk.ledger.labels_to_grow() == []
    desk.client.annotations.update(number, result=[region(label="Shoe")])
    assert desk.collect().boxes == 1
    (answer,) = desk.ledger.labels_to_grow()
    assert answer.newest is not None
    assert answer.newest.boxes[0].label == "Shoe"
    assert desk.state(sha) == "labelled"


def test_an_answer_deleted_before_it_has_grown_is_taken_back(desk: Desk) -> None:
    """Its frame is tasked again; the row stays and is marked as withdrawn."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    number = desk.answer(sha, region())
    desk.collect()
    desk.client.annotations.delete(number)
    desk.collect()
    assert outcomes(desk, sha) == [("deleted", WITHDRAWN)]
    assert desk.state(sha) == "tasked"
    assert desk.collect().refused == 0
    desk.answer(sha, NO_WASTE_TAG)
    desk.collect()
    assert desk.state(sha) == "labelled"


def test_the_queue_is_counted_by_what_each_frame_waits_for(desk: Desk, people: tuple[int, ...]) -> None:
    """``trashnet status`` shows a frame that people skipped apart from one that nobody has opened."""
    untouched, skipped, refused, second, done = shas = desk.draw(5)
    desk.ask(shas)
    desk.answer(skipped, was_cancelled=True)
    desk.answer(refused, region(x=95))
    desk.answer(done, region())
    desk.collect()
    desk.answer(second, region(), person=people[0])
    desk.collect(desk.params.model_copy(update={"double_share": 1.0}))
    assert desk.state(untouched) == "tasked"
    assert count_queue(desk.ledger) == TaskQueue(untouched=1, skipped=1, refused=1, second=1)


def test_many_answers_with_one_update_time_are_all_collected(desk: Desk, set_update_time: Any) -> None:
    """A page of results ends among them, and only their ids differ."""
    shas = fake_hashes(23)
    for sha in shas:
        desk.enter(sha)
    desk.ask(shas)
    for sha in shas:
        desk.answer(sha, region())
    set_update_time(desk.project.id, [desk.task(sha) for sha in shas[3:20]])
    found = desk.collect(desk.params.model_copy(update={"page_size": 5}))
    assert (found.boxes, found.labelled) == (23, 23)


def test_an_answer_saved_late_under_an_early_time_is_not_missed(desk: Desk, set_update_time: Any) -> None:
    """A transaction that began before the cursor's time may be committed after it."""
    shas = desk.draw(2)
    desk.ask(shas)
    desk.answer(shas[0], region())
    desk.collect()
    desk.answer(shas[1], region())
    set_update_time(desk.project.id, [desk.task(shas[1])], seconds_ago=30)
    assert desk.collect().boxes == 1


def test_a_crash_between_two_tasks_loses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor never moves past an annotation that the ledger does not hold."""
    shas = desk.draw(3)
    desk.ask(shas)
    for sha in shas:
        desk.answer(sha, region())
    original, calls = annotations._write, []

    def crash_at_the_second(*args: Any) -> bool:
        calls.append(args)
        if len(calls) == 2:
            raise Crash
        return original(*args)

    with monkeypatch.context() as patched:
        patched.setattr(annotations, "_write", crash_at_the_second)
        with pytest.raises(Crash):
            desk.collect()
    assert desk.ledger.count_by_state() == {"labelled": 1, "tasked": 2}
    assert desk.collect().labelled == 2


def test_an_answer_to_a_task_that_the_ledger_has_not_entered_yet_is_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request crashed after its import, and somebody answered before the next run."""
    (sha,) = desk.draw(1)
    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger, "mark_tasked", lambda *_: 0)
        desk.ask([sha])
    (task,) = desk.tasks()
    desk.client.annotations.create(task["id"], result=[region()])
    assert desk.collect().labelled == 1
    assert (desk.state(sha), desk.task(sha)) == ("labelled", task["id"])


def test_tasks_that_are_not_ours_are_left_alone(desk: Desk) -> None:
    """People may add tasks of their own to the project."""
    data = {"sha256": "f" * 64, "image": "s3://x/y", "feedback": "", "why": ""}
    made = desk.client.projects.import_tasks(
        desk.project.id, request=[{"data": data}, {"data": data | {"sha256": 5}}], return_task_ids=True
    )
    desk.client.annotations.create(made.task_ids[0], result=[region()])  # type: ignore[union-attr]
    assert desk.collect().boxes == 0


def test_of_two_answers_that_agree_the_newest_counts(desk: Desk, people: tuple[int, ...]) -> None:
    """The frame stays tasked until the second answer, and its task stays open."""
    (sha,) = desk.draw(1)
    twice = desk.params.model_copy(update={"double_share": 1.0})
    desk.ask([sha], twice)
    desk.answer(sha, region(), person=people[0])
    found = desk.collect(twice)
    assert (found.boxes, found.labelled, desk.state(sha)) == (1, 0, "tasked")
    (task,) = desk.tasks()
    assert (task["overlap"], task["is_labeled"]) == (2, False)
    second = desk.answer(sha, region(x=11), person=people[1])
    assert desk.collect(twice).labelled == 1
    (answer,) = desk.ledger.labels_to_grow()
    assert answer.newest is not None
    assert answer.newest.annotation_id == second
    assert len(answer.keys) == 2
    assert desk.tasks()[0]["is_labeled"]


def test_two_answers_of_one_person_count_as_one(desk: Desk, people: tuple[int, ...]) -> None:
    """A second answer must come from another person."""
    (sha,) = desk.draw(1)
    twice = desk.params.model_copy(update={"double_share": 1.0})
    desk.ask([sha], twice)
    for _ in range(2):
        desk.answer(sha, region(), person=people[0])
    assert desk.collect(twice).labelled == 0


def test_two_answers_that_differ_need_a_third_which_counts(desk: Desk, people: tuple[int, ...]) -> None:
    """The task gets feedback and is open again."""
    (sha,) = desk.draw(1)
    twice = desk.params.model_copy(update={"double_share": 1.0})
    desk.ask([sha], twice)
    desk.answer(sha, region(), person=people[0])
    desk.answer(sha, region(label="Shoe"), person=people[1])
    assert desk.collect(twice).labelled == 0
    (task,) = desk.tasks()
    assert (task["overlap"], task["is_labeled"], task["data"]["feedback"]) == (3, False, DIFFERENT)
    third = desk.answer(sha, region(), person=people[2])
    assert desk.collect(twice).labelled == 1
    (answer,) = desk.ledger.labels_to_grow()
    assert answer.newest is not None
    assert answer.newest.annotation_id == third
    assert desk.tasks()[0]["data"]["feedback"] == ""


def test_the_first_answer_counts_if_no_second_comes_in_time(desk: Desk, people: tuple[int, ...]) -> None:
    """The time is ``double_days``; it passes although nothing changes in Label Studio."""
    (sha,) = desk.draw(1)
    twice = desk.params.model_copy(update={"double_share": 1.0, "double_days": 7.0})
    desk.ask([sha], twice)
    desk.answer(sha, region(), person=people[0])
    desk.collect(twice)
    assert desk.collect(twice, lambda: datetime.now(UTC) + timedelta(days=6.9)).labelled == 0
    assert desk.collect(twice, lambda: datetime.now(UTC) + timedelta(days=7.1)).labelled == 1
    assert desk.state(sha) == "labelled"
