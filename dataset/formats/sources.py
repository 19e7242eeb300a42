"""What a data set in COCO, VOC or YOLO says, before anything of it is believed.

Each format is read by our own code. supervision 0.31 was measured against it and loses what a log must keep:
it rounds boxes to float32 and VOC's to whole pixels, drops iscrowd, area, difficult, truncated and every
other key, swaps reversed corners silently, and stops at the first fault where an operator needs the whole
list.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dataset.formats.faults import Fault, FaultKind
from dataset.log import SPLITS, Split

Kind = Literal["coco", "voc", "yolo"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
# Other people's words for our splits.
SPLIT_WORDS: Mapping[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One annotated object: its source's category name, its box ``(x, y, w, h)`` as found, and where it stands."""

    category: str
    box: tuple[float, float, float, float]
    where: str
    crowd: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Picture:
    """One image of a source with what is annotated on it.

    ``declared`` is the ``(width, height)`` its annotations speak of; ``relative`` says that boxes are
    fractions of it (YOLO).
    """

    path: Path
    file_name: str
    declared: tuple[int, int] | None = None
    things: list[Thing] = field(default_factory=list)
    relative: bool = False
    split: Split | None = None
    group: str | None = None
    bin_id: str | None = None
    burst: str | None = None
    captured_at: datetime | None = None
    labelled_at: datetime | None = None
    annotator: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Source:
    """A data set as read: its pictures and everything found wrong so far."""

    pictures: list[Picture] = field(default_factory=list)
    categories: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, kind: FaultKind, where: str, what: str) -> None:
        """Note something wrong."""
        self.faults.append(Fault(kind, where, what))


def only_if_complete(pictures: Iterable[Picture]) -> None:
    """Forget the splits that folders or lists gave unless train, val and test all occur.

    YOLO and VOC demand a train and a val list, and many sets have no more; taken at its word such a set could
    never be tested on.
    """
    pictures = list(pictures)
    if {picture.split for picture in pictures if picture.split} != set(SPLITS):
        for picture in pictures:
            picture.split = None


def number(value: Any) -> float | None:
    """A JSON number as a float; ``None`` for anything else (``true`` and ``"12"`` are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def instant(value: Any) -> datetime:
    """An ISO 8601 time, UTC unless it says otherwise. Raises ``ValueError``."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a time such as 2026-11-22T15:30:00Z")
    when = datetime.fromisoformat(value)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
