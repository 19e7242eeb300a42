"""What each query of the ledger answers and writes, on SQLite and on a real PostgreSQL."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.trashnet.ledger.inspection import history
from trashnet.boxes import Box
from trashnet.ledger import (
    EXPLORATION,
    AnnotationRow,
    Duplicate,
    Fingerprint,
    FrameRow,
    FrameScore,
    Ledger,
    LedgerError,
    Outcome,
    RecordedAnnotations,
    ScoredFrame,
    State,
    TurnRow,
    UnscoredFrame,
    Upserted,
    open_ledger,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOE = (Box("Shoe", 1, 2, 3, 4, score=0.5),)


def sha(number: int) -> str:
    """The SHA-256 of a frame."""
    return f"{number:064x}"


def add(ledger: Ledger, number: int, state: State, **values: Any) -> FrameRow:
    """Enter a frame in this state."""
    known: dict[str, Any] = {"uploaded_sha256": sha(number), "key": f"frames/{sha(number)}.jpg"}
    row = FrameRow(sha256=sha(number), state=state, inbox_key=f"inbox/{number}.json", **(known | values))
    assert ledger.add(row)
    return row


def annotate(
    ledger: Ledger,
    number: int,
    frame: int,
    *,
    annotator: str = "ada",
    outcome: Outcome = "boxes",
    minutes: int = 0,
    finished: bool = False,
    installation: str = "",
) -> AnnotationRow:
    """Record one annotation of a frame, made so many minutes after noon."""
    row = AnnotationRow(
        installation=installation,
        annotation_id=number,
        task_id=frame,
        sha256=sha(frame),
        annotator=annotator,
        labelled_at=NOON + timedelta(minutes=minutes),
        outcome=outcome,
        boxes=(Box("Shoe", 1, 2, 3, 4),) if outcome == "boxes" else (),
    )
    ledger.record_annotations(sha(frame), [row], finished=finished)
    return row


def test_a_frame_is_found_by_its_stored_and_by_its_uploaded_bytes(ledger: Ledger) -> None:
    """Uploads that the ledger has are known by either bytes, however many are asked about at once."""
    add(ledger, 1, "received", uploaded_sha256=sha(11))
    found = ledger.frame_by_upload(sha(11))
    assert found is not None
    assert found.sha256 == sha(1)
    assert ledger.frame_by_upload(sha(1)) is None
    assert ledger.frame(sha(11)) is None
    assert ledger.known_uploads(sha(number) for number in range(2000)) == {sha(1), sha(11)}


def test_frames_are_counted_by_state(ledger: Ledger) -> None:
    """A state without frames is 0 on its own and missing among all."""
    for number, state in enumerate(("received", "tasked", "tasked")):
        add(ledger, number, state)
    assert ledger.count_by_state() == {"received": 1, "tasked": 2}
    assert (ledger.count_in_state("tasked"), ledger.count_in_state("released")) == (2, 0)


def upload(number: int, **values: Any) -> FrameRow:
    """A received frame as reception enters it."""
    known: dict[str, Any] = {"uploaded_sha256": sha(number), "captured_at": NOON, "key": f"key {number}"}
    return FrameRow(sha256=sha(number), state="received", inbox_key="inbox/a", **(known | values))


def test_new_uploads_are_entered_and_known_ones_are_found(ledger: Ledger) -> None:
    """The results are in the order of the rows, with the key under which the frame is stored."""
    assert ledger.upsert_uploads([]) == []
    assert ledger.upsert_uploads([upload(2), upload(1)]) == [Upserted(True, "key 2"), Upserted(True, "key 1")]
    again = ledger.upsert_uploads([upload(3), upload(1, key="elsewhere")])
    assert again == [Upserted(True, "key 3"), Upserted(False, "key 1", new_bytes=False)]
    assert ledger.count_by_state() == {"received": 3}
    assert [len(history(ledger, sha(number))) for number in (1, 2, 3)] == [1, 1, 1]


def test_the_earliest_upload_of_a_picture_decides_its_sidecar(ledger: Ledger) -> None:
    """An earlier capture replaces bin and detections, but only as long as the frame is received."""
    ledger.upsert_uploads([upload(1, bin_id="first")])
    earlier = upload(1, bin_id="earlier", captured_at=NOON - timedelta(hours=1), detections=SHOE)
    ledger.upsert_uploads([earlier])
    ledger.upsert_uploads([upload(1, bin_id="later", captured_at=NOON + timedelta(hours=1))])
    ledger.move(sha(1), "received", "accepted")
    ledger.upsert_uploads([upload(1, bin_id="too late", captured_at=NOON - timedelta(hours=2))])
    frame = ledger.frame(sha(1))
    assert frame is not None
    assert (frame.bin_id, frame.detections) == ("earlier", SHOE)


def test_the_same_picture_with_other_metadata_is_remembered_as_a_duplicate(ledger: Ledger) -> None:
    """Its row has no object of its own and names the frame that has."""
    ledger.upsert_uploads([upload(1)])
    assert ledger.upsert_uploads([upload(1, uploaded_sha256=sha(9))]) == [Upserted(False, "key 1")]
    row = ledger.frame_by_upload(sha(9))
    assert row is not None
    assert (row.state, row.duplicate_of, row.key) == ("duplicate", sha(1), None)


def test_received_frames_come_oldest_first_and_verdicts_move_them(ledger: Ledger) -> None:
    """A verdict is recorded once; the object's new key and the original are in the duplicate's row."""
    add(ledger, 1, "received", captured_at=NOON, phash="00ff00ff00ff00ff", descriptor=b"\x01")
    add(ledger, 2, "received", captured_at=NOON - timedelta(minutes=1))
    early = Fingerprint(sha(2), None, NOON - timedelta(minutes=1), None, b"")
    received = [early, Fingerprint(sha(1), None, NOON, 0x00FF00FF00FF00FF, b"\x01")]
    assert ledger.next_received(9) == received
    assert ledger.next_received(1) == received[:1]
    verdicts = {sha(2): None, sha(1): Duplicate(sha(2), "quarantine/duplicate/1.jpg")}
    with ledger.lock("deduplication") as lock:
        assert ledger.record_verdicts(verdicts, lock) == 1
        (noted,) = ledger.next_received(9)
        assert (noted.sha256, noted.duplicate_of) == (sha(1), sha(2))
        duplicates = {sha(1): Duplicate(sha(2), "quarantine/duplicate/1.jpg")}
        assert ledger.record_duplicates(duplicates, lock) == 1
        assert (ledger.record_verdicts(verdicts, lock), ledger.record_duplicates(duplicates, lock)) == (0, 0)
    duplicate = ledger.frame(sha(1))
    assert duplicate is not None
    assert (duplicate.key, duplicate.duplicate_of) == ("quarantine/duplicate/1.jpg", sha(2))
    assert (duplicate.quarantine_reason, ledger.next_received(9)) == ("duplicate", [])


def test_only_frames_that_are_no_duplicates_are_near(ledger: Ledger) -> None:
    """A hash is compared with accepted frames and what became of them, and each hash has its own list."""
    states: tuple[State, ...] = (
        "received",
        "accepted",
        "duplicate",
        "quarantined",
        "tasked",
        "labelled",
        "released",
    )
    for number, state in enumerate(states):
        add(ledger, number, state, phash=f"{1 << number:016x}", captured_at=NOON, bin_id="bin01")
    asked = [Fingerprint(sha(9), "bin01", NOON, phash, b"") for phash in (0, 2**64 - 1)]
    near = ledger.fingerprints_near([*asked, Fingerprint(sha(8), "bin01", NOON, None, b"")], 8)
    assert sorted(found.sha256 for found in near[0]) == [sha(number) for number in (1, 4, 5, 6)]
    assert near[1:] == [[], []]


def score(number: int, value: float, model: str = "t1") -> FrameScore:
    """A score of a frame."""
    return FrameScore(sha256=sha(number), score=value, explanation="why", prediction=SHOE, model=model)


def test_frames_are_unscored_until_this_model_has_scored_them(ledger: Ledger) -> None:
    """Those that one model scored can be asked for again; only accepted frames are given scores."""
    for number in (1, 2, 3):
        add(ledger, number, "accepted", release="r1", detections=SHOE, width=4, height=3)
    add(ledger, 4, "tasked")
    unscored = {UnscoredFrame(sha(n), f"frames/{sha(n)}.jpg", "r1", SHOE, 4, 3, None) for n in (1, 2, 3)}
    assert set(ledger.unscored(9)) == unscored
    assert {frame.pixels for frame in unscored} == {12}
    assert len(ledger.unscored(2)) == 2
    assert ledger.save_scores([score(1, 0.5), score(4, 0.9)]) == 1
    assert {frame.sha256 for frame in ledger.unscored(9, "t1")} == {sha(2), sha(3)}
    assert ledger.save_scores([score(2, 0.5), score(3, 0.5)]) == 2
    assert ledger.unscored(9) == ledger.unscored(9, "s1") == []
    assert len(ledger.unscored(9, "t1")) == 3
    known = ledger.accepted_frames([sha(3), sha(4), sha(1), sha(9)])
    assert [(frame.sha256, frame.model) for frame in known] == [(sha(3), "t1"), (sha(1), "t1")]
    frame = ledger.frame(sha(1))
    assert frame is not None
    assert (frame.score, frame.explanation, frame.prediction, frame.model) == (0.5, "why", SHOE, "t1")


def test_a_score_without_a_teacher_has_no_prediction(ledger: Ledger) -> None:
    """No boxes of a teacher are something else than a teacher who saw nothing."""
    for number, prediction in ((1, None), (2, ())):
        add(ledger, number, "accepted")
        ledger.save_scores([FrameScore(sha(number), 0.5, "why", prediction, "none")])
    rows = [ledger.frame(sha(number)) for number in (1, 2)]
    assert [row.prediction for row in rows if row] == [None, ()]


def test_frames_whose_objects_are_gone_are_quarantined(ledger: Ledger) -> None:
    """The note names the key that was empty; a frame that is not accepted stays."""
    add(ledger, 1, "accepted")
    add(ledger, 2, "labelled")
    ledger.quarantine_missing([sha(1), sha(2)])
    row = ledger.frame(sha(1))
    assert row is not None
    assert (row.state, row.quarantine_reason, row.key) == ("quarantined", "lost", None)
    assert history(ledger, sha(1))[-1][3] == f"frames/{sha(1)}.jpg is gone"
    assert ledger.count_by_state() == {"quarantined": 1, "labelled": 1}


def test_the_best_scored_frames_come_first(ledger: Ledger) -> None:
    """Only accepted ones with a score, of each bin so many; ties by the greater SHA-256."""
    for number, value in ((1, 0.25), (2, 0.75), (3, 0.25)):
        add(
            ledger,
            number,
            "accepted",
            score=value,
            bin_id="bin1",
            burst="x" if number == 1 else None,
            model="t1",
        )
    add(ledger, 4, "accepted", bin_id="bin1")
    add(ledger, 5, "tasked", score=1.0, bin_id="bin1")
    add(ledger, 6, "accepted", score=0.5)
    add(ledger, 7, "accepted", score=0.5, bin_id="bin2")
    assert ledger.best_scored(["bin1"], 9) == [
        ScoredFrame(sha(2), 0.75, None, bytes(192), "bin1", "t1"),
        ScoredFrame(sha(3), 0.25, None, bytes(192), "bin1", "t1"),
        ScoredFrame(sha(1), 0.25, ("bin1", "x"), bytes(192), "bin1", "t1"),
    ]
    assert [f.sha256 for f in ledger.best_scored([None, "bin1", "bin2"], 2)] == [sha(n) for n in (2, 7, 6, 3)]
    assert ledger.best_scored([], 9) == ledger.best_scored(["bin3"], 9) == []


def test_bins_with_accepted_frames_are_found_and_counted(ledger: Ledger) -> None:
    """Each once, in order; frames of no bin are `None`'s."""
    assert ledger.waiting_bins() == []
    for number, bin_id in enumerate(["b", "a", "b", None, "c"]):
        add(ledger, number, "accepted" if bin_id != "c" else "tasked", bin_id=bin_id)
    assert ledger.waiting_bins() == [None, "a", "b"]
    assert ledger.count_accepted_per_bin(["b", "c", None], 9) == {"b": 2, "c": 0, None: 1}
    assert ledger.count_accepted_per_bin(["b"], 1) == {"b": 1}
    assert ledger.bins_of([sha(1), sha(3), sha(9)]) == {sha(1): "a", sha(3): None}


