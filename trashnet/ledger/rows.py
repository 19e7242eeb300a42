"""A frame as the ledger keeps it, and the states that it passes through."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from trashnet.boxes import Box
from trashnet.choice import FrameChoice, SelectedBy, UploadReason

State = Literal[
    "received", "accepted", "duplicate", "quarantined", "tasked", "labelled", "released", "withdrawn"
]
STATES: tuple[State, ...] = get_args(State)
UNIQUE_STATES: tuple[State, ...] = (
    "accepted",
    "tasked",
    "labelled",
    "released",
)  # known not to be a duplicate
ASKED_STATES: tuple[State, ...] = ("tasked", "labelled", "released")  # people are asked about it, or were


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """What the ledger knows of one frame.

    ``sha256`` names the bytes as stored (cleaned), ``uploaded_sha256`` those that the bin sent; ``key`` is
    the object's key in the store now. ``detections`` are the bin's, ``prediction`` is the teacher's, ``None``
    until a teacher has scored the frame. ``phash`` is 16 hexadecimal digits, ``None`` for a frame too plain
    to have one; ``descriptor`` holds the mean RGB of 8 x 8 cells, 192 bytes. ``score`` is the acquisition
    score. ``reason`` is what the sidecar says, ``upload_reason`` what that means, and ``selected_by`` how
    selection chose the frame last; ``None`` where nobody knows.
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
    upload_reason: UploadReason | None = None
    selected_by: SelectedBy | None = None
    detections: tuple[Box, ...] = ()
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
    prediction: tuple[Box, ...] | None = None
    model: str | None = None
    task_id: int | None = None
    turn: str | None = None

    @property
    def choice(self) -> FrameChoice:
        """How the frame was chosen."""
        return FrameChoice(self.upload_reason, self.selected_by)
