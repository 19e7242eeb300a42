"""Frames: how one is entered, moved from state to state, and found."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, text, update

from trashnet.ledger.database import Database, batched
from trashnet.ledger.rows import UNIQUE_STATES, FrameRow, State
from trashnet.ledger.tables import HASH_BANDS, QUARANTINED, frames, transitions

COLUMNS = tuple(FrameRow.__dataclass_fields__)


class FrameQueries(Database):
    """What is asked and written of single frames, and the count of all."""

    def add(self, row: FrameRow) -> bool:
        """Enter a frame; ``False`` if the ledger has its SHA-256, stored or uploaded, already."""
        with self.transaction() as connection:
            return add_frame(connection, row)

    def move(
        self,
        sha256: str,
        from_: State | Sequence[State],
        to: State,
        *,
        note: str | None = None,
        **values: Any,
    ) -> bool:
        """Move a frame to another state and set columns with it.

        Returns ``False``, and changes nothing, if the frame is not in one of the states ``from_``.
        """
        with self.transaction() as connection:
            return move_frame(connection, sha256, from_, to, note=note, **values)

    def frame(self, sha256: str) -> FrameRow | None:
        """A frame by the SHA-256 of its stored bytes."""
        return self._frame(frames.c.sha256 == sha256)

    def frames_by_sha256(self, sha256s: Sequence[str]) -> dict[str, FrameRow]:
        """Those of these frames that the ledger has, by the SHA-256 of their stored bytes."""
        found: dict[str, FrameRow] = {}
        with self.reading() as connection:
            for batch in batched(sha256s):
                query = select(*(frames.c[name] for name in COLUMNS)).where(frames.c.sha256.in_(batch))
                rows = map(frame_row, connection.execute(query).mappings())
                found |= {row.sha256: row for row in rows}
        return found

    def frame_by_upload(self, uploaded_sha256: str) -> FrameRow | None:
        """A frame by the SHA-256 of the bytes that its bin sent."""
        return self._frame(frames.c.uploaded_sha256 == uploaded_sha256)

    def count_in_state(self, state: State, limit: int | None = None) -> int:
        """How many frames are in this state; no more than ``limit`` are counted. Costs what is counted."""
        found = select(frames.c.sha256).where(frames.c.state == state).limit(limit).subquery()
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(found)).scalar() or 0)

    def count_by_state(self) -> dict[State, int]:
        """How many frames are in each state; states without any are left out.

        It reads all frames there are: for people, not for decisions, see :meth:`count_in_state`.
        """
        query = select(frames.c.state, func.count()).group_by(frames.c.state)
        with self.reading() as connection:
            return {state: int(count) for state, count in connection.execute(query).all()}

    def count_quarantined(self) -> dict[str, int]:
        """How many uploads were refused, by reason."""
        query = (
            select(frames.c.quarantine_reason, func.count())
            .where(text(QUARANTINED))
            .group_by(frames.c.quarantine_reason)
        )
        with self.reading() as connection:
            return {str(reason): int(count) for reason, count in connection.execute(query).all()}

    def oldest_capture(self, state: State) -> datetime | None:
        """When the oldest frame in this state was captured; ``None`` if there is none."""
        query = (
            select(frames.c.captured_at)
            .where(frames.c.state == state, frames.c.captured_at.is_not(None))
            .order_by(frames.c.captured_at)
            .limit(1)
        )
        with self.reading() as connection:
            return connection.execute(query).scalar()

    def _frame(self, condition: ColumnElement[bool]) -> FrameRow | None:
        query = select(*(frames.c[name] for name in COLUMNS)).where(condition)
        with self.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else frame_row(row)


def frame_row(row: Mapping[Any, Any]) -> FrameRow:
    """A row of the table as the program's own type."""
    return FrameRow(**{**row, "detections": row["detections"] or ()})


def add_frame(connection: Connection, row: FrameRow) -> bool:
    """:meth:`FrameQueries.add` within a transaction of the caller's."""
    now = datetime.now(UTC)
    known = or_(frames.c.sha256 == row.sha256, frames.c.uploaded_sha256 == row.uploaded_sha256)
    if connection.execute(select(frames.c.sha256).where(known)).first():
        return False
    connection.execute(_insert_or_ignore(connection, column_values(row, now)))
    if connection.execute(select(frames.c.changed_at).where(frames.c.sha256 == row.sha256)).scalar() != now:
        return False  # another process entered it between the two statements
    record_transition(connection, row.sha256, None, row.state, now, row.note)
    return True


