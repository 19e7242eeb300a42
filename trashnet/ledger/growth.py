"""What is to grow into the dataset: labels that no turn holds yet, but of frames that are set aside."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from sqlalchemy import Connection, delete, func, select, update

from trashnet.ledger.annotations import DELETED, USABLE, AnnotationKey, AnnotationRow, Outcome, annotation_row
from trashnet.ledger.database import Database, batched
from trashnet.ledger.tables import annotations, frames, set_aside

CHANGES: tuple[Outcome, ...] = (*USABLE, DELETED)  # a deleted annotation takes its label back


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """The label of one frame: its newest usable annotation.

    ``newest`` is ``None`` where every annotation was deleted: the frame has no label any more. ``keys`` are
    the annotations that are settled by it: those that the turn holds, or that no turn holds yet.
    """

    sha256: str
    newest: AnnotationRow | None
    keys: tuple[AnnotationKey, ...]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A labelled frame that cannot grow: why, and since when."""

    sha256: str
    reason: str
    since: datetime


class GrowthQueries(Database):
    """What growing asks about labels, and which frames it sets aside."""

    def labels_to_grow(self, turn: str | None = None) -> list[FrameLabels]:
        """The labels of frames whose annotations are planned for ``turn``, by SHA-256.

        ``None`` stands for annotations that no turn holds yet; frames that are set aside are left out.
        """
        with self.reading() as connection:
            return _labels(connection, _changed(connection, turn), turn)

    def count_labels_to_grow(self) -> int:
        """How many frames have labels that no turn holds yet: the length of :meth:`labels_to_grow`."""
        with self.reading() as connection:
            return len(_labelled(connection, _changed(connection, None)))

    def set_aside(self, digest: str, faults: Mapping[str, str]) -> None:
        """Take these frames, by SHA-256 with the reason, out of a turn's plan, and out of later ones."""
        now = datetime.now(UTC)
        with self.transaction() as connection:
            for batch in batched(sorted(faults)):
                planned = annotations.c.sha256.in_(batch) & (annotations.c.turn == digest)
                connection.execute(update(annotations).where(planned).values(turn=None))
                connection.execute(delete(set_aside).where(set_aside.c.sha256.in_(batch)))
                rows = [
                    {"sha256": sha256, "reason": faults[sha256], "since": now, "checked_at": now}
                    for sha256 in batch
                ]
                connection.execute(set_aside.insert(), rows)

    def labels_set_aside(self, limit: int) -> list[FrameLabels]:
        """The labels of frames that are set aside, of at most ``limit`` frames: those checked longest ago.

        A frame whose annotations were deleted before it grew has no keys.
        """
        order = (set_aside.c.checked_at, set_aside.c.sha256)
        with self.reading() as connection:
            sha256s = list(
                connection.execute(select(set_aside.c.sha256).order_by(*order).limit(limit)).scalars()
            )
            labels = {frame.sha256: frame for frame in _labels(connection, sha256s, None)}
        return [labels.get(sha256, FrameLabels(sha256, None, ())) for sha256 in sha256s]

    def recheck(self, faults: Mapping[str, str | None]) -> None:
        """Note what a check of frames that are set aside has found: ``None`` lets a frame grow again."""
        now = datetime.now(UTC)
        with self.transaction() as connection:
            for sha256, reason in sorted(faults.items()):
                same = set_aside.c.sha256 == sha256
                if reason is None:
                    connection.execute(delete(set_aside).where(same))
                else:
                    connection.execute(update(set_aside).where(same).values(reason=reason, checked_at=now))

    def count_set_aside(self) -> int:
        """How many frames are set aside; costs as many as there are."""
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(set_aside)).scalar() or 0)

    def frames_set_aside(self, limit: int) -> list[SetAside]:
        """At most ``limit`` of the frames that are set aside, with the reasons."""
        columns = (set_aside.c.sha256, set_aside.c.reason, set_aside.c.since)
        query = select(*columns).order_by(set_aside.c.checked_at, set_aside.c.sha256).limit(limit)
        with self.reading() as connection:
            return [SetAside(*row) for row in connection.execute(query).all()]


def _changed(connection: Connection, turn: str | None) -> list[str]:
    """Frames with annotations of this turn, or with ones that no turn holds and that may grow."""
    planned = annotations.c.turn.is_(None) if turn is None else annotations.c.turn == turn
    query = select(annotations.c.sha256).where(planned, annotations.c.outcome.in_(CHANGES)).distinct()
    changed = set(connection.execute(query).scalars())
    if turn is None:
        changed -= set(connection.execute(select(set_aside.c.sha256)).scalars())
    return sorted(changed)


# A join would leave the planner free to read a whole table: steps by index cost what they find.
def _labelled(connection: Connection, sha256s: Collection[str]) -> set[str]:
    """Those of these frames that are labelled, or were and are released."""
    labelled: set[str] = set()
    for batch in batched(sorted(sha256s)):
        query = select(frames.c.sha256, frames.c.state).where(frames.c.sha256.in_(batch))
        rows = connection.execute(query).all()
        labelled |= {sha256 for sha256, state in rows if state in ("labelled", "released")}
    return labelled


def _labels(connection: Connection, sha256s: Sequence[str], turn: str | None) -> list[FrameLabels]:
    order = (annotations.c.sha256, annotations.c.labelled_at, annotations.c.annotation_id)
    labels: list[FrameLabels] = []
    for batch in batched(sorted(_labelled(connection, sha256s))):
        query = select(annotations).where(annotations.c.sha256.in_(batch)).order_by(*order)
        rows = [annotation_row(row) for row in connection.execute(query).mappings()]
        for sha256, group in groupby(rows, key=lambda row: row.sha256):
            labels.append(_label(sha256, list(group), turn))
    return [label for label in labels if label.keys]


def _label(sha256: str, rows: Sequence[AnnotationRow], turn: str | None) -> FrameLabels:
    """A frame's label in a turn; what changed after the turn was planned grows with a later one."""
    usable = [row for row in rows if row.outcome in USABLE and (turn is None or row.turn is not None)]
    keys = [row.key for row in rows if row.turn == turn and row.outcome in CHANGES]
    return FrameLabels(sha256, usable[-1] if usable else None, tuple(keys))
