"""Turns of the flywheel on their way into the dataset: planned here first, marked as done here last."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, func, select, update

from trashnet.ledger.annotations import USABLE, AnnotationKey
from trashnet.ledger.database import Database, batched
from trashnet.ledger.frames import move_frame
from trashnet.ledger.tables import annotations, cursors, frames, turns

TurnState = Literal["planned", "done"]
UNLABELLED = ("tasked", "accepted")  # where a frame of the dataset is whose label was taken back


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

    def plan_turn(self, turn: TurnRow, keys: Sequence[AnnotationKey]) -> None:
        """Write down that these annotations are to become this turn."""
        by_installation: dict[str, list[int]] = {}
        for installation, annotation_id in keys:
            by_installation.setdefault(installation, []).append(annotation_id)
        with self.transaction() as connection:
            connection.execute(turns.insert().values(asdict(turn)))
            for installation, annotation_ids in by_installation.items():
                for batch in batched(annotation_ids):
                    planned = annotations.c.installation == installation
                    planned &= annotations.c.annotation_id.in_(batch)
                    connection.execute(update(annotations).where(planned).values(turn=turn.digest))

    def count_turns(self) -> int:
        """How many turns were ever planned, whatever became of them."""
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(turns)).scalar() or 0)

    def unfinished_turn(self) -> TurnRow | None:
        """The oldest turn that was planned and not finished, if there is one."""
        return next(iter(self._turns("planned")), None)

    def finish_turn(
        self,
        digest: str,
        *,
        turn: str | None,
        version: str | None,
        unlabelled: Sequence[str] = (),
        size: tuple[int, int] | None = None,
    ) -> None:
        """Mark a turn as done, under its name in the dataset log and the version that holds it.

        Its annotations and frames get that name. A released frame becomes ``labelled`` again, since no
        candidate was trained on its new label.

        Args:
            digest: Of the turn's plan.
            turn: Its name; ``None`` if nothing of the plan could be appended.
            version: Of the dataset.
            unlabelled: Frames that have no label any more: they become ``tasked``, unless somebody annotated
                them meanwhile.
            size: Frames and boxes that it holds, where that is not what was planned.
        """
        values: dict[str, object] = {
            "state": "done",
            "name": turn,
            "version": version,
            "finished_at": datetime.now(UTC),
        }
        if size is not None:
            values |= {"frames": size[0], "boxes": size[1]}
        with self.transaction() as connection:
            if turn is not None:
                _mark_grown(connection, digest, turn, unlabelled)
            connection.execute(update(annotations).where(annotations.c.turn == digest).values(turn=turn))
            connection.execute(update(turns).where(turns.c.digest == digest).values(values))

    def finished_turns(self) -> list[TurnRow]:
        """The turns that are part of the dataset, oldest first."""
        return [turn for turn in self._turns("done") if turn.name is not None]

    def count_untrained_frames(self) -> int:
        """How many frames of the dataset have a label that no published candidate has been trained on.

        A label that was changed or taken back since then counts as well.
        """
        untrained = frames.c.state.in_(("labelled", *UNLABELLED)) & frames.c.turn.is_not(None)
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).where(untrained)).scalar() or 0)

    def mark_trained(self, names: Sequence[str]) -> int:
        """Move the labelled frames of these turns on to ``released``: a published candidate was trained on
        them.

        A frame whose label was taken back by one of these turns is in no turn any more. Returns how many
        frames moved.
        """
        trained = (frames.c.state == "labelled") & frames.c.turn.in_(list(names))
        forgotten = frames.c.state.in_(UNLABELLED) & frames.c.turn.in_(list(names))
        moved = 0
        with self.transaction() as connection:
            for sha256 in connection.execute(select(frames.c.sha256).where(trained)).scalars().all():
                moved += move_frame(connection, sha256, "labelled", "released")
            connection.execute(update(frames).where(forgotten).values(turn=None))
        return moved

    def _turns(self, state: TurnState) -> list[TurnRow]:
        query = select(turns).where(turns.c.state == state).order_by(turns.c.started_at, turns.c.digest)
        with self.reading() as connection:
            return [TurnRow(**row) for row in connection.execute(query).mappings()]


def _mark_grown(connection: Connection, digest: str, turn: str, unlabelled: Sequence[str]) -> None:
    query = select(annotations.c.sha256).where(annotations.c.turn == digest).distinct()
    for batch in batched(sorted(connection.execute(query).scalars())):
        grown = frames.c.sha256.in_(batch)
        connection.execute(update(frames).where(grown).values(turn=turn))
        # The state is checked here: a planner that is offered it might begin with it, and read every frame.
        for sha256, state in connection.execute(select(frames.c.sha256, frames.c.state).where(grown)).all():
            if state == "released":
                move_frame(connection, sha256, "released", "labelled", note="its label changed")
    for batch in batched(sorted(unlabelled)):
        usable = annotations.c.sha256.in_(batch) & annotations.c.outcome.in_(USABLE)
        annotated = set(connection.execute(select(annotations.c.sha256).where(usable)).scalars())
        for sha256 in sorted(set(batch) - annotated):
            move_frame(connection, sha256, "labelled", "tasked", note="its label was taken back")


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
