"""Annotations of frames' tasks, as the ledger keeps them until they have grown into the dataset, and
after.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, func, select, update

from trashnet.boxes import Box
from trashnet.ledger.database import Database
from trashnet.ledger.frames import move_frame
from trashnet.ledger.tables import annotations, frames

Outcome = Literal["boxes", "nothing", "skipped", "refused"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
USABLE: tuple[Outcome, ...] = ("boxes", "nothing")  # of these the dataset learns


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationRow:
    """One annotation of a task, boxes in pixels; ``turn`` is ``None`` until it has grown into the dataset."""

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


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """The labels of one frame: its newest usable annotation, and the ids of all usable ones, which that one
    supersedes.
    """

    newest: AnnotationRow
    annotation_ids: tuple[int, ...]


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
        moved = 0
        with self.transaction() as connection:
            for sha256, task_id in task_ids.items():
                moved += move_frame(connection, sha256, "accepted", "tasked", task_id=task_id)
        return moved

    def annotations_of(self, sha256: str) -> list[AnnotationRow]:
        """A frame's annotations, oldest first."""
        query = (
            select(annotations)
            .where(annotations.c.sha256 == sha256)
            .order_by(annotations.c.labelled_at, annotations.c.annotation_id)
        )
        with self.reading() as connection:
            return [_annotation(row) for row in connection.execute(query).mappings()]

    def record_annotations(
        self, sha256: str, rows: Sequence[AnnotationRow], *, finished: bool, note: str | None = None
    ) -> RecordedAnnotations:
        """Write the present annotations of one frame, and move the frame with them.

        With ``finished`` a ``tasked`` frame becomes ``labelled``. Where none of them is usable any more, a
        ``labelled`` frame that has not grown yet becomes ``tasked`` again. An annotation that has grown and
        was changed grows again.

        Args:
            sha256: The frame.
            rows: All its annotations as they are now, withdrawn ones as ``refused``.
            finished: Whether the frame needs no further annotation.
            note: What the frame's transition to ``labelled`` notes.
        """
        with self.transaction() as connection:
            before = _contents(connection, sha256)
            written = [row for row in rows if _write(connection, row)]
            labelled = finished and move_frame(connection, sha256, "tasked", "labelled", note=note)
            if written and not any(row.outcome in USABLE for row in rows):
                turn = connection.execute(select(frames.c.turn).where(frames.c.sha256 == sha256)).scalar()
                if turn is None:
                    move_frame(connection, sha256, "labelled", "tasked", note="its annotation was taken back")
        changed = [row for row in written if before.get(row.annotation_id) != _content(row)]
        return RecordedAnnotations(tuple(changed), labelled)

    def frames_awaiting_second_annotation(self, before: datetime) -> list[str]:
        """The SHA-256s of tasked frames that have a usable annotation made at or before this time."""
        query = (
            select(frames.c.sha256)
            .join(annotations, annotations.c.sha256 == frames.c.sha256)
            .where(
                frames.c.state == "tasked",
                annotations.c.outcome.in_(USABLE),
                annotations.c.labelled_at <= before,
            )
            .distinct()
        )
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def count_queue(self) -> Counter[frozenset[Outcome]]:
        """How many tasked frames have annotations of which outcomes; costs what is in the queue.

        The empty set counts the frames that have no annotation.
        """
        query = (
            select(frames.c.sha256, annotations.c.outcome)
            .outerjoin(annotations, annotations.c.sha256 == frames.c.sha256)
            .where(frames.c.state == "tasked")
            .order_by(frames.c.sha256)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return Counter(
            frozenset(outcome for _, outcome in group if outcome is not None)
            for _, group in groupby(rows, key=lambda row: row[0])
        )

    def annotations_by_several_people(self) -> Iterator[list[AnnotationRow]]:
        """Per frame that two or more people annotated, the newest usable annotation of each of them.

        By SHA-256.
        """
        query = (
            select(annotations)
            .where(annotations.c.outcome.in_(USABLE))
            .order_by(annotations.c.sha256, annotations.c.labelled_at, annotations.c.annotation_id)
        )
        with self.reading() as connection:
            rows = [_annotation(row) for row in connection.execute(query).mappings()]
        for _, group in groupby(rows, key=lambda row: row.sha256):
            newest = {row.annotator: row for row in group}
            if len(newest) > 1:
                yield list(newest.values())

    def labels_to_grow(self, turn: str | None = None) -> list[FrameLabels]:
        """Per labelled frame its newest usable annotation among those planned for ``turn`` (``None``: for no
        turn yet); by SHA-256.
        """
        query = (
            select(annotations)
            .join(frames, frames.c.sha256 == annotations.c.sha256)
            .where(_growable(turn))
            .order_by(annotations.c.sha256, annotations.c.labelled_at, annotations.c.annotation_id)
        )
        with self.reading() as connection:
            rows = [_annotation(row) for row in connection.execute(query).mappings()]
        groups = (list(group) for _, group in groupby(rows, key=lambda row: row.sha256))
        return [FrameLabels(group[-1], tuple(row.annotation_id for row in group)) for group in groups]

    def count_labels_to_grow(self) -> int:
        """How many frames have labels that no turn holds yet: the length of :meth:`labels_to_grow`, without
        their boxes.
        """
        query = (
            select(func.count(annotations.c.sha256.distinct()))
            .select_from(annotations.join(frames, frames.c.sha256 == annotations.c.sha256))
            .where(_growable(None))
        )
        with self.reading() as connection:
            return int(connection.execute(query).scalar() or 0)


def _growable(turn: str | None) -> ColumnElement[bool]:
    planned = annotations.c.turn.is_(None) if turn is None else annotations.c.turn == turn
    return planned & annotations.c.outcome.in_(USABLE) & frames.c.state.in_(("labelled", "released"))


def _annotation(row: Mapping[Any, Any]) -> AnnotationRow:
    return AnnotationRow(**row)


def _content(row: AnnotationRow) -> tuple[str, str | None, tuple[Box, ...]]:
    return row.outcome, row.reason, row.boxes


def _contents(connection: Connection, sha256: str) -> dict[int, tuple[str, str | None, tuple[Box, ...]]]:
    columns = (annotations.c.annotation_id, annotations.c.outcome, annotations.c.reason, annotations.c.boxes)
    rows: Iterable[Any] = connection.execute(select(*columns).where(annotations.c.sha256 == sha256)).all()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def _write(connection: Connection, row: AnnotationRow) -> bool:
    """Insert an annotation or replace an older state of it; ``False`` if the ledger has it already.

    A changed annotation has to grow again: its ``turn`` is taken back. One that was only saved again keeps
    it.
    """
    values = {field.name: getattr(row, field.name) for field in fields(row)} | {"turn": None}
    same_id = annotations.c.annotation_id == row.annotation_id
    known = connection.execute(select(annotations).where(same_id)).mappings().one_or_none()
    if known is None:
        connection.execute(annotations.insert().values(values))
        return True
    unchanged = all(
        known[name] == values[name] for name in ("sha256", "outcome", "boxes", "reason", "annotator")
    )
    if unchanged and known["labelled_at"] >= row.labelled_at:
        return False
    if unchanged:
        values["turn"] = known["turn"]
    connection.execute(update(annotations).where(same_id).values(values))
    return True
