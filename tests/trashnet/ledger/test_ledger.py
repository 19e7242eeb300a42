"""The ledger, on SQLite and on a real PostgreSQL."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, text

import trashnet.ledger
from tests.trashnet.ledger.inspection import history
from trashnet.boxes import Box
from trashnet.errors import UserError
from trashnet.ledger import AnnotationRow, Fingerprint, FrameRow, Ledger, LedgerError, open_ledger
from trashnet.ledger.tables import metadata

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(number: int, **values: Any) -> FrameRow:
    """A received frame whose SHA-256 is its number."""
    sha = f"{number:064x}"
    given = {
        "uploaded_sha256": sha,
        "state": "received",
        "inbox_key": f"inbox/bin/{sha}.json",
        "bin_id": "bin01",
        "captured_at": NOON,
    } | values
    return FrameRow(sha256=sha, **given)


def fingerprint(number: int, phash: int, captured_at: datetime = NOON) -> Fingerprint:
    """What a received frame of that number is compared by."""
    return Fingerprint(f"{number:064x}", "bin01", captured_at, phash, b"")


def annotation(number: int, frame: FrameRow, **values: Any) -> AnnotationRow:
    """An annotation with one box."""
    given = {
        "task_id": 1,
        "annotator": "ann",
        "labelled_at": NOON,
        "outcome": "boxes",
        "boxes": (Box("Battery", 1, 2, 3, 4),),
    }
    return AnnotationRow(annotation_id=number, sha256=frame.sha256, **given | values)


def record(ledger: Ledger, *rows: AnnotationRow) -> None:
    """Record annotations of a frame that needs more of them."""
    ledger.record_annotations(rows[0].sha256, rows, finished=False)


def test_a_frame_comes_back_as_it_was_entered(ledger: Ledger) -> None:
    """Every column survives both databases, times with their zone and hashes with their leading zeros."""
    detections = (Box("Drink can", 0.5, 1.0, 20.0, 30.0, 0.25),)
    entered = row(
        7,
        phash="00ff00ff00ff00ff",
        descriptor=b"\x00\xff",
        detections=detections,
        width=320,
        height=240,
        bin_id="bin1",
        burst="b1",
    )
    assert ledger.add(entered)
    found = ledger.frame(entered.sha256)
    assert found is not None
    assert found.captured_at == NOON
    for name in (
        "phash",
        "descriptor",
        "detections",
        "width",
        "height",
        "bin_id",
        "burst",
        "state",
        "inbox_key",
    ):
        assert getattr(found, name) == getattr(entered, name), name


def test_a_frame_is_entered_once_whether_known_by_stored_or_uploaded_bytes(ledger: Ledger) -> None:
    """The second entry of the same SHA-256, of either kind, changes nothing and says so."""
    assert ledger.add(row(1, uploaded_sha256="a" * 64))
    assert not ledger.add(row(1, uploaded_sha256="b" * 64, state="quarantined"))
    assert not ledger.add(row(2, uploaded_sha256="a" * 64))
    assert ledger.count_by_state() == {"received": 1}
    assert len(history(ledger, row(1).sha256)) == 1


def test_a_transition_happens_once_and_is_written_down(ledger: Ledger) -> None:
    """Moving from a state the frame has left already does nothing: a step that is run again is harmless."""
    ledger.add(row(1))
    assert ledger.move(row(1).sha256, "received", "accepted", note="new")
    assert not ledger.move(row(1).sha256, "received", "duplicate")
    assert ledger.count_by_state() == {"accepted": 1}
    assert [(a, b) for a, b, _, _ in history(ledger, row(1).sha256)] == [
        (None, "received"),
        ("received", "accepted"),
    ]


def test_a_transition_and_its_columns_are_one_transaction(ledger: Ledger) -> None:
    """A column that cannot be written takes the state back with it."""
    ledger.add(row(1))
    with pytest.raises(Exception, match="no_such_column"):
        ledger.move(row(1).sha256, "received", "accepted", no_such_column=1)
    assert ledger.count_by_state() == {"received": 1}
    assert len(history(ledger, row(1).sha256)) == 1


def test_of_many_who_move_a_frame_one_succeeds(ledger: Ledger) -> None:
    """Eight threads race for the same transition; it happens once."""
    ledger.add(row(1))
    won: list[bool] = []
    racers = [
        threading.Thread(target=lambda: won.append(ledger.move(row(1).sha256, "received", "accepted")))
        for _ in range(8)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(won) == [False] * 7 + [True]


def test_of_many_who_enter_a_frame_one_succeeds(ledger: Ledger) -> None:
    """Eight threads enter the same frame at once; one row and one transition come of it."""
    won: list[bool] = []
    racers = [threading.Thread(target=lambda: won.append(ledger.add(row(1)))) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(won) == [False] * 7 + [True]
    assert len(history(ledger, row(1).sha256)) == 1


def test_received_frames_come_in_the_order_of_their_capture(ledger: Ledger) -> None:
    """Oldest first, ties by SHA-256, whatever order they were entered in."""
    for number, hours in ((3, 0), (1, 2), (2, 0)):
        ledger.add(row(number, captured_at=NOON + timedelta(hours=hours)))
    assert [int(found.sha256, 16) for found in ledger.next_received(9)] == [2, 3, 1]
    assert [int(found.sha256, 16) for found in ledger.next_received(2)] == [2, 3]


@pytest.mark.parametrize(
    ("flipped", "found"),
    [((), True), ((0,), True), ((0, 63), True), ((0, 17, 40), True), ((0, 17, 40, 60), False)],
    ids=["same", "1 bit", "2 bits", "3 bits in 3 bands", "4 bits in 4 bands"],
)
def test_near_hashes_are_found_up_to_three_bits_apart(
    ledger: Ledger, flipped: tuple[int, ...], found: bool
) -> None:
    """Of four bands at least one is equal when three bits differ (pigeonhole), so the index misses none of
    them.
    """
    base = 0x0123456789ABCDEF
    other = base
    for bit in flipped:
        other ^= 1 << bit
    ledger.add(row(1, phash=f"{other:016x}", state="accepted"))
    ledger.add(row(2, phash=None, state="accepted"))
    ledger.add(row(3, phash=f"{other:016x}"))  # received: nothing is known of it yet
    [near] = ledger.fingerprints_near([fingerprint(9, base)], 8)
    assert [(found.sha256, found.phash) for found in near] == ([(row(1).sha256, other)] if found else [])


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=3))
def test_near_finds_every_hash_within_its_distance(base: int, flipped: set[int]) -> None:
    """Whichever three bits flip, the frame is found."""
    ledger = open_ledger("sqlite://")
    other = base
    for bit in flipped:
        other ^= 1 << bit
    ledger.add(row(1, phash=f"{other:016x}", state="accepted"))
    [near] = ledger.fingerprints_near([fingerprint(9, base)], 1)
    assert len(near) == 1
    ledger.close()


def test_the_neighbours_in_time_of_the_same_bin_are_compared(ledger: Ledger) -> None:
    """Two captured last before a frame and two first after it, ties by SHA-256; another bin's are not."""
    known: dict[str, Any] = {"state": "accepted", "phash": f"{7:016x}"}
    for number, minutes in enumerate((0, 1, 2, 3, 3, 3, 4, 5)):
        ledger.add(row(number, captured_at=NOON + timedelta(minutes=minutes), **known))
    ledger.add(row(20, captured_at=NOON + timedelta(minutes=3), bin_id="bin02", **known))
    received = fingerprint(4, 7, NOON + timedelta(minutes=3))
    [near] = ledger.fingerprints_near([received], 2)
    assert sorted(int(found.sha256, 16) for found in near) == [2, 3, 5, 6]


