"""The content of a data set in COCO, VOC or YOLO format as it was read, before it is validated.

The readers are part of this project because supervision 0.31, measured against them, loses what a log must
keep: it rounds boxes to float32 and VOC's to whole pixels, drops iscrowd, area, difficult, truncated and
every other key, swaps reversed corners silently, and stops at the first fault, whereas an operator needs the
whole list.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dataset.formats.faults import Fault, FaultKind
from dataset.frame import SPLITS, Split

Kind = Literal["coco", "voc", "yolo"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
# Names that data sets give to the splits.
SPLIT_OF_NAME: Mapping[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class SourceAnnotation:
    """One annotated object: its category's name, its box ``(x, y, w, h)`` as read, and where it was read."""

    category: str
    box: tuple[float, float, float, float]
    where: str
    crowd: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class SourceImage:
    """One image of a data set with its annotations.

    ``declared_size`` is ``(width, height)`` in pixels according to the annotations. If ``relative`` is true,
    boxes are fractions of the image's size (YOLO).
    """

    path: Path
    file_name: str
    declared_size: tuple[int, int] | None = None
    annotations: list[SourceAnnotation] = field(default_factory=list)
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
class SourceDataset:
    """A data set as read: its images, its categories' names, and the faults found so far."""

    images: list[SourceImage] = field(default_factory=list)
    categories: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def add_fault(self, kind: FaultKind, where: str, what: str) -> None:
        """Record a fault."""
        self.faults.append(Fault(kind, where, what))


def drop_incomplete_splits(images: Iterable[SourceImage]) -> None:
    """Remove the splits that folders or lists gave, unless train, val and test all occur.

    YOLO and VOC require a train and a val list, and many data sets have no test list: with those splits no
    frame of theirs could ever be used for testing.
    """
    images = list(images)
    if {image.split for image in images if image.split} != set(SPLITS):
        for image in images:
            image.split = None


def parse_number(value: Any) -> float | None:
    """Convert a JSON number to a float; return ``None`` for anything else, such as ``true`` and ``"12"``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def parse_time(value: Any) -> datetime:
    """Parse an ISO 8601 time, in UTC unless it names a time zone. Raises ``ValueError``."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a time such as 2026-11-22T15:30:00Z")
    when = datetime.fromisoformat(value)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