def test_what_bins_have_of_a_turn_is_counted(ledger: Ledger) -> None:
    """Tasked frames, and labelled ones until a turn of the dataset holds them."""
    states: tuple[State, ...] = ("accepted", "tasked", "tasked", "labelled", "labelled", "released")
    for number, state in enumerate(states):
        add(ledger, number, state, bin_id=f"bin{number % 2}", turn="00002-bins" if number > 3 else None)
    assert ledger.count_asked_per_bin() == {"bin0": 1, "bin1": 2}


def test_the_mark_of_a_frame_drawn_at_random_outlasts_its_next_score(ledger: Ledger) -> None:
    """Another score explains itself behind the mark."""
    add(ledger, 1, "accepted")
    ledger.record_selection({sha(1): "exploration"})
    ledger.save_scores([score(1, 0.5)])
    row = ledger.frame(sha(1))
    assert row is not None
    assert row.explanation == f"{EXPLORATION}; why"


def test_the_frames_of_a_burst_that_people_see_or_saw_are_counted(ledger: Ledger) -> None:
    """Accepted ones are not, and the same burst name of another bin is another burst."""
    states: tuple[State, ...] = ("accepted", "tasked", "labelled", "released")
    for number, state in enumerate(states):
        add(ledger, number, state, bin_id="bin1", burst="x")
    add(ledger, 8, "tasked", bin_id="bin2", burst="x")
    add(ledger, 9, "accepted", bin_id="bin3", burst="y")
    assert ledger.count_asked_per_burst([("bin1", "x"), ("bin3", "y")]) == Counter({("bin1", "x"): 3})
    assert ledger.count_asked_per_burst([]) == Counter()


