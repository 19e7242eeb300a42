"""The JSON beside a frame: which bin took it, when, and what the bin's own model detected.

A bin writes it last, so its presence means that the upload is complete.

A sidecar that cannot be understood refuses its frame. One that is merely wrong about something (a clock in
1970, a release or a label that nobody knows, a box outside the picture) does not: the frame is worth keeping,
and what was wrong is noted.
"""

from collections import Counter
from collections.abc import Container, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ingest.object_keys import MAX_NAME_LENGTH, InboxKey
from ingest.params import IngestParams
from trashnet.boxes import Box

MAX_SHORT_TEXT_LENGTH, MAX_TEXT_LENGTH, MAX_NOTE_LENGTH = 128, 500, 2000
MAX_PIXEL = 1e6  # no camera takes wider pictures

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH, pattern=r"^[^\x00-\x1f\x7f]*$")]
ShortText = Annotated[Text, StringConstraints(max_length=MAX_SHORT_TEXT_LENGTH)]
BinId = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
Pixels = Annotated[float, Field(ge=-MAX_PIXEL, le=MAX_PIXEL, allow_inf_nan=False)]


class BadSidecar(Exception):
    """A sidecar that cannot be understood, and why."""


class SidecarBox(BaseModel):
    """One detection of the bin's model; ``box`` is ``(x, y, w, h)`` in pixels of the uploaded frame."""

    model_config = ConfigDict(strict=True, frozen=True)

    label: Annotated[Text, Field(min_length=1)]
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    box: Annotated[list[Pixels], Field(min_length=4, max_length=4)]


class Sidecar(BaseModel):
    """A sidecar as bins write it; ``release`` is null on a bin that has no model yet."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    bin_id: BinId
    captured_at: Text
    release: ShortText | None = None
    reason: Text | None = None
    burst: ShortText | None = None
    detections: Annotated[list[SidecarBox], Field(max_length=1000)] = []


def parse_sidecar(data: bytes, key: InboxKey) -> Sidecar:
    """Read a sidecar found at ``key``. Raises :class:`BadSidecar`, which names every fault."""
    try:
        sidecar = Sidecar.model_validate_json(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'sidecar'}: {fault['msg']}"
            for fault in error.errors(include_input=False)
        ]
        raise BadSidecar(shorten("; ".join(faults))) from None
    if sidecar.bin_id != key.bin_id:
        raise BadSidecar(f"bin_id: says {sidecar.bin_id!r}, but lies in the inbox of {key.bin_id!r}")
    return sidecar


def capture_time(value: str, now: datetime, params: IngestParams) -> tuple[datetime | None, str | None]:
    """The capture time in UTC, ``None`` if it cannot be right; and a note about what was wrong."""
    try:
        time = datetime.fromisoformat(value)
        note = "captured_at has no zone: taken as UTC" if time.tzinfo is None else None
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None, f"captured_at {value!r} is no time: arrival taken"
    if not params.not_before <= time <= now + timedelta(hours=params.clock_ahead_hours):
        return None, f"captured_at {value!r} cannot be right: arrival taken"
    return time, note


def usable_boxes(
    detections: Iterable[SidecarBox], width: int, height: int, labels: Container[str]
) -> tuple[tuple[Box, ...], list[str]]:
    """The detections of known labels, clipped to the frame, best first; and notes about those left out."""
    usable: list[Box] = []
    unknown, outside = Counter[str](), 0
    for detection in detections:
        x, y, w, h = detection.box
        box = Box(detection.label, x, y, w, h, detection.score).clipped(width, height)
        if box.label not in labels:
            unknown[box.label] += 1
        elif min(box.w, box.h) <= 0:
            outside += 1
        else:
            usable.append(box)
    notes = [f"{count} boxes of unknown label {label!r} left out" for label, count in sorted(unknown.items())]
    if outside:
        notes.append(f"{outside} boxes without area in the frame left out")
    return tuple(sorted(usable, key=lambda box: -box.confidence)), notes


def shorten(text: str) -> str:
    """The text, cut to the length of a note."""
    return text if len(text) <= MAX_NOTE_LENGTH else text[: MAX_NOTE_LENGTH - 4] + " ..."
