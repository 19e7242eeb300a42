from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

State = Literal["received", "accepted", "duplicate", "quarantined", "tasked", "labelled", "released"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """What the ledger knows of one frame.

    ``sha256`` names the bytes as stored (cleaned), ``uploaded_sha256`` those that the bin sent; ``key`` is
    where the object lies now. ``detections`` (the bin's) and ``prediction`` (the teacher's) are lists of
    ``{"label", "score", "box": [x, y, w, h]}``, boxes in pixels. ``phash`` is 16 hexadecimal digits, ``None``
    for a frame too plain to have one; ``score`` is triage's, higher is worth more.
    """

    sha256: str
    uploaded_sha256: str
    state: State
    inbox_key: str
    key: str | None = None
    bin_id: str | None = None
    burst: str | None = None
    captured_at: datetime | None = None
    release: str | None = None
    reason: str | None = None
    detections: list[dict[str, Any]] = field(default_factory=list)
    width: int | None = None
    height: int | None = None
    phash: str | None = None
    descriptor: bytes | None = None
    received_at: datetime | None = None
    changed_at: datetime | None = None
    duplicate_of: str | None = None
    quarantine_reason: str | None = None
    note: str | None = None
    score: float | None = None
    explanation: str | None = None
    prediction: list[dict[str, Any]] | None = None
    model: str | None = None
    task_id: int | None = None
    turn: str | None = None
