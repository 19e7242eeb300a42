"""No query of the ledger reads a whole table: the plans that SQLite and PostgreSQL make on 100,000 frames."""

import inspect
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event

from benchmarks.support.postgres import new_database
from trashnet.ledger import Fingerprint, Ledger, open_ledger
from trashnet.ledger.frames import hash_bands
from trashnet.ledger.rows import UNIQUE_STATES
from trashnet.ledger.tables import annotations, frames, set_aside, transitions, turns

pytestmark = pytest.mark.heavy

FRAMES = 100_000
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATES = ["released"] * 80 + ["duplicate"] * 8 + ["accepted"] * 8 + ["labelled"] * 2 + ["tasked", "received"]
SHA = f"{5:064x}"
STILL = Fingerprint(SHA, "bin5", NOON, 0x0123456789ABCDEF, b"")

# Every reading verb with arguments that find something.
READS: dict[str, Callable[[Ledger], Any]] = {
    "frame": lambda ledger: ledger.frame(SHA),
    "frames_by_sha256": lambda ledger: ledger.frames_by_sha256([f"{i:064x}" for i in range(600)]),
    "frame_by_upload": lambda ledger: ledger.frame_by_upload(SHA),
    "count_in_state": lambda ledger: ledger.count_in_state("accepted"),
    "count_quarantined": lambda ledger: ledger.count_quarantined(),
    "oldest_capture": lambda ledger: ledger.oldest_capture("accepted"),
    "known_uploads": lambda ledger: ledger.known_uploads([f"{i:064x}" for i in range(600)]),
    "next_received": lambda ledger: ledger.next_received(256),
    "fingerprints_near": lambda ledger: ledger.fingerprints_near([STILL], 32),
    "bin_days": lambda ledger: ledger.bin_days(NOON.date()),
    "bins_seen": lambda ledger: ledger.bins_seen(),
    "unscored": lambda ledger: ledger.unscored(16, "another model"),
    "count_unscored": lambda ledger: ledger.count_unscored(1000, "another model"),
    "accepted_frames": lambda ledger: ledger.accepted_frames([f"{i:064x}" for i in range(600)]),
    "waiting_bins": lambda ledger: ledger.waiting_bins(),
    "best_scored": lambda ledger: ledger.best_scored([None, "bin8", "bin9"], 200),
    "count_asked_per_bin": lambda ledger: ledger.count_asked_per_bin(),
    "count_accepted_per_bin": lambda ledger: ledger.count_accepted_per_bin([None, "bin9"], 500),
    "bins_of": lambda ledger: ledger.bins_of([f"{i:064x}" for i in range(600)]),
    "count_asked_per_burst": lambda ledger: ledger.count_asked_per_burst([("bin5", "burst5")]),
    "sample_accepted": lambda ledger: ledger.sample_accepted(3, seed=1),
    "sample_exploration_uploads": lambda ledger: ledger.sample_exploration_uploads(3, seed=1),
    "queued_descriptors": lambda ledger: ledger.queued_descriptors(),
    "tasks_made": lambda ledger: ledger.tasks_made(),
    "annotations_of": lambda ledger: ledger.annotations_of(SHA),
    "frames_awaiting_second_annotation": lambda ledger: ledger.frames_awaiting_second_annotation(NOON),
    "count_queue": lambda ledger: ledger.count_queue(),
    "annotations_by_several_people": lambda ledger: list(ledger.annotations_by_several_people()),
    "tasked_frames": lambda ledger: ledger.tasked_frames(),
    "frames_of_annotations": lambda ledger: ledger.frames_of_annotations("here", list(range(600))),
    "labels_set_aside": lambda ledger: ledger.labels_set_aside(100),
    "count_set_aside": lambda ledger: ledger.count_set_aside(),
    "frames_set_aside": lambda ledger: ledger.frames_set_aside(1),
    "count_turns": lambda ledger: ledger.count_turns(),
    "labels_to_grow": lambda ledger: (ledger.labels_to_grow(), ledger.labels_to_grow("planned")),
    "count_labels_to_grow": lambda ledger: ledger.count_labels_to_grow(),
    "unfinished_turn": lambda ledger: ledger.unfinished_turn(),
    "finished_turns": lambda ledger: ledger.finished_turns(),
    "count_untrained_frames": lambda ledger: ledger.count_untrained_frames(),
    "find_frames": lambda ledger: (
        ledger.find_frames(sha256s=[SHA, "unknown"]),
        ledger.find_frames(bin_id="bin5"),
        ledger.find_frames(before=NOON - timedelta(minutes=FRAMES - 50)),
    ),
    "unfinished_withdrawals": lambda ledger: ledger.unfinished_withdrawals(),
    "frames_of_withdrawal": lambda ledger: ledger.frames_of_withdrawal(1),
    "count_withdrawals": lambda ledger: ledger.count_withdrawals(),
    "removals": lambda ledger: ledger.removals(),
    "removable_transitions": lambda ledger: ledger.removable_transitions(50, NOON + timedelta(days=1), 500),
    "thinned_until": lambda ledger: ledger.thinned_until(),
    "cursor": lambda ledger: ledger.cursor("annotations/1"),
}
# It compares all annotations there are: it may read an index from end to end, never the table.
WHOLE_INDEX = {"annotations_by_several_people"}