def test_accepted_frames_are_drawn_at_random_and_marked_once(ledger: Ledger) -> None:
    """The same seed draws the same frames, never one twice; a mark keeps the explanation behind it."""
    for number in range(40):
        add(ledger, number, "accepted", explanation="why" if number % 2 else None)
    add(ledger, 99, "tasked")
    drawn = ledger.sample_accepted(10, seed=1)
    assert len(set(drawn)) == 10
    assert ledger.sample_accepted(10, seed=1) == drawn
    assert set(ledger.sample_accepted(99, seed=1)) == {sha(number) for number in range(40)}
    ledger.record_selection({sha(1): "exploration", sha(2): "held_out"})
    ledger.record_selection({sha(1): "exploration"})
    explanations = [row.explanation for number in (1, 2, 3) if (row := ledger.frame(sha(number)))]
    assert explanations == [f"{EXPLORATION}; why", f"{EXPLORATION}; ", "why"]


def test_accepted_frames_become_tasked_with_their_tasks(ledger: Ledger) -> None:
    """A frame that is past `accepted` keeps its task."""
    add(ledger, 1, "accepted")
    add(ledger, 2, "tasked", task_id=7)
    assert ledger.mark_tasked({sha(1): 70, sha(2): 71}) == 1
    rows = [ledger.frame(sha(number)) for number in (1, 2)]
    assert [(row.state, row.task_id) for row in rows if row] == [("tasked", 70), ("tasked", 7)]


