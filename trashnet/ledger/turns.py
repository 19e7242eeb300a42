"""Turns of the flywheel on their way into the dataset: planned here first, marked as done here last."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import func, select, update

from trashnet.ledger.database import Database, batched
from trashnet.ledger.frames import move_frame
from trashnet.ledger.tables import annotations, cursors, frames, turns

TurnState = Literal["planned", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """One turn: the digest of the frames and labels that it was planned with.

    Once done, its name and the dataset's version.

    ``name`` stays ``None`` where every annotation of the plan was changed before it could be appended.
    """

    digest: str
    state: TurnState
    started_at: datetime
    frames: int
    boxes: int
    name: str | None = None
    finished_at: datetime | None = None
    version: str | None = None


class TurnQueries(Database):
    """What growing, training and publishing ask and write."""

    def plan_turn(self, turn: TurnRow, annotation_ids: Sequence[int]) -> None:
        """Write down that these annotations are to become this turn."""
        with self.transaction() as connection:
            connection.execute(turns.insert().values(asdict(turn)))
            for batch in batched(annotation_ids):
                planned = annotations.c.annotation_id.in_(batch)
                connection.execute(update(annotations).where(planned).values(turn=turn.digest))

    def unfinished_turn(self) -> TurnRow | None:
        """The oldest turn that was planned and not finished, if there is one."""
        return next(iter(self._turns("planned")), None)

    def finish_turn(self, digest: str, *, turn: str | None, version: str | None) -> None:
        """Mark a turn as done, under its name in the dataset log and the version that holds it.

        Its annotations and frames get that name.
        """
        values = {"state": "done", "name": turn, "version": version, "finished_at": datetime.now(UTC)}
        with self.transaction() as connection:
            if turn is not None:
                grown = select(annotations.c.sha256).where(annotations.c.turn == digest)
                connection.execute(update(frames).where(frames.c.sha256.in_(grown)).values(turn=turn))
            connection.execute(update(annotations).where(annotations.c.turn == digest).values(turn=turn))
            connection.execute(update(turns).where(turns.c.digest == digest).values(values))

    def finished_turns(self) -> list[TurnRow]:
        """The turns that are part of the dataset, oldest first."""
        return [turn for turn in self._turns("done") if turn.name is not None]

    def count_untrained_frames(self) -> int:
        """How many frames are in the dataset with labels that no published candidate has been trained on."""
        untrained = (frames.c.state == "labelled") & frames.c.turn.is_not(None)
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).where(untrained)).scalar() or 0)

    def mark_trained(self, names: Sequence[str]) -> int:
        """Move the labelled frames of these turns on to ``released``: a published candidate was trained on
        them.

        Returns how many frames moved.
        """
        trained = (frames.c.state == "labelled") & frames.c.turn.in_(list(names))
        moved = 0
        with self.transaction() as connection:
            for sha256 in connection.execute(select(frames.c.sha256).where(trained)).scalars().all():
                moved += move_frame(connection, sha256, "labelled", "released")
        return moved

    def _turns(self, state: TurnState) -> list[TurnRow]:
        query = select(turns).where(turns.c.state == state).order_by(turns.c.started_at, turns.c.digest)
        with self.reading() as connection:
            return [TurnRow(**row) for row in connection.execute(query).mappings()]


class CursorQueries(Database):
    """How far a reader of another system has read it."""

    def cursor(self, name: str) -> str | None:
        """The position of the reader of that name; ``None`` if it has not read yet."""
        with self.reading() as connection:
            return connection.execute(select(cursors.c.value).where(cursors.c.name == name)).scalar()

    def set_cursor(self, name: str, value: str) -> None:
        """Remember the position of the reader of that name."""
        known = update(cursors).where(cursors.c.name == name).values(value=value)
        with self.transaction() as connection:
            if not connection.execute(known).rowcount:
                connection.execute(cursors.insert().values(name=name, value=value))
