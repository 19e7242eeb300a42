from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, func, or_, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from trashnet.errors import UserError
from trashnet.ledger import annotations as answers
from trashnet.ledger import turns
from trashnet.ledger.annotations import Answer, AnswerRow
from trashnet.ledger.rows import FrameRow, State
from trashnet.ledger.tables import BANDS, annotations, cursors, frames, transitions
from trashnet.ledger.turns import TurnRow

FARTHEST = BANDS - 1  # bits: hashes farther apart may share no band
SQLITE_WAIT = 30_000  # milliseconds that one writer waits for another
READING = "trashnet_reading"  # an execution option of ours
MIGRATION_LOCK = 7_031_957  # any number, the same everywhere: whoever holds it migrates


class Ledger:
    """The frames' states in SQLite or PostgreSQL. Every method that writes is one transaction; safe to use from many threads."""

    def __init__(self, url: str) -> None:
        """Connect to an SQLAlchemy URL; nothing is migrated here, see :func:`open_ledger`."""
        self.url = url
        self._engine = create_engine(url, pool_pre_ping=True)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Several statements that happen together or not at all. Raises :class:`UserError` if the database is down or its disk full."""
        with _plainly(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Statements that only read: on SQLite they don't wait for a writer."""
        with _plainly(), self._engine.connect() as connection:
            yield connection.execution_options(**{READING: True})

    # Frames

    def add(self, row: FrameRow) -> bool:
        """Enter a frame; ``False`` if the ledger has its SHA-256, stored or uploaded, already."""
        with self.transaction() as connection:
            return add(connection, row)

    def move(
        self,
        sha256: str,
        from_: State | Sequence[State],
        to: State,
        *,
        note: str | None = None,
        **values: Any,
    ) -> bool:
        """Move a frame to another state and set columns with it; ``False``, and nothing changed, if it is not in ``from_`` any more."""
        with self.transaction() as connection:
            return move(connection, sha256, from_, to, note=note, **values)

    def amend(self, sha256: str, **values: Any) -> None:
        """Set columns of a frame that are not its state."""
        with self.transaction() as connection:
            connection.execute(update(frames).where(frames.c.sha256 == sha256).values(values))

    def frame(self, sha256: str) -> FrameRow | None:
        """A frame by the SHA-256 of its stored bytes."""
        return next(self._rows(frames.c.sha256 == sha256), None)

    def uploaded(self, sha256: str) -> FrameRow | None:
        """A frame by the SHA-256 of the bytes that its bin sent."""
        return next(self._rows(frames.c.uploaded_sha256 == sha256), None)

    def known_uploads(self, sha256s: Iterable[str]) -> set[str]:
        """Those of these uploaded SHA-256s that the ledger has."""
        wanted, known = list(sha256s), set[str]()
        with self.reading() as connection:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                known |= set(
                    connection.execute(
                        select(frames.c.uploaded_sha256).where(frames.c.uploaded_sha256.in_(some))
                    ).scalars()
                )
        return known

    def in_state(self, *states: State, limit: int | None = None) -> list[FrameRow]:
        """Frames in these states, oldest capture first, then by SHA-256."""
        return list(
            self._rows(frames.c.state.in_(states), order=(frames.c.captured_at, frames.c.sha256), limit=limit)
        )

    def most_valuable(self, limit: int) -> list[FrameRow]:
        """Accepted frames that triage has scored, highest first, ties by SHA-256."""
        wanted = (frames.c.state == "accepted") & frames.c.score.is_not(None)
        return list(self._rows(wanted, order=(frames.c.score.desc(), frames.c.sha256), limit=limit))

    def near(self, phash: str, distance: int) -> list[tuple[FrameRow, int]]:
        """Frames whose hash is at most ``distance`` (of 64) bits away, each with its distance, nearest first; found through an index."""
        if not 0 <= distance <= FARTHEST:
            raise ValueError(f"distance {distance}: the index finds hashes at most {FARTHEST} bits apart")
        share = or_(*(frames.c[name] == value for name, value in _bands(phash).items()))
        wanted = int(phash, 16)
        found = [(row, (int(row.phash, 16) ^ wanted).bit_count()) for row in self._rows(share) if row.phash]
        return sorted(
            ((row, bits) for row, bits in found if bits <= distance),
            key=lambda pair: (pair[1], pair[0].sha256),
        )

    def counts(self) -> dict[State, int]:
        """How many frames are in each state; states without any are left out."""
        with self.reading() as connection:
            found = connection.execute(select(frames.c.state, func.count()).group_by(frames.c.state)).all()
        return {row[0]: int(row[1]) for row in found}

    def history(self, sha256: str) -> list[tuple[State | None, State, datetime, str | None]]:
        """A frame's transitions, oldest first: from, to, when, note."""
        columns = (transitions.c.from_state, transitions.c.to_state, transitions.c.at, transitions.c.note)
        with self.reading() as connection:
            found = connection.execute(
                select(*columns).where(transitions.c.sha256 == sha256).order_by(transitions.c.id)
            ).all()
        return [(row[0], row[1], row[2], row[3]) for row in found]

    # Answers

    def answer(self, answer: AnswerRow, *, labelled: bool) -> bool:
        """Keep an annotation, and with ``labelled`` move its frame on from ``tasked``, together; ``False`` if nothing was new."""
        with self.transaction() as connection:
            changed = answers.write_answer(connection, answer)
            moved = labelled and move(
                connection, answer.sha256, "tasked", "labelled", note=f"annotation {answer.annotation_id}"
            )
            return changed or moved

    def answers_of(self, sha256: str) -> list[AnswerRow]:
        """A frame's annotations, oldest first."""
        query = (
            select(annotations)
            .where(annotations.c.sha256 == sha256)
            .order_by(annotations.c.labelled_at, annotations.c.annotation_id)
        )
        with self.reading() as connection:
            return [AnswerRow(**row) for row in connection.execute(query).mappings()]

    def answers_to_grow(self, turn: str | None = None) -> list[Answer]:
        """Per labelled frame its newest usable answer among those planned for ``turn`` (``None``: for no turn yet)."""
        with self.reading() as connection:
            return answers.answers_to_grow(connection, turn)

    # Turns

    def plan_turn(self, turn: TurnRow, annotation_ids: Sequence[int]) -> None:
        """Write down that these annotations are to become this turn."""
        with self.transaction() as connection:
            turns.plan(connection, turn, annotation_ids)

    def unfinished_turn(self) -> TurnRow | None:
        """The turn that was planned and not finished, if there is one."""
        with self.reading() as connection:
            return next(iter(turns.listed(connection, "planned")), None)

    def finish_turn(self, digest: str, *, turn: str | None, version: str | None) -> None:
        """Mark a turn as done, under its name in the dataset log and the version that holds it."""
        with self.transaction() as connection:
            turns.finish(connection, digest, turn, version)

    def finished_turns(self) -> list[TurnRow]:
        """The turns that are part of the dataset, oldest first."""
        with self.reading() as connection:
            return [turn for turn in turns.listed(connection, "done") if turn.name is not None]

    def count_untrained_frames(self) -> int:
        """How many frames are in the dataset with labels that no published candidate has been trained on."""
        wanted = (frames.c.state == "labelled") & frames.c.turn.is_not(None)
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).where(wanted)).scalar() or 0)

    def mark_trained(self, turns_: Sequence[str]) -> int:
        """Move the labelled frames of these turns on to ``released``: a published candidate was trained on them. How many moved."""
        moved = 0
        with self.transaction() as connection:
            wanted = select(frames.c.sha256).where(
                frames.c.state == "labelled", frames.c.turn.in_(list(turns_))
            )
            for sha256 in connection.execute(wanted).scalars().all():
                moved += move(connection, sha256, "labelled", "released")
        return moved

    # Cursors

    def cursor(self, name: str) -> str | None:
        """Where the reader of that name has got to."""
        with self.reading() as connection:
            return connection.execute(select(cursors.c.value).where(cursors.c.name == name)).scalar()

    def set_cursor(self, name: str, value: str) -> None:
        """Remember where the reader of that name has got to."""
        with self.transaction() as connection:
            if not connection.execute(
                update(cursors).where(cursors.c.name == name).values(value=value)
            ).rowcount:
                connection.execute(cursors.insert().values(name=name, value=value))

    def _rows(
        self, wanted: Any, order: Sequence[Any] = (frames.c.sha256,), limit: int | None = None
    ) -> Iterator[FrameRow]:
        query = (
            select(*(frames.c[name] for name in FrameRow.__dataclass_fields__))
            .where(wanted)
            .order_by(*order)
            .limit(limit)
        )
        with self.reading() as connection:
            found = connection.execute(query).mappings().all()
        for row in found:
            yield FrameRow(**{**row, "detections": row["detections"] or []})