def test_a_frame_whose_annotations_were_all_taken_back_is_tasked_again(ledger: Ledger) -> None:
    """Unless a turn of the dataset holds it: then its old labels stay."""
    for number, turn in ((1, None), (2, "00001-bins")):
        add(ledger, number, "tasked", turn=turn)
        annotate(ledger, number, number, finished=True)
        annotate(ledger, number, number, outcome="refused", minutes=1)
    rows = [ledger.frame(sha(number)) for number in (1, 2)]
    assert [row.state for row in rows if row] == ["tasked", "labelled"]
    assert history(ledger, sha(1))[-1][:2] == ("labelled", "tasked")


def test_recording_says_what_is_new_to_the_ledger(ledger: Ledger) -> None:
    """A new annotation and one with another outcome are; the same one saved again is not."""
    add(ledger, 1, "tasked")
    first = annotate(ledger, 1, 1)
    second = AnnotationRow(
        annotation_id=2, task_id=1, sha256=sha(1), annotator="ben", labelled_at=NOON, outcome="skipped"
    )
    assert ledger.record_annotations(sha(1), [first, second], finished=True, note="task 1") == (
        RecordedAnnotations(changed=(second,), labelled=True)
    )
    assert ledger.annotations_of(sha(1)) == [first, second]
    assert history(ledger, sha(1))[-1][3] == "task 1"


def test_tasked_frames_with_an_old_usable_annotation_wait_for_a_second(ledger: Ledger) -> None:
    """A skipped one counts for nothing, neither does one that is newer, nor a frame that is labelled."""
    outcomes: tuple[Outcome, ...] = ("boxes", "nothing", "skipped", "boxes", "boxes")
    for number, outcome in enumerate(outcomes):
        add(ledger, number, "labelled" if number == 4 else "tasked")
        annotate(ledger, number, number, outcome=outcome, minutes=10 if number == 3 else 0)
    waiting = ledger.frames_awaiting_second_annotation(NOON)
    assert sorted(waiting) == [sha(0), sha(1)]


