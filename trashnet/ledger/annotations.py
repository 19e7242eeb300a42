"""Answers that people gave, as the ledger keeps them until they have grown into the dataset, and after."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, select, update

from trashnet.ledger.tables import annotations, frames

Outcome = Literal["boxes", "nothing", "skipped", "refused"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
USABLE: tuple[Outcome, ...] = ("boxes", "nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One annotation of a task: ``boxes`` as ``[{"label", "box": [x, y, w, h]}]`` in pixels; ``turn`` is ``None`` until it has grown."""

    annotation_id: int
    task_id: int
    sha256: str
    annotator: str
    labelled_at: datetime
    outcome: Outcome
    boxes: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    seconds: float | None = None
    turn: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a frame's people said in the end: the newest usable answer, and all annotations that it settles."""

    newest: AnswerRow
    annotation_ids: tuple[int, ...]


def write_answer(connection: Connection, answer: AnswerRow) -> bool:
    """Insert an annotation or replace an older state of it; ``False`` if the ledger says the same already.

    A changed answer has to grow again: its ``turn`` is taken back.
    """
    values = asdict(answer) | {"turn": None}
    known = (
        connection.execute(select(annotations).where(annotations.c.annotation_id == answer.annotation_id))
        .mappings()
        .one_or_none()
    )
    if known is None:
        connection.execute(annotations.insert().values(values))
        return True
    said = {"sha256", "outcome", "boxes", "reason", "annotator"}
    if all(known[name] == values[name] for name in said) and known["labelled_at"] >= answer.labelled_at:
        return False
    if all(known[name] == values[name] for name in said):
        values["turn"] = known["turn"]  # touched, not changed
    connection.execute(
        update(annotations).where(annotations.c.annotation_id == answer.annotation_id).values(values)
    )
    return True


def answers_to_grow(connection: Connection, turn: str | None) -> list[Answer]:
    """Per labelled frame its newest usable answer among those of ``turn`` (``None``: of no turn yet), in the order of SHA-256."""
    mine = annotations.c.turn.is_(None) if turn is None else annotations.c.turn == turn
    query = (
        select(annotations)
        .join(frames, frames.c.sha256 == annotations.c.sha256)
        .where(mine, annotations.c.outcome.in_(USABLE), frames.c.state.in_(("labelled", "released")))
        .order_by(annotations.c.sha256, annotations.c.labelled_at, annotations.c.annotation_id)
    )
    by_frame: dict[str, list[AnswerRow]] = {}
    for row in connection.execute(query).mappings():
        by_frame.setdefault(row["sha256"], []).append(AnswerRow(**row))
    return [Answer(rows[-1], tuple(row.annotation_id for row in rows)) for rows in by_frame.values()]