def fill(ledger: Ledger) -> None:
    """Frames in every state, most of them long past, and an annotation for each frame that people saw."""
    seen = {"tasked", "labelled", "released"}
    rows, answers, entered = [], [], []
    for number in range(FRAMES):
        sha, state = f"{number:064x}", STATES[number % 100]
        phash = f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}"
        turn = f"turn{number % 40}" if state == "released" or number % 4 == 0 else None
        rows.append(
            {"sha256": sha, "uploaded_sha256": sha, "state": state, "inbox_key": f"inbox/{sha}.json"}
            | {"captured_at": NOON - timedelta(minutes=number), "received_at": NOON, "changed_at": NOON}
            | {"duplicate_of": f"{number - 1:064x}" if state == "duplicate" else None}
            | {"bin_id": f"bin{number % 100}", "burst": f"burst{number // 3}", "phash": phash}
            | {"upload_reason": ("exploration", "model", None)[number % 3]}
            | {"descriptor": bytes(192), "score": number % 1000 / 1000, "model": "m1", "turn": turn}
            | hash_bands(phash if state in UNIQUE_STATES else None)
        )
        entered.append({"sha256": sha, "from_state": None, "to_state": state, "at": NOON})
        if state in seen:
            open_turn = None if state != "released" else f"turn{number % 40}"
            answers.append(
                {
                    "installation": "here",
                    "annotation_id": number,
                    "task_id": number,
                    "sha256": sha,
                    "annotator": "ann",
                    "boxes": (),
                }
                | {"labelled_at": NOON, "outcome": "boxes", "turn": open_turn}
            )
    with ledger.transaction() as connection:
        connection.execute(frames.insert(), rows)
        connection.execute(annotations.insert(), answers)
        connection.execute(transitions.insert(), entered)
        plan = {"digest": "planned", "state": "planned", "started_at": NOON, "frames": 1, "boxes": 1}
        connection.execute(turns.insert(), [plan])
        aside = [{"sha256": f"{number:064x}", "reason": "no object"} for number in range(0, FRAMES, 1000)]
        connection.execute(set_aside.insert(), [row | {"since": NOON, "checked_at": NOON} for row in aside])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """100,000 frames; PostgreSQL has statistics, as its autovacuum makes them, and SQLite has none."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('plans')}/ledger.sqlite"
    else:
        url = new_database(request.getfixturevalue("postgres_server"))
    ledger = open_ledger(url)
    fill(ledger)
    if request.param == "postgresql":
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        engine.dispose()
    yield ledger
    ledger.close()


def statements(ledger: Ledger, call: Callable[[Ledger], Any]) -> list[tuple[str, Any]]:
    """The SELECTs that a verb sends, with their parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(ledger._engine, "before_cursor_execute", note)
    try:
        call(ledger)
    finally:
        event.remove(ledger._engine, "before_cursor_execute", note)
    return [
        (statement, parameters) for statement, parameters in sent if statement.startswith(("SELECT", "WITH"))
    ]


def plan(ledger: Ledger, statement: str, parameters: Any) -> list[str]:
    """The lines of a statement's query plan."""
    sqlite = ledger._engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
    with ledger.reading() as connection:
        rows = connection.exec_driver_sql(explain + statement, parameters).all()
    return [str(row[-1] if sqlite else row[0]) for row in rows]