def add_new_frames(connection: Connection, rows: Sequence[FrameRow]) -> None:
    """Enter frames that the ledger does not have, all at once.

    Raises :class:`sqlalchemy.exc.IntegrityError` if it has one of them.
    """
    now = datetime.now(UTC)
    connection.execute(frames.insert(), [column_values(row, now) for row in rows])
    entered = [
        {"sha256": row.sha256, "from_state": None, "to_state": row.state, "at": now, "note": row.note}
        for row in rows
    ]
    connection.execute(transitions.insert(), entered)


def move_frame(
    connection: Connection,
    sha256: str,
    from_: State | Sequence[State],
    to: State,
    *,
    note: str | None = None,
    **values: Any,
) -> bool:
    """:meth:`FrameQueries.move` within a transaction of the caller's."""
    now = datetime.now(UTC)
    locked = select(frames.c.state, frames.c.phash).where(frames.c.sha256 == sha256).with_for_update()
    before, phash = connection.execute(locked).tuples().first() or (None, None)
    if before is None or before not in ((from_,) if isinstance(from_, str) else from_):
        return False
    columns = {"state": to, "changed_at": now, **values}
    if (before in UNIQUE_STATES) != (to in UNIQUE_STATES):
        columns |= hash_bands(phash if to in UNIQUE_STATES else None)
    connection.execute(update(frames).where(frames.c.sha256 == sha256).values(columns))
    record_transition(connection, sha256, before, to, now, note)
    return True


def move_frames(
    connection: Connection, values: Mapping[str, Mapping[str, Any]], from_: State, to: State
) -> int:
    """Move many frames, by SHA-256 with the columns to set; those in another state stay. Returns how many."""
    now, moved = datetime.now(UTC), dict[str, str | None]()
    for batch in batched(sorted(values)):  # always in the same order: two writers never both wait
        known = select(frames.c.sha256, frames.c.phash)
        locked = known.where(frames.c.sha256.in_(batch), frames.c.state == from_)
        ordered = locked.order_by(frames.c.sha256).with_for_update()
        moved |= dict(connection.execute(ordered).tuples().all())
    if not moved:
        return 0
    rows = [{"moved": sha256, **values[sha256]} for sha256 in moved]
    if (from_ in UNIQUE_STATES) != (to in UNIQUE_STATES):
        for row in rows:
            row |= hash_bands(moved[row["moved"]] if to in UNIQUE_STATES else None)
    columns: dict[str, Any] = {"state": to, "changed_at": now}
    columns |= {name: bindparam(name) for name in rows[0] if name != "moved"}
    connection.execute(update(frames).where(frames.c.sha256 == bindparam("moved")).values(columns), rows)
    entries = [
        {"sha256": sha256, "from_state": from_, "to_state": to, "at": now, "note": None} for sha256 in moved
    ]
    connection.execute(transitions.insert(), entries)
    return len(moved)


def hash_bands(phash: str | None) -> dict[str, int | None]:
    """A perceptual hash's bands of 16 bits each, by their columns; all ``None`` for no hash.

    A frame that no other can re-encode (received, duplicate, refused) has none: the index of deduplication
    must not grow with those.

    >>> hash_bands("0001000200030004")
    {'band0': 1, 'band1': 2, 'band2': 3, 'band3': 4}
    """
    return {f"band{i}": int(phash[4 * i : 4 * i + 4], 16) if phash else None for i in range(HASH_BANDS)}


def record_transition(
    connection: Connection, sha256: str, before: str | None, after: str, at: datetime, note: str | None
) -> None:
    """Write down that a frame went from one state to another, within a transaction of the caller's."""
    values = {"sha256": sha256, "from_state": before, "to_state": after, "at": at, "note": note}
    connection.execute(transitions.insert().values(values))


def _insert_or_ignore(connection: Connection, values: Mapping[str, Any]) -> Any:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgres

        return insert_postgres(frames).values(values).on_conflict_do_nothing()
    return frames.insert().values(values)  # SQLite has one writer at a time


def column_values(row: FrameRow, now: datetime) -> dict[str, Any]:
    """A row's columns, the bands of its hash included (:func:`hash_bands`); ``now`` is when it changes."""
    values = {name: getattr(row, name) for name in COLUMNS}
    bands = hash_bands(row.phash if row.state in UNIQUE_STATES else None)
    return values | {"received_at": row.received_at or now, "changed_at": now} | bands
