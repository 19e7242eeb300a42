"""The ledger opened: all its queries in one object, on tables that are up to date."""

from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from trashnet.ledger.annotations import AnnotationQueries
from trashnet.ledger.bin_days import BinDayQueries
from trashnet.ledger.counters import CounterQueries
from trashnet.ledger.database import LedgerError
from trashnet.ledger.deduplication import DeduplicationQueries
from trashnet.ledger.frames import FrameQueries
from trashnet.ledger.growth import GrowthQueries
from trashnet.ledger.locks import LockQueries
from trashnet.ledger.retention import RetentionQueries
from trashnet.ledger.selection import SelectionQueries
from trashnet.ledger.turns import CursorQueries, TurnQueries
from trashnet.ledger.uploads import UploadQueries
from trashnet.ledger.withdrawals import WithdrawalQueries

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_031_957  # any number, the same in every process: whoever holds this lock migrates


class Ledger(
    FrameQueries,
    UploadQueries,
    BinDayQueries,
    LockQueries,
    DeduplicationQueries,
    SelectionQueries,
    AnnotationQueries,
    GrowthQueries,
    TurnQueries,
    CursorQueries,
    CounterQueries,
    WithdrawalQueries,
    RetentionQueries,
):
    """The frames' states and annotations, in SQLite or PostgreSQL; safe to use from many threads.

    Every method that writes is one transaction. Every method that reads sees one state of the database and,
    on SQLite, does not wait for a writer. All raise :class:`LedgerError` if the database does not answer.
    """


def open_ledger(url: str, *, migrate: bool = True) -> Ledger:
    """Open the ledger at an SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://...``.

    Its tables are made and brought up to date, or with ``migrate=False`` used as they are: then nothing is
    written.

    Raises:
        LedgerError: The URL is malformed, the database cannot be reached, it is newer than this program, or
            it has no ledger and may not be given one.
    """
    try:
        path = make_url(url).database if make_url(url).get_backend_name() == "sqlite" else None
        if path and path != ":memory:":
            if migrate:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            elif not Path(path).is_file():
                raise _no_ledger()
        ledger = Ledger(url)
    except ArgumentError as error:
        raise LedgerError(f"TRASHNET_LEDGER_URL: {error}") from None
    if migrate:
        _migrate(ledger)
    else:
        try:
            _refuse_other_tables(ledger)
        except LedgerError:
            ledger.close()
            raise
    return ledger


def _refuse_other_tables(ledger: Ledger) -> None:
    """Raise unless the tables are there and are those that this program knows."""
    with ledger.reading() as connection:
        if not inspect(connection).has_table("alembic_version"):
            raise _no_ledger()
        present = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    newest = max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]
    if present != newest:
        raise LedgerError(
            f"the ledger's tables are of version {present}, this program's are of {newest}; `trashnet setup` "
            "brings them up to date"
        )


def _no_ledger() -> LedgerError:
    return LedgerError("there is no ledger yet; `trashnet setup` makes it")


def _migrate(ledger: Ledger) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with ledger.transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise LedgerError(
                f"the ledger was written by another version of this program ({error}); update this one"
            ) from None
