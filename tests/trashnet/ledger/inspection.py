"""Ledger queries that only tests need."""

from datetime import datetime

from sqlalchemy import select

from trashnet.ledger import FrameRow, Ledger, State
from trashnet.ledger.frames import COLUMNS, frame_row
from trashnet.ledger.tables import frames, transitions

Transition = tuple[State | None, State, datetime, str | None]


def frames_in_state(ledger: Ledger, *states: State) -> list[FrameRow]:
    """Frames in these states, oldest capture first, then by SHA-256."""
    query = (
        select(*(frames.c[name] for name in COLUMNS))
        .where(frames.c.state.in_(states))
        .order_by(frames.c.captured_at, frames.c.sha256)
    )
    with ledger.reading() as connection:
        return [frame_row(row) for row in connection.execute(query).mappings()]


def history(ledger: Ledger, sha256: str) -> list[Transition]:
    """A frame's transitions, oldest first: from, to, when, note."""
    columns = (transitions.c.from_state, transitions.c.to_state, transitions.c.at, transitions.c.note)
    query = select(*columns).where(transitions.c.sha256 == sha256).order_by(transitions.c.id)
    with ledger.reading() as connection:
        return [(before, after, at, note) for before, after, at, note in connection.execute(query).all()]
