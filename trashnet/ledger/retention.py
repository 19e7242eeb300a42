"""Retention: rows let go of objects in quarantine, old histories are thinned out, and both are counted.

A row is never removed. The ledger is changed first: what it has let go of is removed from the store
afterwards, and is recognised by it if the process dies in between.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, takewhile
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from trashnet.ledger.database import Database, batched
from trashnet.ledger.rows import State
from trashnet.ledger.tables import cursors, frames, removals, transitions

REFUSED_STATES: tuple[State, ...] = ("quarantined", "duplicate")  # their objects lie in quarantine
SETTLED_STATES: tuple[State, ...] = ("released", *REFUSED_STATES)  # nothing more is to happen to these frames
TRANSITIONS = "transitions"  # in the table of removals, and the name of the cursor


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed, such as ``quarantine/duplicate``: how many of it, and how many bytes."""

    what: str
    count: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class ExpiredRefusal:
    """A refused frame whose objects in quarantine have been there for long enough.

    ``keys`` are those objects', of which ``frames.key`` must be one. The row is left alone if it has changed
    since ``unchanged_since``.
    """

    sha256: str
    keys: tuple[str, ...]
    bytes: int
    what: str
    unchanged_since: datetime
    note: str


@dataclass(frozen=True, slots=True)
class TransitionPage:
    """Transitions up to the one with the id ``last`` were looked at; those with ``ids`` explain nothing."""

    last: int
    ids: tuple[int, ...]


class RetentionQueries(Database):
    """What retention asks and writes."""

    def removals(self) -> list[Removal]:
        """What retention has removed so far, by name."""
        query = select(removals.c.what, removals.c.count, removals.c.bytes).order_by(removals.c.what)
        with self.reading() as connection:
            return [Removal(*row) for row in connection.execute(query).all()]

    def record_removal(self, removal: Removal) -> None:
        """Count what was removed elsewhere."""
        with self.transaction() as connection:
            _count(connection, [removal])

    def release_objects(self, expired: Sequence[ExpiredRefusal]) -> set[str]:
        """Let rows of refused frames go of their objects, with a transition and a note; which rows that were.

        A row that is not refused any more, names another object or has changed since is left alone.
        """
        by_sha256, now, released = {one.sha256: one for one in expired}, datetime.now(UTC), list[str]()
        columns = (frames.c.sha256, frames.c.state, frames.c.key, frames.c.changed_at)
        with self.transaction() as connection:
            for batch in batched(sorted(by_sha256)):  # always in the same order: two writers never both wait
                locked = select(*columns).where(frames.c.sha256.in_(batch)).order_by(frames.c.sha256)
                entries = []
                for sha256, state, key, changed_at in connection.execute(locked.with_for_update()).all():
                    one = by_sha256[sha256]
                    if state in REFUSED_STATES and key in one.keys and changed_at <= one.unchanged_since:
                        entries.append(
                            {"sha256": sha256, "from_state": state, "to_state": state, "at": now}
                            | {"note": one.note}
                        )
                if entries:
                    released += [entry["sha256"] for entry in entries]
                    let_go = update(frames).where(frames.c.sha256 == bindparam("released"))
                    rows = [{"released": entry["sha256"]} for entry in entries]
                    connection.execute(let_go.values(key=None, changed_at=now), rows)
                    connection.execute(transitions.insert(), entries)
            _count(connection, (_objects_of(by_sha256[sha256]) for sha256 in released))
        return set(released)

    def removable_transitions(self, after: int, before: datetime, limit: int) -> TransitionPage | None:
        """The next ``limit`` transitions that are older than ``before``, and which of them explain nothing.

        See :meth:`remove_transitions`. ``None`` if there are no more.
        """
        with self.reading() as connection:
            return _page(connection, after, before, limit)

    def thinned_until(self) -> int:
        """The id of the last transition that :meth:`remove_transitions` looked at."""
        with self.reading() as connection:
            return _position(connection)

    def remove_transitions(self, before: datetime, limit: int) -> TransitionPage | None:
        """Look at the next ``limit`` transitions that are older than ``before``; ``None`` if there are none.

        Of a frame that is settled (released, duplicate or quarantined) and has not changed since ``before``
        those are kept that say how it came, how it got into its state, and what happened last. Transitions of
        other frames are kept: of a frame that settles later they are removed later. Each is looked at once.
        """
        with self.transaction() as connection:
            page = _page(connection, _position(connection), before, limit, lock=True)
            if page is not None:
                for batch in batched(page.ids):
                    connection.execute(transitions.delete().where(transitions.c.id.in_(batch)))
                if page.ids:
                    _count(connection, [Removal(TRANSITIONS, len(page.ids))])
                position = str(page.last)
                known = update(cursors).where(cursors.c.name == TRANSITIONS).values(value=position)
                if not connection.execute(known).rowcount:
                    connection.execute(cursors.insert().values(name=TRANSITIONS, value=position))
        return page


