"""Annotations of frames' tasks, as the ledger keeps them until they have grown into the dataset, and
after.

An annotation is known by the installation of Label Studio that it was made in, and by its id there: every
installation counts from 1.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, get_args

from sqlalchemy import Connection, func, select, update

from trashnet.boxes import Box
from trashnet.ledger.counters import TASKS_MADE, count_up
from trashnet.ledger.database import Database, LedgerError, batched
from trashnet.ledger.frames import move_frame, move_frames
from trashnet.ledger.tables import annotations, frames

Outcome = Literal["boxes", "nothing", "skipped", "refused", "deleted"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
USABLE: tuple[Outcome, ...] = ("boxes", "nothing")  # these enter the dataset
DELETED: Outcome = "deleted"
TASK_GONE = "its task is gone from Label Studio"
NO_TASK = 0  # of an annotation whose task is gone: Label Studio may give the task's number again

AnnotationKey = tuple[str, int]  # installation and id


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationRow:
    """One annotation of a task, boxes in pixels; ``turn`` is ``None`` until it has grown into the dataset.

    ``prelabelled`` says whether its task showed a model's boxes to start from; ``None`` is unknown.
    ``installation`` is empty for annotations that a ledger before 0.3 recorded, until they are seen again.
    """

    installation: str = ""
    annotation_id: int
    task_id: int
    sha256: str
    annotator: str
    labelled_at: datetime
    outcome: Outcome
    boxes: tuple[Box, ...] = ()
    reason: str | None = None
    seconds: float | None = None
    turn: str | None = None
    prelabelled: bool | None = None

    @property
    def key(self) -> AnnotationKey:
        """Installation and id."""
        return self.installation, self.annotation_id


@dataclass(frozen=True, slots=True)
class RecordedAnnotations:
    """What recording a frame's annotations changed.

    ``changed`` are those that are new or whose outcome, reason or boxes differ from before; ``labelled`` says
    whether the frame became ``labelled``.
    """

    changed: tuple[AnnotationRow, ...]
    labelled: bool


class AnnotationQueries(Database):
    """What the labelling room asks and writes."""

    def mark_tasked(self, task_ids: Mapping[str, int]) -> int:
        """Move accepted frames, by SHA-256, on to ``tasked`` with the ids of their tasks.

        Returns how many moved.
        """
        columns = {sha256: {"task_id": task_id} for sha256, task_id in task_ids.items()}
        with self.transaction() as connection:
            if moved := move_frames(connection, columns, "accepted", "tasked"):
                count_up(connection, TASKS_MADE, moved)
        return moved

    def annotations_of(self, sha256: str) -> list[AnnotationRow]:
        """A frame's annotations, oldest first."""
        query = (
            select(annotations)
            .where(annotations.c.sha256 == sha256)
            .order_by(annotations.c.labelled_at, annotations.c.annotation_id)
        )
        with self.reading() as connection:
            return [annotation_row(row) for row in connection.execute(query).mappings()]

    def record_annotations(
        self, sha256: str, rows: Sequence[AnnotationRow], *, finished: bool, note: str | None = None
    ) -> RecordedAnnotations:
        """Write the present annotations of one frame, and move the frame with them.

        With ``finished`` a ``tasked`` frame becomes ``labelled``. Where none of its annotations is usable any
        more, a ``labelled`` frame that has not grown yet becomes ``tasked`` again. An annotation that has
        grown and was changed or deleted grows again, whether or not its frame was released.

        Args:
            sha256: The frame.
            rows: All its annotations as they are now, deleted ones as ``deleted``.
            finished: Whether the frame needs no further annotation.
            note: What the frame's transition to ``labelled`` notes.

        Raises:
            LedgerError: One of them is known as an annotation of another frame; nothing is written.
        """
        with self.transaction() as connection:
            written = [(row, _write(connection, row)) for row in rows]
            labelled = finished and move_frame(connection, sha256, "tasked", "labelled", note=note)
            if any(write.written for _, write in written):
                _take_back(connection, sha256, [write.turn for _, write in written if write.taken_back])
        return RecordedAnnotations(tuple(row for row, write in written if write.changed), labelled)

    def frames_of_annotations(self, installation: str, annotation_ids: Sequence[int]) -> dict[int, str]:
        """The frames, by SHA-256, of those annotations of an installation that are known."""
        found: dict[int, str] = {}
        with self.reading() as connection:
            for batch in batched(annotation_ids):
                mine = (annotations.c.installation == installation) & annotations.c.annotation_id.in_(batch)
                rows = connection.execute(
                    select(annotations.c.annotation_id, annotations.c.sha256).where(mine)
                )
                found |= {row.annotation_id: row.sha256 for row in rows}
        return found

    def tasked_frames(self) -> list[tuple[str, int | None]]:
        """Every tasked frame's SHA-256 and task, by SHA-256; costs what is in the queue."""
        query = select(frames.c.sha256, frames.c.task_id).where(frames.c.state == "tasked")
        with self.reading() as connection:
            rows = connection.execute(query.order_by(frames.c.sha256)).all()
        return [(sha256, task_id) for sha256, task_id in rows]

    def return_to_accepted(self, sha256: str, task_id: int | None) -> bool:
        """Move a tasked frame whose task is gone back to ``accepted``; ``False`` if it has another task now.

        It keeps the number of that task, which says that it was asked about before. Of its annotations the
        usable ones stay; the others are gone with the task.
        """
        with self.transaction() as connection:
            locked = select(frames.c.task_id).where(frames.c.sha256 == sha256).with_for_update()
            if connection.execute(locked).scalar() != task_id:
                return False
            if not move_frame(connection, sha256, "tasked", "accepted", note=f"task {task_id} is gone"):
                return False
            mine = annotations.c.sha256 == sha256
            idle = mine & annotations.c.outcome.in_(("skipped", "refused"))
            gone = {"outcome": DELETED, "boxes": (), "reason": TASK_GONE}
            connection.execute(update(annotations).where(mine).values(task_id=NO_TASK))
            connection.execute(update(annotations).where(idle).values(gone))
        return True

    def frames_awaiting_second_annotation(self, before: datetime) -> list[str]:
        """The SHA-256s of tasked frames that have a usable annotation made at or before this time."""
        usable = annotations.c.outcome.in_(USABLE) & (annotations.c.labelled_at <= before)
        waiting: list[str] = []
        with self.reading() as connection:
            for batch in batched(_tasked(connection)):
                query = select(annotations.c.sha256).where(annotations.c.sha256.in_(batch), usable).distinct()
                waiting += connection.execute(query).scalars()
        return waiting

    def count_queue(self) -> Counter[frozenset[Outcome]]:
        """How many tasked frames have annotations of which outcomes; costs what is in the queue.

        The empty set counts the frames that have no annotation, or whose annotations were deleted.
        """
        outcomes: dict[str, set[Outcome]] = {}
        with self.reading() as connection:
            tasked = _tasked(connection)
            for batch in batched(tasked):
                columns = (annotations.c.sha256, annotations.c.outcome)
                present = annotations.c.sha256.in_(batch) & (annotations.c.outcome != DELETED)
                query = select(*columns).where(present)
                for sha256, outcome in connection.execute(query).all():
                    outcomes.setdefault(sha256, set()).add(outcome)
        return Counter(frozenset(outcomes.get(sha256, ())) for sha256 in tasked)

    def annotations_by_several_people(self) -> Iterator[list[AnnotationRow]]:
        """Per frame that two or more people annotated, the newest usable annotation of each of them.

        By SHA-256.
        """
        usable = annotations.c.outcome.in_(USABLE)
        several = (
            select(annotations.c.sha256)
            .where(usable)
            .group_by(annotations.c.sha256)
            .having(func.count(annotations.c.annotator.distinct()) > 1)
        )
        order = (annotations.c.sha256, annotations.c.labelled_at, annotations.c.annotation_id)
        rows: list[AnnotationRow] = []
        with self.reading() as connection:
            sha256s = list(connection.execute(several).scalars())
            for batch in batched(sorted(sha256s)):
                query = select(annotations).where(usable, annotations.c.sha256.in_(batch)).order_by(*order)
                rows += [annotation_row(row) for row in connection.execute(query).mappings()]
        for _, group in groupby(rows, key=lambda row: row.sha256):
            newest = {row.annotator: row for row in group}
            if len(newest) > 1:
                yield list(newest.values())