def test_a_frame_leaves_and_enters_the_index_with_its_state(ledger: Ledger) -> None:
    """Only frames that others may re-encode are in it, however they became so."""
    near = fingerprint(9, 7)
    ledger.add(row(1, phash=f"{7:016x}"))
    assert ledger.fingerprints_near([near], 8) == [[]]
    for state, count in (("accepted", 1), ("tasked", 1), ("quarantined", 0), ("labelled", 1)):
        before = ledger.frame(row(1).sha256)
        assert before is not None
        assert ledger.move(row(1).sha256, before.state, state)  # type: ignore[arg-type]
        assert len(ledger.fingerprints_near([near], 8)[0]) == count


def test_an_answer_and_its_frame_move_together(ledger: Ledger) -> None:
    """Collecting writes the annotation and the state at once, and doing it again changes nothing."""
    frame = row(1, state="tasked", task_id=1)
    ledger.add(frame)
    recorded = ledger.record_annotations(frame.sha256, [annotation(5, frame)], finished=True)
    assert (recorded.changed, recorded.labelled) == ((annotation(5, frame),), True)
    recorded = ledger.record_annotations(frame.sha256, [annotation(5, frame)], finished=True)
    assert (recorded.changed, recorded.labelled) == ((), False)
    assert ledger.count_by_state() == {"labelled": 1}
    assert [label.keys for label in ledger.labels_to_grow()] == [(("", 5),)]