def test_the_queue_is_counted_by_outcomes(ledger: Ledger) -> None:
    """Tasked frames only; one without annotations has the empty set."""
    for number in range(4):
        add(ledger, number, "tasked" if number < 3 else "labelled")
    annotate(ledger, 1, 1, outcome="skipped")
    annotate(ledger, 2, 1, annotator="ben")
    annotate(ledger, 3, 3)
    assert ledger.count_queue() == {frozenset(): 2, frozenset({"skipped", "boxes"}): 1}


def test_annotations_of_several_people_are_the_newest_usable_of_each(ledger: Ledger) -> None:
    """A frame that one person annotated twice, or whose second person skipped it, has only one."""
    for number in (1, 2, 3):
        add(ledger, number, "tasked")
    annotate(ledger, 1, 1)
    newest = annotate(ledger, 2, 1, minutes=5)
    other = annotate(ledger, 3, 1, annotator="ben", outcome="nothing", minutes=1)
    annotate(ledger, 4, 2)
    annotate(ledger, 5, 2, minutes=1)
    annotate(ledger, 6, 3)
    annotate(ledger, 7, 3, annotator="ben", outcome="skipped")
    (pair,) = ledger.annotations_by_several_people()
    assert sorted(pair, key=lambda row: row.annotator) == [newest, other]


def test_labels_that_no_turn_holds_are_to_grow(ledger: Ledger) -> None:
    """Of labelled and released frames, by SHA-256; a frame that is tasked still waits for somebody."""
    states: tuple[State, ...] = ("released", "labelled", "tasked", "labelled")
    for number, state in enumerate(states):
        add(ledger, number, state)
        annotate(ledger, number, number, outcome="skipped" if number == 3 else "boxes")
    assert [labels.sha256 for labels in ledger.labels_to_grow()] == [sha(0), sha(1)]
    assert ledger.count_labels_to_grow() == 2


def turn_row(letter: str, minutes: int = 0) -> TurnRow:
    """A planned turn."""
    started = NOON + timedelta(minutes=minutes)
    return TurnRow(digest=letter * 64, state="planned", started_at=started, frames=1, boxes=1)


def test_a_turn_is_planned_finished_and_trained_on(ledger: Ledger) -> None:
    """Its labels grow no more, and its frames are released once a model was trained on them."""
    for number in (1, 2):
        add(ledger, number, "tasked")
        annotate(ledger, number, number, finished=True)
    plan = turn_row("a")
    ledger.plan_turn(plan, [("", 1)])
    assert ledger.unfinished_turn() == plan
    assert [labels.keys for labels in ledger.labels_to_grow(plan.digest)] == [(("", 1),)]
    assert [labels.keys for labels in ledger.labels_to_grow()] == [(("", 2),)]
    assert (ledger.count_untrained_frames(), ledger.finished_turns()) == (0, [])
    ledger.finish_turn(plan.digest, turn="00001-bins", version="data-00001")
    assert ledger.unfinished_turn() is None
    assert [(turn.name, turn.version) for turn in ledger.finished_turns()] == [("00001-bins", "data-00001")]
    assert ledger.count_untrained_frames() == 1
    assert ledger.mark_trained(["00000-import", "00001-bins"]) == 1
    assert (ledger.mark_trained(["00001-bins"]), ledger.count_untrained_frames()) == (0, 0)
    assert ledger.count_by_state() == {"released": 1, "labelled": 1}


def test_a_turn_that_came_to_nothing_gives_its_annotations_back(ledger: Ledger) -> None:
    """It is no turn of the dataset; of two unfinished plans the older is finished first."""
    add(ledger, 1, "tasked")
    annotate(ledger, 1, 1, finished=True)
    ledger.plan_turn(turn_row("b", minutes=1), [])
    ledger.plan_turn(turn_row("a"), [("", 1)])
    assert ledger.unfinished_turn() == turn_row("a")
    ledger.finish_turn("a" * 64, turn=None, version=None)
    assert ledger.finished_turns() == []
    assert ledger.count_labels_to_grow() == 1
    assert ledger.unfinished_turn() == turn_row("b", minutes=1)


def test_a_ledger_that_may_not_be_made_is_not_made(url: str) -> None:
    """An empty database stays empty, and the message names the command that makes a ledger."""
    with pytest.raises(LedgerError, match="trashnet setup"):
        open_ledger(url, migrate=False)
    open_ledger(url).close()
    ledger = open_ledger(url, migrate=False)
    assert ledger.count_by_state() == {}
    ledger.close()