# A join would leave the planner free to read a whole table: two steps by index cost what they find.
def _tasked(connection: Connection) -> list[str]:
    query = select(frames.c.sha256).where(frames.c.state == "tasked").order_by(frames.c.sha256)
    return list(connection.execute(query).scalars())


def annotation_row(row: Mapping[Any, Any]) -> AnnotationRow:
    """A row of the table as the program's own type."""
    return AnnotationRow(**row)


@dataclass(frozen=True, slots=True)
class _Write:
    """What writing one annotation did.

    ``changed``: outcome, reason or boxes are others; ``taken_back``: it was deleted after a turn, ``turn``,
    had been planned with it.
    """

    written: bool
    changed: bool = False
    taken_back: bool = False
    turn: str | None = None


def _write(connection: Connection, row: AnnotationRow) -> _Write:
    """Insert an annotation or replace an older state of it.

    A changed annotation has to grow again: its ``turn`` is taken back. One that was only saved again keeps
    it, and so does one whose annotator has another address now.
    """
    values = {field.name: getattr(row, field.name) for field in fields(row)} | {"turn": None}
    known = _known(connection, row)
    if known is None:
        connection.execute(annotations.insert().values(values))
        return _Write(written=True, changed=True)
    if known["sha256"] != row.sha256:
        raise LedgerError(
            f"annotation {row.annotation_id} of Label Studio's installation {row.installation!r} is one of "
            f"frame {known['sha256']}, so it is not taken for frame {row.sha256}"
        )
    changed = any(known[name] != values[name] for name in ("outcome", "boxes", "reason"))
    if not changed and known["labelled_at"] >= row.labelled_at:
        # Whose annotation it is may be told better now, but when it was made may not.
        values |= {name: known[name] for name in ("labelled_at", "seconds")}
    if not changed:
        values["turn"] = known["turn"]
    if all(known[name] == value for name, value in values.items()):
        return _Write(written=False)
    same = (annotations.c.installation == known["installation"]) & (
        annotations.c.annotation_id == known["annotation_id"]
    )
    connection.execute(update(annotations).where(same).values(values))
    taken_back = changed and row.outcome == DELETED and known["turn"] is not None
    return _Write(written=True, changed=changed, taken_back=taken_back, turn=known["turn"])


