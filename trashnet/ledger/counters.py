"""Counters: how often something has happened, so that no decision has to count rows of the past."""

from sqlalchemy import Connection, select, update

from trashnet.ledger.database import Database
from trashnet.ledger.tables import counters

TASKS_MADE = "tasks made"


class CounterQueries(Database):
    """What is asked of the counters."""

    def tasks_made(self) -> int:
        """How many frames became tasks since the ledger counts them (version 0.4)."""
        query = select(counters.c.count).where(counters.c.name == TASKS_MADE)
        with self.reading() as connection:
            return int(connection.execute(query).scalar() or 0)


def count_up(connection: Connection, name: str, by: int) -> None:
    """Add to a counter within a transaction of the caller's."""
    more = update(counters).where(counters.c.name == name).values(count=counters.c.count + by)
    if not connection.execute(more).rowcount:
        connection.execute(counters.insert().values(name=name, count=by))