def test_an_annotation_is_known_by_its_installation_and_its_number(ledger: Ledger) -> None:
    """Two installations both have an annotation 1; a frame's is not overwritten by another frame's."""
    for number in (1, 2):
        add(ledger, number, "tasked")
    first = annotate(ledger, 1, 1, installation="a", finished=True)
    second = annotate(ledger, 1, 2, installation="b", outcome="nothing", finished=True)
    assert ledger.annotations_of(sha(1)) == [first]
    assert ledger.annotations_of(sha(2)) == [second]
    assert ledger.frames_of_annotations("a", [1, 2]) == {1: sha(1)}
    with pytest.raises(LedgerError, match=sha(1)):
        annotate(ledger, 1, 2, installation="a")
    assert ledger.annotations_of(sha(1)) == [first]
    ledger.plan_turn(turn_row("a"), [("a", 1)])
    assert [label.keys for label in ledger.labels_to_grow()] == [(("b", 1),)]


def test_an_annotation_without_an_installation_gets_one_when_it_is_seen_again(ledger: Ledger) -> None:
    """Of its own frame and task alone; and it stays in its turn."""
    add(ledger, 1, "tasked")
    add(ledger, 2, "tasked")
    annotate(ledger, 1, 1, finished=True)
    ledger.plan_turn(turn_row("a"), [("", 1)])
    again = annotate(ledger, 1, 1, installation="a")
    assert ledger.annotations_of(sha(1)) == [replace(again, turn="a" * 64)]
    annotate(ledger, 1, 2, installation="b")
    assert [row.key for row in ledger.annotations_of(sha(2))] == [("b", 1)]


def test_a_frame_whose_task_is_gone_is_accepted_again(ledger: Ledger) -> None:
    """Its usable answer stays, without a task; the others are gone. Another task is none of ours."""
    add(ledger, 1, "tasked", task_id=7)
    annotate(ledger, 1, 1)
    annotate(ledger, 2, 1, outcome="refused", minutes=1)
    assert not ledger.return_to_accepted(sha(1), 8)
    assert ledger.return_to_accepted(sha(1), 7)
    assert not ledger.return_to_accepted(sha(1), 7)
    assert [(row.outcome, row.task_id) for row in ledger.annotations_of(sha(1))] == [
        ("boxes", 0),
        ("deleted", 0),
    ]
    assert ledger.tasked_frames() == []


def test_a_frame_that_is_set_aside_leaves_the_plan_until_it_is_let_in(ledger: Ledger) -> None:
    """Those checked longest ago are checked first."""
    for number in (1, 2):
        add(ledger, number, "tasked")
        annotate(ledger, number, number, finished=True)
    ledger.plan_turn(turn_row("a"), [("", 1), ("", 2)])
    ledger.set_aside("a" * 64, {sha(1): "no object"})
    assert [label.sha256 for label in ledger.labels_to_grow("a" * 64)] == [sha(2)]
    assert (ledger.count_labels_to_grow(), ledger.count_set_aside()) == (0, 1)
    assert [(frame.sha256, frame.reason) for frame in ledger.frames_set_aside(5)] == [(sha(1), "no object")]
    ledger.set_aside("a" * 64, {sha(2): "other bytes"})
    ledger.recheck({sha(1): "still no object"})
    assert [label.sha256 for label in ledger.labels_set_aside(1)] == [sha(2)]
    ledger.recheck({sha(1): None})
    assert [label.keys for label in ledger.labels_to_grow()] == [(("", 1),)]


def test_a_label_deleted_while_its_turn_is_made_leaves_the_dataset_with_the_next(ledger: Ledger) -> None:
    """The run may have appended it before it died: only the log knows."""
    add(ledger, 1, "tasked")
    row = annotate(ledger, 1, 1, finished=True)
    ledger.plan_turn(turn_row("a"), [("", 1)])
    ledger.record_annotations(sha(1), [replace(row, outcome="deleted", boxes=())], finished=False)
    assert ledger.labels_to_grow("a" * 64) == []
    ledger.finish_turn("a" * 64, turn=None, version=None)
    (label,) = ledger.labels_to_grow()
    assert (label.sha256, label.newest) == (sha(1), None)
    ledger.plan_turn(turn_row("b"), label.keys)
    ledger.finish_turn("b" * 64, turn="00002-bins", version="data-00002", unlabelled=[sha(1)])
    assert ledger.count_by_state() == {"tasked": 1}
    assert (ledger.labels_to_grow(), ledger.count_untrained_frames()) == ([], 1)
    ledger.mark_trained(["00002-bins"])
    assert ledger.count_untrained_frames() == 0