def test_an_answer_that_changed_grows_again_and_one_only_touched_does_not(ledger: Ledger) -> None:
    """New boxes take the annotation's turn back; the same boxes saved again do not."""
    frame = row(1, state="labelled", task_id=1)
    ledger.add(frame)
    record(ledger, annotation(5, frame))
    with ledger.transaction() as connection:
        connection.execute(text("UPDATE annotations SET turn = 'first'"))
    record(ledger, annotation(5, frame, labelled_at=NOON + timedelta(hours=1)))
    assert ledger.labels_to_grow() == []
    assert len(ledger.labels_to_grow("first")) == 1
    record(ledger, annotation(5, frame, labelled_at=NOON + timedelta(hours=2), boxes=()))
    assert [label.newest and label.newest.boxes for label in ledger.labels_to_grow()] == [()]


def test_the_newest_usable_answer_of_a_frame_grows_and_settles_the_older(ledger: Ledger) -> None:
    """Two people answered, one skipped and one drew a polygon: the newer of the two answers counts."""
    frame = row(1, state="labelled", task_id=1)
    ledger.add(frame)
    outcomes = enumerate(("boxes", "nothing", "skipped", "refused"), start=1)
    record(
        ledger,
        *(
            annotation(number, frame, outcome=outcome, labelled_at=NOON + timedelta(minutes=number))
            for number, outcome in outcomes
        ),
    )
    (labels,) = ledger.labels_to_grow()
    assert (labels.newest and labels.newest.annotation_id, labels.keys) == (2, (("", 1), ("", 2)))


def test_cursors_are_remembered_by_name(ledger: Ledger) -> None:
    """A reader finds where it was; a new one finds nothing."""
    assert ledger.cursor("answers") is None
    ledger.set_cursor("answers", "1")
    ledger.set_cursor("answers", "2")
    assert ledger.cursor("answers") == "2"


