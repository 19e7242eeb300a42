"""What bins send a day is counted in the transaction that enters it."""

import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from tests.trashnet.ledger.test_queries import sha
from trashnet.ledger import BinDay, FrameRow, Ledger
from trashnet.ledger.bin_days import KEPT_DAYS, count_uploads


def row(number: int, uploaded: int | None = None) -> FrameRow:
    """A received frame."""
    uploaded_sha256 = sha(number if uploaded is None else uploaded)
    return FrameRow(
        sha256=sha(number), uploaded_sha256=uploaded_sha256, state="received", inbox_key=f"inbox/{number}"
    )


def today() -> date:
    """The day (UTC)."""
    return datetime.now(UTC).date()


def test_new_uploads_are_counted_and_repeated_ones_are_not(ledger: Ledger) -> None:
    """Three rows of which two were sent before: one more; so are other bytes of a known picture."""
    ledger.upsert_uploads([row(1), row(2)], [("a", 10), ("b", 20)])
    ledger.upsert_uploads([row(1), row(2), row(3)], [("a", 10), ("b", 20), ("a", 5)])
    assert ledger.bin_days(today()) == {"a": BinDay(2, 15), "b": BinDay(1, 20)}
    for _ in range(2):
        ledger.upsert_uploads([row(1, uploaded=7)], [("a", 9)])
    assert ledger.bin_days(today())["a"] == BinDay(3, 24)
    ledger.upsert_uploads([row(4)])
    assert sum(day.uploads for day in ledger.bin_days(today()).values()) == 4  # nobody said who sent it
    assert ledger.bin_days(today() - timedelta(days=1)) == {}
    assert ledger.bins_seen() == {"a", "b"}


def test_a_count_is_undone_with_its_uploads(ledger: Ledger) -> None:
    """What is not entered is not counted."""
    with pytest.raises(IntegrityError), ledger.transaction() as connection:
        count_uploads(connection, today(), {"a": (1, 1)})
        connection.exec_driver_sql("INSERT INTO frames (sha256) VALUES ('x')")
    assert ledger.bin_days(today()) == {}


def test_the_waiting_are_written_down_anew(ledger: Ledger) -> None:
    """Each listing says how many wait: those of other bins wait no longer, and what was sent stays."""
    ledger.upsert_uploads([row(1)], [("a", 10)])
    ledger.record_waiting(today(), "uploads_waiting", {"a": 3, "b": 2})
    ledger.record_waiting(today(), "uploads_waiting", {"b": 5})
    ledger.record_waiting(today(), "uploads_waiting", {"b": 5})
    ledger.record_waiting(today(), "frames_waiting", {"a": 7})
    assert ledger.bin_days(today()) == {"a": BinDay(1, 10, 0, 7), "b": BinDay(0, 0, 5, 0)}


def test_old_counters_are_removed(ledger: Ledger) -> None:
    """A counter is kept for some weeks, so that the table grows with the fleet and not with time."""
    with ledger.transaction() as connection:
        for days in (0, KEPT_DAYS, KEPT_DAYS + 1):
            count_uploads(connection, today() - timedelta(days=days), {f"bin{days}": (1, 1)})
    ledger.upsert_uploads([row(1)], [("a", 10)])
    assert ledger.bins_seen() == {"bin0", f"bin{KEPT_DAYS}", "a"}


def test_of_many_who_count_at_once_none_is_forgotten(ledger: Ledger) -> None:
    """Eight threads enter uploads of the same bins in different orders."""

    def enter(thread: int) -> None:
        for number in range(5):
            first = 100 * thread + 10 * number
            bins = ["a", "b"] if thread % 2 else ["b", "a"]
            ledger.upsert_uploads([row(first), row(first + 1)], [(name, 1) for name in bins])

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.bin_days(today()) == {"a": BinDay(40, 40), "b": BinDay(40, 40)}
