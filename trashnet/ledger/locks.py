"""Locks that processes on any machine share: one row each, with its owner and how long it holds.

A lock that its owner does not extend is free after that time, so a process that died holds none for ever.
What must not be written without the lock checks it in the transaction that writes, see :func:`check_lock`.
The clocks of the machines may differ by less than :data:`LOCK_SECONDS`.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select, update
from sqlalchemy.exc import IntegrityError

from trashnet.ledger.database import Database, LedgerError
from trashnet.ledger.tables import locks

LOCK_SECONDS = 60.0  # from its last extension: longer than any step between two
POLL_SECONDS = 0.5  # between two tries to take a lock that another process holds


class LockLostError(LedgerError):
    """A lock was not extended in time, and another process has taken it."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that this process holds."""

    name: str
    owner: str


class LockQueries(Database):
    """What holders of locks ask and write."""

    @contextmanager
    def lock(self, name: str) -> Iterator[Lock]:
        """Hold the lock of this name; waits while another process holds it."""
        lock = Lock(name, secrets.token_hex(16))
        while not self._take(lock):
            time.sleep(POLL_SECONDS)
        try:
            yield lock
        finally:
            with self.transaction() as connection:
                connection.execute(locks.delete().where(_is_held(lock)))

    def extend_lock(self, lock: Lock) -> None:
        """Hold a lock for another :data:`LOCK_SECONDS`. Raises :class:`LockLostError`."""
        with self.transaction() as connection:
            check_lock(connection, lock)

    def _take(self, lock: Lock) -> bool:
        now = datetime.now(UTC)
        free = (locks.c.name == lock.name) & (locks.c.held_until < now)
        values = {"owner": lock.owner, "held_until": _until()}
        with self.transaction() as connection:
            if connection.execute(update(locks).where(free).values(values)).rowcount:
                return True
            if connection.execute(select(locks.c.name).where(locks.c.name == lock.name)).first():
                return False
            try:
                with connection.begin_nested():
                    connection.execute(locks.insert().values(name=lock.name, **values))
            except IntegrityError:  # another process was faster
                return False
        return True


def check_lock(connection: Connection, lock: Lock) -> None:
    """Extend a lock within a transaction of the caller's, which ends with it if the lock is lost.

    Raises :class:`LockLostError`.
    """
    extended = update(locks).where(_is_held(lock)).values(held_until=_until())
    if not connection.execute(extended).rowcount:
        raise LockLostError(
            f"lock {lock.name!r} was not extended for {LOCK_SECONDS:.0f} s and is another process's now; "
            "nothing was written. Run this again."
        )


def _is_held(lock: Lock) -> ColumnElement[bool]:
    return (locks.c.name == lock.name) & (locks.c.owner == lock.owner)


def _until() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=LOCK_SECONDS)