def open_ledger(url: str) -> Ledger:
    """Open the ledger at an SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://...``, and bring its tables up to date.

    Raises :class:`UserError` if the URL is malformed, the database cannot be reached, or it is newer than
    this program.
    """
    try:
        path = make_url(url).database if make_url(url).get_backend_name() == "sqlite" else None
        if path and path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(url)
    except ArgumentError as error:
        raise UserError(f"TRASHNET_LEDGER_URL: {error}") from None
    _migrate(ledger)
    return ledger


def add(connection: Connection, row: FrameRow) -> bool:
    """:meth:`Ledger.add` within a transaction of the caller's."""
    now = datetime.now(UTC)
    values = _values(row, now)
    known = or_(frames.c.sha256 == row.sha256, frames.c.uploaded_sha256 == row.uploaded_sha256)
    if connection.execute(select(frames.c.sha256).where(known)).first():
        return False
    connection.execute(_insert_or_ignore(connection, values))
    if connection.execute(select(frames.c.changed_at).where(frames.c.sha256 == row.sha256)).scalar() != now:
        return False  # somebody else entered it between the two statements
    _note(connection, row.sha256, None, row.state, now, row.note)
    return True


def add_new(connection: Connection, rows: Sequence[FrameRow]) -> None:
    """Enter frames none of which the ledger has, all at once; :class:`sqlalchemy.exc.IntegrityError` if it has one of them."""
    now = datetime.now(UTC)
    connection.execute(frames.insert(), [_values(row, now) for row in rows])
    notes = [
        {"sha256": row.sha256, "from_state": None, "to_state": row.state, "at": now, "note": row.note}
        for row in rows
    ]
    connection.execute(transitions.insert(), notes)


