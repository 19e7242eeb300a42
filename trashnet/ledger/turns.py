"""Turns on their way into the dataset: planned here first, done here last."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, select, update

from trashnet.ledger.tables import annotations, frames, turns

PIECE = 500  # values in one statement: SQLite takes a limited number


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """One turn: ``digest`` of the frames and labels that it was planned with, and once it is done its name and the dataset's version.

    ``name`` stays ``None`` where every answer of the plan was changed before it could be appended.
    """

    digest: str
    state: Literal["planned", "done"]
    started_at: datetime
    frames: int
    boxes: int
    name: str | None = None
    finished_at: datetime | None = None
    version: str | None = None


def plan(connection: Connection, turn: TurnRow, annotation_ids: Sequence[int]) -> None:
    """Write a turn's plan, and into its annotations that they belong to it."""
    connection.execute(turns.insert().values(asdict(turn)))
    for start in range(0, len(annotation_ids), PIECE):
        some = annotation_ids[start : start + PIECE]
        connection.execute(
            update(annotations).where(annotations.c.annotation_id.in_(some)).values(turn=turn.digest)
        )


def finish(connection: Connection, digest: str, name: str | None, version: str | None) -> None:
    """Mark a turn as done: its annotations and frames learn its name."""
    mine = select(annotations.c.sha256).where(annotations.c.turn == digest)
    if name is not None:
        connection.execute(update(frames).where(frames.c.sha256.in_(mine)).values(turn=name))
    connection.execute(update(annotations).where(annotations.c.turn == digest).values(turn=name))
    done = {"state": "done", "name": name, "version": version, "finished_at": datetime.now(UTC)}
    connection.execute(update(turns).where(turns.c.digest == digest).values(done))


def listed(connection: Connection, state: Literal["planned", "done"]) -> list[TurnRow]:
    """The turns in this state, oldest first."""
    query = select(turns).where(turns.c.state == state).order_by(turns.c.started_at, turns.c.digest)
    return [TurnRow(**row) for row in connection.execute(query).mappings()]
