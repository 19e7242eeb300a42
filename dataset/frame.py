"""A frame of the dataset and its labels."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from trashnet.choice import FrameChoice, SelectedBy, UploadReason, read_choice

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Labels:
    """The boxes that a person drew on one frame.

    ``boxes``: float64 ``(N, 4)``, COCO ``(x, y, w, h)`` in pixels; ``class_ids``: int64 ``(N,)``, ids of the
    taxonomy; ``crowd``: bool ``(N,)``, COCO's ``iscrowd``; ``extra``: per box, the keys of its source that
    have no field here; ``prelabelled``: whether the annotator started from a model's boxes, ``None`` if
    nobody knows. Raises ``ValueError`` if the lengths differ.
    """

    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    extra: tuple[dict[str, Any], ...] = ()
    labelled_at: datetime | None = None
    annotator: str | None = None
    prelabelled: bool | None = None

    def __post_init__(self) -> None:
        if not self.extra:
            object.__setattr__(self, "extra", tuple({} for _ in self.class_ids))
        if not (
            self.boxes.shape == (len(self.class_ids), 4)
            and len(self.crowd) == len(self.extra) == len(self.class_ids)
        ):
            raise ValueError(
                f"boxes {self.boxes.shape}, {len(self.class_ids)} class ids, "
                f"{len(self.crowd)} crowd flags: lengths differ"
            )

    def __len__(self) -> int:
        return len(self.class_ids)

    def same_boxes(self, other: "Labels") -> bool:
        """Compare the boxes, but not annotator, time, and the boxes' ``id`` in their source."""
        return (
            np.array_equal(self.boxes, other.boxes)
            and np.array_equal(self.class_ids, other.class_ids)
            and np.array_equal(self.crowd, other.crowd)
            and [e | {"id": None} for e in self.extra] == [e | {"id": None} for e in other.extra]
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the dataset: its JPEG bytes, split, group, origin and newest labels."""

    sha256: str
    jpeg: bytes | memoryview
    width: int
    height: int
    split: Split
    group: str
    phash: int
    file_name: str
    labels: Labels | None = None
    bin_id: str | None = None
    burst: str | None = None
    captured_at: datetime | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    upload_reason: UploadReason | None = None
    selected_by: SelectedBy | None = None

    @property
    def choice(self) -> FrameChoice:
        """How the frame was chosen. Raises ``UserError`` for a word of a newer program."""
        return read_choice(self.upload_reason, self.selected_by)

    def image(self) -> NDArray[np.uint8]:
        """Decode to RGB, uint8 ``(height, width, 3)``, as stored: an EXIF orientation is not applied.

        Raises ``ValueError`` if the bytes do not decode.
        """
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), flags)
        if pixels is None:
            raise ValueError(
                f"frame {self.sha256}: its bytes no longer decode; `dvc checkout` restores the log"
            )
        return pixels  # type: ignore[return-value]
