"""The connection to the ledger's database: transactions, reads, and one error for a database that does not
answer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import OperationalError

from trashnet.errors import UserError

SQLITE_BUSY_TIMEOUT = 30_000  # milliseconds that one writer waits for another
SQLITE_CACHE_KB = 32 << 10  # of one connection: a frame's indexes lie far apart, and 2 MB hold few of them
MAX_IN_VALUES = 500  # of one IN (...): SQLite limits the number of a statement's parameters
READ_ONLY = "trashnet_read_only"  # our own execution option of a connection

T = TypeVar("T")


class LedgerError(UserError):
    """The ledger's database does not answer, is missing, or has tables that this program does not know."""


class Database:
    """SQLite or PostgreSQL, safe to use from many threads."""

    def __init__(self, url: str) -> None:
        """Connect to an SQLAlchemy URL; nothing is migrated here, see :func:`trashnet.ledger.open_ledger`."""
        self.url = url
        self._engine = create_engine(url, pool_pre_ping=True)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Several statements that happen together or not at all.

        Raises :class:`LedgerError` if the database is down or its disk is full.
        """
        with _ledger_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Statements that only read one state of the database: on SQLite they do not wait for a writer.

        Raises :class:`LedgerError` if the database is down.
        """
        with _ledger_errors(), self._engine.connect() as connection:
            yield connection.execution_options(**{READ_ONLY: True})


def batched(values: Sequence[T], size: int = MAX_IN_VALUES) -> Iterator[list[T]]:
    """The values in lists of at most ``size``, in order."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


@contextmanager
def _ledger_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        cause = str(error.orig).partition("\n")[0]
        raise LedgerError(
            f"the ledger does not answer ({cause}). Nothing was half-written: check the database of "
            "TRASHNET_LEDGER_URL and its disk, and run this again."
        ) from error


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that first reads and then writes could find that another process wrote in between: it
    # takes the write lock at its start.
    read_only = connection.get_execution_options().get(READ_ONLY)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the `begin` event says how a transaction begins
    pragmas = (
        "journal_mode=WAL",
        f"busy_timeout={SQLITE_BUSY_TIMEOUT}",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"cache_size=-{SQLITE_CACHE_KB}",
    )
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