def _position(connection: Connection) -> int:
    query = select(cursors.c.value).where(cursors.c.name == TRANSITIONS)
    return int(connection.execute(query).scalar() or 0)


def _page(
    connection: Connection, after: int, before: datetime, limit: int, *, lock: bool = False
) -> TransitionPage | None:
    columns = transitions.c
    query = select(columns.id, columns.sha256, columns.at).where(columns.id > after)
    rows = connection.execute(query.order_by(columns.id).limit(limit)).all()
    old = list(takewhile(lambda row: row[2] < before, rows))
    if not old:
        return None
    ids: list[int] = []
    for batch in batched(sorted({row[1] for row in old})):
        # The state is checked here: a planner that is offered it might begin with it, and read every frame.
        states = select(frames.c.sha256, frames.c.state, frames.c.changed_at).where(
            frames.c.sha256.in_(batch)
        )
        states = states.order_by(frames.c.sha256)
        found = connection.execute(states.with_for_update() if lock else states).all()
        settled = [sha256 for sha256, state, at in found if state in SETTLED_STATES and at < before]
        ids += _superfluous(connection, settled)
    return TransitionPage(old[-1][0], tuple(ids))


def _superfluous(connection: Connection, sha256s: Collection[str]) -> Iterator[int]:
    """The ids of these frames' transitions but the first, the last, and the last to another state."""
    if not sha256s:
        return
    columns = transitions.c
    query = select(columns.id, columns.sha256, columns.from_state, columns.to_state)
    mine = query.where(columns.sha256.in_(sha256s)).order_by(columns.sha256, columns.id)
    for _, group in groupby(connection.execute(mine).all(), key=lambda row: row[1]):
        history = list(group)
        changes = [row[0] for row in history if row[2] != row[3]]
        kept = {history[0][0], history[-1][0], *changes[-1:]}
        yield from (row[0] for row in history if row[0] not in kept)


def _objects_of(expired: ExpiredRefusal) -> Removal:
    return Removal(expired.what, len(expired.keys), expired.bytes)


def _count(connection: Connection, removed: Iterable[Removal]) -> None:
    sums: dict[str, tuple[int, int]] = {}
    for one in removed:
        count, size = sums.get(one.what, (0, 0))
        sums[one.what] = count + one.count, size + one.bytes
    for what, (count, size) in sorted(sums.items()):
        _add(connection, {"what": what, "count": count, "bytes": size, "last_at": datetime.now(UTC)})


def _add(connection: Connection, values: dict[str, Any]) -> None:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgres

        insert: Any = insert_postgres(removals)
    else:
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        insert = insert_sqlite(removals)
    more = insert.excluded
    sums = {name: removals.c[name] + more[name] for name in ("count", "bytes")}
    upsert = insert.values(values).on_conflict_do_update(
        index_elements=["what"], set_=sums | {"last_at": more.last_at}
    )
    connection.execute(upsert)