def _known(connection: Connection, row: AnnotationRow) -> Mapping[Any, Any] | None:
    """The annotation as it was recorded before, perhaps by a program that did not know installations."""
    mine = select(annotations).where(annotations.c.annotation_id == row.annotation_id)
    known = connection.execute(mine.where(annotations.c.installation == row.installation)).mappings().first()
    if known is None and row.installation:
        older = mine.where(annotations.c.installation == "", annotations.c.sha256 == row.sha256)
        known = connection.execute(older.where(annotations.c.task_id == row.task_id)).mappings().first()
    return known


def _take_back(connection: Connection, sha256: str, turns: Sequence[str | None]) -> None:
    """Ask again about a frame without a usable annotation, unless a turn of the dataset holds its label.

    ``turns``: those that deleted annotations were planned for. Growing takes such a label out of the dataset.
    """
    usable = (annotations.c.sha256 == sha256) & annotations.c.outcome.in_(USABLE)
    if connection.execute(select(annotations.c.annotation_id).where(usable).limit(1)).first():
        return
    held = connection.execute(select(frames.c.turn).where(frames.c.sha256 == sha256)).scalar()
    if held is not None:
        return
    if turns:  # a run may have died after it had appended this label, and before it told the ledger
        connection.execute(update(frames).where(frames.c.sha256 == sha256).values(turn=turns[-1]))
    else:
        move_frame(connection, sha256, "labelled", "tasked", note="its annotation was taken back")