def test_the_migrations_make_exactly_the_tables_that_the_program_uses(ledger: Ledger) -> None:
    """Alembic finds no difference between the migrated database and the tables in the code."""
    with ledger.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_many_processes_may_open_a_new_ledger_at_once(url: str) -> None:
    """Eight openings race to migrate; all of them find a ledger that works."""
    faults: list[Exception] = []

    def open_one() -> None:
        try:
            open_ledger(url).close()
        except Exception as error:  # whatever it is, the test fails on it
            faults.append(error)

    racers = [threading.Thread(target=open_one) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert faults == []


def test_a_ledger_from_a_newer_program_is_refused(url: str) -> None:
    """Tables this program does not know are left alone, and the message says what to update."""
    ledger = open_ledger(url)
    with ledger.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ledger.close()
    with pytest.raises(UserError, match="another version"):
        open_ledger(url)


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path) -> None:
    """The transaction that found no room is rolled back whole; with room again the same step succeeds."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    ledger.add(row(1))
    limit = ["PRAGMA max_page_count = 1"]  # SQLite takes the present size instead, and then has no room

    def full(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute(limit[0])

    event.listen(ledger._engine, "checkout", full)
    with pytest.raises(UserError, match="full"):
        for number in range(2, 1000):
            ledger.add(row(number, note="x" * 2000))
    entered = sum(ledger.count_by_state().values())
    assert len(history(ledger, row(entered + 1).sha256)) == 0
    limit[0] = "PRAGMA max_page_count = 1000000"
    assert ledger.add(row(entered + 1, note="x" * 2000))
    assert ledger.count_by_state() == {"received": entered + 1}
    ledger.close()


def test_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """While somebody's transaction is open, counts are read at once, as they were before it."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    ledger.add(row(1))
    with ledger.transaction() as connection:
        connection.execute(text("UPDATE frames SET state = 'accepted'"))
        assert ledger.count_by_state() == {"received": 1}
    assert ledger.count_by_state() == {"accepted": 1}
    ledger.close()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("not a url", "TRASHNET_LEDGER_URL"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "does not answer"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_clear_line(bad: str, message: str) -> None:
    """A malformed address or a database that is down is named, without a traceback."""
    with pytest.raises(UserError, match=message) as caught:
        open_ledger(bad)
    assert "\n" not in str(caught.value).splitlines()[0]


DUMP = Path(__file__).parent / "ledger_0.1.sql"  # a ledger that version 0.1.0 wrote, dumped by SQLite
PARENTS_FIRST = ("frames", "transitions", "annotations", "cursors", "turns")


def restore_version_0_1(url: str) -> None:
    """Fill an empty database with the dump; PostgreSQL gets its rows, in tables of revision 0001."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.executescript(DUMP.read_text(encoding="utf-8"))
        return
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(trashnet.ledger.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        with closing(sqlite3.connect(":memory:")) as dumped:
            dumped.executescript(DUMP.read_text(encoding="utf-8"))
            for name in PARENTS_FIRST:
                for values in dumped.execute(f"SELECT * FROM {name}").fetchall():
                    marks = ", ".join(["%s"] * len(values))
                    connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({marks})", values)
    engine.dispose()


def test_a_ledger_of_version_0_1_opens_migrates_and_says_the_same(url: str) -> None:
    """Frames, boxes, annotations, turns and cursors are those that 0.1.0 wrote; one word is new."""
    restore_version_0_1(url)
    ledger = open_ledger(url)
    with ledger.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert ledger.count_by_state() == {
        "received": 1,
        "accepted": 2,
        "duplicate": 1,
        "quarantined": 1,
        "tasked": 1,
        "labelled": 1,
        "released": 1,
    }
    scored, drawn = ledger.frame(row(2).sha256), ledger.frame(row(3).sha256)
    assert scored is not None
    assert drawn is not None
    assert scored.detections == (Box("Drink can", 0.5, 1.0, 20.0, 30.0, 0.25),)
    assert scored.prediction == (Box("Paper cup", 1, 2, 3, 4, 0.9),)
    assert scored.explanation == "rare class: Paper cup 0.31"
    assert drawn.explanation == "exploration: chosen at random; nothing stands out"
    assert drawn.prediction == ()
    assert [(a.annotation_id, a.boxes) for a in ledger.annotations_of(row(7).sha256)] == [
        (1, (Box("Battery", 1.0, 2.0, 3.0, 4.0),))
    ]
    assert [labels.keys for labels in ledger.labels_to_grow("e" * 64)] == [(("", 1),)]
    assert ledger.unfinished_turn() is not None
    assert [turn.version for turn in ledger.finished_turns()] == ["data-00002"]
    assert ledger.count_queue() == {frozenset({"refused"}): 1}
    assert ledger.cursor("annotations/1") == "2026-11-20T12:00:00+00:00"
    assert [(old, new) for old, new, *_ in history(ledger, row(8).sha256)][-1] == ("labelled", "released")
    other = annotation(1, row(8), installation="another", outcome="nothing", boxes=())
    record(ledger, other)  # the key is that of both: an annotation 1 of another installation is another
    assert {a.key for a in ledger.annotations_of(row(8).sha256)} == {("", 2), ("another", 1)}
    assert [a.key for a in ledger.annotations_of(row(7).sha256)] == [("", 1)]
    ledger.close()


def test_a_ledger_of_an_older_program_is_named_where_it_may_not_be_migrated(tmp_path: Path) -> None:
    """`trashnet status` only reads: it says what brings the tables up to date, and changes nothing."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    ledger = open_ledger(url)
    with ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    ledger.close()
    with pytest.raises(LedgerError, match=r"tables are of version 0001.*`trashnet setup`"):
        open_ledger(url, migrate=False)