def move(
    connection: Connection,
    sha256: str,
    from_: State | Sequence[State],
    to: State,
    *,
    note: str | None = None,
    **values: Any,
) -> bool:
    """:meth:`Ledger.move` within a transaction of the caller's."""
    now = datetime.now(UTC)
    before = connection.execute(
        select(frames.c.state).where(frames.c.sha256 == sha256).with_for_update()
    ).scalar()
    if before is None or before not in ((from_,) if isinstance(from_, str) else from_):
        return False
    connection.execute(
        update(frames).where(frames.c.sha256 == sha256).values(state=to, changed_at=now, **values)
    )
    _note(connection, sha256, before, to, now, note)
    return True


def _note(
    connection: Connection, sha256: str, before: str | None, after: str, at: datetime, note: str | None
) -> None:
    connection.execute(
        transitions.insert().values(sha256=sha256, from_state=before, to_state=after, at=at, note=note)
    )


def _insert_or_ignore(connection: Connection, values: Mapping[str, Any]) -> Any:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgres

        return insert_postgres(frames).values(values).on_conflict_do_nothing()
    return frames.insert().values(values)  # SQLite has one writer at a time


def _values(row: FrameRow, now: datetime) -> dict[str, Any]:
    """All columns of a new frame's row."""
    return asdict(row) | {"received_at": row.received_at or now, "changed_at": now} | _bands(row.phash)


def _bands(phash: str | None) -> dict[str, int | None]:
    """A hash's four pieces of 16 bits, by their columns."""
    return {f"band{i}": int(phash[4 * i : 4 * i + 4], 16) if phash else None for i in range(BANDS)}


@contextmanager
def _plainly() -> Iterator[None]:
    """A database that cannot be asked is the operator's to mend: one line, and what was begun is rolled back."""
    try:
        yield
    except OperationalError as error:
        what = str(error.orig).partition("\n")[0]
        raise UserError(
            f"the ledger does not answer ({what}). Nothing was half-written: see to the database of TRASHNET_LEDGER_URL and its disk, "
            "and run this again."
        ) from error


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins by reading and then writes could find that somebody wrote in between: it takes
    # its turn from the start.
    connection.exec_driver_sql(
        "BEGIN" if connection.get_execution_options().get(READING) else "BEGIN IMMEDIATE"
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, see the `begin` event
    for pragma in ("journal_mode=WAL", f"busy_timeout={SQLITE_WAIT}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(ledger: Ledger) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with ledger.transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise UserError(
                f"the ledger was written by another version of this program ({error}); update this one"
            ) from None
