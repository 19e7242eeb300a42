"""Counters per bin and day: what a bin has sent, and how many of its uploads wait over its quota.

The quotas themselves are parameters of ingest. A counter changes in the transaction that enters the uploads,
so it cannot be wrong after a death.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from trashnet.ledger.database import Database
from trashnet.ledger.tables import bin_days

KEPT_DAYS = 31  # counters of earlier days are removed


@dataclass(frozen=True, slots=True)
class BinDay:
    """What a bin sent on a day, in uploads and bytes, and how many more of its uploads waited at last."""

    uploads: int = 0
    bytes: int = 0
    waiting: int = 0


class BinDayQueries(Database):
    """What quotas ask and write."""

    def bin_days(self, day: date) -> dict[str, BinDay]:
        """Per bin what it sent on this day; costs as many rows as there are bins."""
        columns = (bin_days.c.bin_id, bin_days.c.uploads, bin_days.c.bytes, bin_days.c.waiting)
        with self.reading() as connection:
            rows = connection.execute(select(*columns).where(bin_days.c.day == day)).all()
        return {bin_id: BinDay(*counts) for bin_id, *counts in rows}

    def bins_seen(self) -> set[str]:
        """The bins that sent anything in the last :data:`KEPT_DAYS` days; costs bins times days."""
        with self.reading() as connection:
            return set(connection.execute(select(bin_days.c.bin_id).distinct()).scalars())

    def record_waiting(self, day: date, waiting: Mapping[str, int]) -> None:
        """Write how many uploads of each bin wait, none of the bins that are not named.

        Again changes nothing.
        """
        before = {bin_id: counts.waiting for bin_id, counts in self.bin_days(day).items() if counts.waiting}
        if before == dict(waiting):
            return
        with self.transaction() as connection:
            connection.execute(update(bin_days).where(bin_days.c.day == day).values(waiting=0))
            for bin_id, count in sorted(waiting.items()):
                _add(connection, day, bin_id, {"waiting": count})


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
    zeros = {"uploads": 0, "bytes": 0, "waiting": 0}
    added = {name: bin_days.c[name] + insert.excluded[name] for name in counts}
    key = {"day": day, "bin_id": bin_id}
    connection.execute(
        insert.values({**key, **zeros, **counts}).on_conflict_do_update(index_elements=list(key), set_=added)
    )