def reads_whole_table(line: str, *, index_is_enough: bool) -> bool:
    """Whether a line of a plan says that frames or annotations are read from end to end."""
    if re.search(r"Seq Scan on (frames|annotations|transitions)\b", line):
        return True
    scan = re.match(r"\W*SCAN (frames|annotations|transitions)\b(?P<how>.*)", line)
    if scan is None:
        return False
    return not (index_is_enough and "COVERING INDEX" in scan["how"])


@pytest.mark.parametrize("name", READS)
def test_no_reading_verb_scans_a_table(ledger: Ledger, name: str) -> None:
    """Each statement finds its rows through an index."""
    sent = statements(ledger, READS[name])
    assert sent
    for statement, parameters in sent:
        lines = plan(ledger, statement, parameters)
        bad = [line for line in lines if reads_whole_table(line, index_is_enough=name in WHOLE_INDEX)]
        assert not bad, "\n".join([statement, *lines])


def test_frames_to_compare_with_are_read_off_the_index_in_its_order(ledger: Ledger) -> None:
    """For each band and direction one stretch of an index; nothing is sorted, however many there are."""
    [(statement, parameters)] = statements(ledger, READS["fingerprints_near"])
    lines = plan(ledger, statement, parameters)
    assert not [line for line in lines if "B-TREE" in line or "Sort" in line], "\n".join(lines)
    for band in range(4):
        assert sum(f"ix_frames_bin_band{band}" in line for line in lines) == 2, "\n".join(lines)


# Verbs that find few of the many accepted frames, and the index that leads to those alone.
OWN_INDEX = {
    "unscored": "ix_frames_state_model",
    "waiting_bins": "ix_frames_state_bin_score",
    "best_scored": "ix_frames_state_bin_score",
    "count_accepted_per_bin": "ix_frames_state_bin_score",
    "sample_accepted": "ix_frames_state_sha256",
    "sample_exploration_uploads": "ix_frames_state_upload_sha256",
    "count_asked_per_burst": "ix_frames_asked_burst",
    "count_quarantined": "ix_frames_quarantine_reason",
}


@pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", OWN_INDEX)
def test_without_statistics_a_verb_reads_its_own_index(ledger: Ledger, name: str) -> None:
    """No other one that begins with the state: through that it would read all accepted frames."""
    for statement, parameters in statements(ledger, READS[name]):
        lines = plan(ledger, statement, parameters)
        used = set(re.findall(r"\bix_frames_\w+", "\n".join(lines)))
        assert used == {OWN_INDEX[name]}, "\n".join([statement, *lines])


@pytest.mark.parametrize("name", READS)
def test_an_index_by_state_is_searched_by_the_state(ledger: Ledger, name: str) -> None:
    """One that is read from its beginning costs as many entries as it has."""
    for statement, parameters in statements(ledger, READS[name]):
        lines = plan(ledger, statement, parameters)
        for line, condition in pairwise([*lines, ""]):
            if re.search(r"\bix_frames_state_", line):
                assert "state" in line.partition("(")[2] + condition, "\n".join([statement, *lines])


def test_a_scan_would_be_noticed(ledger: Ledger) -> None:
    """A query without an index is one that the tests above refuse."""
    lines = plan(ledger, "SELECT sha256 FROM frames WHERE note = 'x'", ())
    assert any(reads_whole_table(line, index_is_enough=True) for line in lines)


def test_every_reading_verb_of_the_ledger_is_asked() -> None:
    """A verb that reads, and nothing else, cannot be forgotten above."""
    verbs = {
        name: inspect.getsource(function)
        for name, function in inspect.getmembers(Ledger, inspect.isfunction)
        if not name.startswith("_") and name not in {"reading", "transaction", "close"}
    }
    reading = {name for name, source in verbs.items() if "self.transaction()" not in source}
    # It counts all frames that there are, for people who ask for the status; no decision waits for it.
    assert reading - {"count_by_state"} == set(READS)


def test_the_plans_are_read_from_the_project(tmp_path: Path) -> None:
    """The test's tables are the product's own: a fresh ledger has every index that the plans name."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/fresh.sqlite")
    with ledger.reading() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'").scalars()
        assert {index.name for index in frames.indexes | annotations.indexes} <= set(names)
    ledger.close()
