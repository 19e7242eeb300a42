"""Counters per bin and day: what a bin has sent, and how much of it waits over a quota.

The quotas themselves are parameters of ingest and selection. What was sent is counted in the transaction that
enters the uploads, so that a death cannot make it wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, select, update

from trashnet.ledger.database import Database
from trashnet.ledger.tables import bin_days

KEPT_DAYS = 31  # counters of earlier days are removed

Waiting = Literal["uploads_waiting", "frames_waiting"]


@dataclass(frozen=True, slots=True)
class BinDay:
    """What a bin sent on a day, and how many of its uploads and frames waited when they were last counted."""

    uploads: int = 0
    bytes: int = 0
    uploads_waiting: int = 0
    frames_waiting: int = 0


class BinDayQueries(Database):
    """What quotas ask and write."""

    def bin_days(self, day: date) -> dict[str, BinDay]:
        """Per bin what it sent on this day; costs as many rows as there are bins."""
        columns = [bin_days.c[name] for name in ("bin_id", *BinDay.__dataclass_fields__)]
        with self.reading() as connection:
            rows = connection.execute(select(*columns).where(bin_days.c.day == day)).all()
        return {bin_id: BinDay(*counts) for bin_id, *counts in rows}

    def bins_seen(self) -> set[str]:
        """The bins that sent anything in the last :data:`KEPT_DAYS` days; costs bins times days."""
        with self.reading() as connection:
            return set(connection.execute(select(bin_days.c.bin_id).distinct()).scalars())

    def record_waiting(self, day: date, what: Waiting, counts: Mapping[str, int]) -> None:
        """Write how many uploads or frames of each bin wait, none of the bins that are not named.

        Again changes nothing.
        """
        before = {bin_id: getattr(known, what) for bin_id, known in self.bin_days(day).items()}
        if {bin_id: count for bin_id, count in before.items() if count} == dict(counts):
            return
        with self.transaction() as connection:
            connection.execute(update(bin_days).where(bin_days.c.day == day).values({what: 0}))
            for bin_id, count in sorted(counts.items()):
                _add(connection, day, bin_id, {what: count})


def count_uploads(connection: Connection, day: date, sent: Mapping[str, tuple[int, int]]) -> None:
    """Add uploads and bytes per bin within a transaction of the caller's, and remove old counters."""
    connection.execute(bin_days.delete().where(bin_days.c.day < day - timedelta(days=KEPT_DAYS)))
    for bin_id, (uploads, size) in sorted(sent.items()):  # sorted: two transactions never wait in a circle
        _add(connection, day, bin_id, {"uploads": uploads, "bytes": size})


def _add(connection: Connection, day: date, bin_id: str, counts: Mapping[str, int]) -> None:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgres

        insert: Any = insert_postgres(bin_days)
    else:
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        insert = insert_sqlite(bin_days)
    zeros = dict.fromkeys(BinDay.__dataclass_fields__, 0)
    added = {name: bin_days.c[name] + insert.excluded[name] for name in counts}
    key = {"day": day, "bin_id": bin_id}
    connection.execute(
        insert.values({**key, **zeros, **counts}).on_conflict_do_update(index_elements=list(key), set_=added)
    )
