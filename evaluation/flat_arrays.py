"""Ground truth and predictions of a whole split as flat arrays: what every judge in this room reads."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset import Frames
from trashnet.detectors import Detections
from trashnet.errors import UserError
from trashnet.files import atomic_write

# the overlap from which a detection and an item are "the same thing"; COCO's and VOC's easiest threshold
MATCH_IOU = 0.5
AREA_RANGES: dict[str, tuple[float, float]] = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e5**2),
}  # COCO's, pixels²


@dataclass(frozen=True)
class GroundTruth:
    """Every labelled box of a list of frames.

    ``images``: the frames' SHA-256, in order, frames without a box included; ``image``: int64 ``(N,)``,
    position in ``images``, never descending; ``boxes``: float64 ``(N, 4)``, ``(x, y, w, h)`` in pixels;
    ``class_ids``: int64 ``(N,)``; ``crowd``: bool ``(N,)``. A box's area is its ``w * h``: the log keeps
    boxes, not masks.
    """

    images: tuple[str, ...]
    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @classmethod
    def from_frames(cls, frames: Frames) -> "GroundTruth":
        """Collect the newest labels of labelled frames.

        Raises :class:`UserError` for a frame that nobody labelled.
        """
        images, image, boxes, class_ids, crowd = [], [], [], [], []
        for position in range(len(frames)):
            frame = frames[position]
            sha, labels = frame.sha256, frame.labels
            if labels is None:
                raise UserError(
                    f"frame {sha} has no labels, so it cannot be judged on; `log.frames(split)` leaves such "
                    "frames out"
                )
            images.append(sha)
            image.append(np.full(len(labels), position, np.int64))
            boxes.append(labels.boxes)
            class_ids.append(labels.class_ids)
            crowd.append(labels.crowd)
        return cls(
            tuple(images),
            np.concatenate([*image, np.empty(0, np.int64)]),
            np.concatenate([*boxes, np.empty((0, 4))]),
            np.concatenate([*class_ids, np.empty(0, np.int64)]),
            np.concatenate([*crowd, np.empty(0, np.bool_)]),
        )

    def __len__(self) -> int:
        return len(self.class_ids)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Image ``i`` has the boxes ``offsets[i]:offsets[i + 1]``."""
        return np.searchsorted(self.image, np.arange(len(self.images) + 1))

    def take(self, positions: NDArray[np.int64]) -> "GroundTruth":
        """Only these images, in this order."""
        rows, image = _rows_of(self.offsets, positions)
        images = tuple(self.images[i] for i in positions)
        return GroundTruth(images, image, self.boxes[rows], self.class_ids[rows], self.crowd[rows])

    def digest(self) -> str:
        """A name for exactly these frames with exactly these labels.

        Scorecards are comparable where it agrees.
        """
        digest = hashlib.sha256("\n".join(self.images).encode())
        for column in (self.image, self.boxes, self.class_ids, self.crowd):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def counts(self, classes: int) -> NDArray[np.int64]:
        """Boxes per class index (id - 1), crowds not counted, ``(classes,)``."""
        return np.bincount(self.class_ids[~self.crowd] - 1, minlength=classes).astype(np.int64)


@dataclass(frozen=True)
class Predictions:
    """Every detection on a list of images, grouped by image, best first within one.

    ``images``: as in :class:`GroundTruth`; ``image``: int64 ``(M,)``, never descending; ``boxes``: float64
    ``(M, 4)``, ``(x, y, w, h)`` in pixels; ``class_ids``: int64 ``(M,)``; ``scores``: float64 ``(M,)``.
    """

    images: tuple[str, ...]
    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def from_detections(cls, images: Sequence[str], detections: Sequence[Detections]) -> "Predictions":
        """Collect detections, one per image.

        They are rounded as they are written (boxes to 1/1000 px, scores to 1e-6): what is judged is what is
        kept.
        """
        counts = [len(d) for d in detections]
        if len(images) != len(counts):
            raise ValueError(f"{len(images)} images, but detections of {len(counts)}")
        boxes = np.concatenate([*(d.boxes for d in detections), np.empty((0, 4))]).astype(np.float64)
        scores = np.concatenate([*(d.scores for d in detections), np.empty(0)]).astype(np.float64)
        class_ids = np.concatenate([*(d.class_ids for d in detections), np.empty(0, np.int64)])
        return cls.from_arrays(
            images, np.repeat(np.arange(len(counts)), counts), boxes.round(3), class_ids, scores.round(6)
        )

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[str],
        image: NDArray[np.int64],
        boxes: NDArray[np.float64],
        class_ids: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> "Predictions":
        """Group by image and put the best first; equal scores stay in the order given.

        Raises ``ValueError`` for NaN or infinity.
        """
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError("a detection's box or score is NaN or infinite")
        order = np.lexsort((-scores, image))
        return cls(tuple(images), image[order], boxes[order], class_ids[order], scores[order])

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Image ``i`` has the detections ``offsets[i]:offsets[i + 1]``."""
        return np.searchsorted(self.image, np.arange(len(self.images) + 1))

    def take(self, positions: NDArray[np.int64]) -> "Predictions":
        """Only these images, in this order."""
        rows, image = _rows_of(self.offsets, positions)
        images = tuple(self.images[i] for i in positions)
        return Predictions(images, image, self.boxes[rows], self.class_ids[rows], self.scores[rows])

    def above(self, score: float) -> "Predictions":
        """Only the detections that score at least ``score``."""
        keep = self.scores >= score
        return Predictions(
            self.images, self.image[keep], self.boxes[keep], self.class_ids[keep], self.scores[keep]
        )

    def write(self, path: Path) -> None:
        """Write as a COCO results list, ``image_id`` being the frame's SHA-256: one detection per line, so
        that files can be compared.
        """
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
            out.write("[")
            for row, (image, box, class_id, score) in enumerate(self._rows()):
                result = {"image_id": image, "category_id": class_id, "bbox": box, "score": score}
                out.write((",\n" if row else "\n") + json.dumps(result, allow_nan=False))
            out.write("\n]\n")

    def _rows(self) -> Iterator[tuple[str, list[float], int, float]]:
        names = [self.images[i] for i in self.image]
        yield from zip(names, self.boxes.tolist(), self.class_ids.tolist(), self.scores.tolist(), strict=True)

    @classmethod
    def read(cls, path: Path, images: Sequence[str]) -> "Predictions":
        """Read a COCO results list.

        Raises :class:`UserError` if it is missing, damaged or speaks of frames not in ``images``.
        """
        try:
            results: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            position = {sha: i for i, sha in enumerate(images)}
            if strange := {r["image_id"] for r in results} - set(position):
                raise UserError(
                    f"{path}: detections on {len(strange)} frames that are not in this test split, such as "
                    f"{min(strange)}; "
                    "they were made on other data. `dvc repro evaluate` makes them anew."
                )
            return cls.from_arrays(
                images,
                np.array([position[r["image_id"]] for r in results], np.int64),
                np.array([r["bbox"] for r in results], np.float64).reshape(-1, 4),
                np.array([r["category_id"] for r in results], np.int64),
                np.array([r["score"] for r in results], np.float64),
            )
        except FileNotFoundError:
            raise UserError(f"{path}: no such predictions. `dvc repro evaluate` makes them.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not a list of COCO results ({error!r}). `dvc repro evaluate` makes it anew."
            ) from None


def _rows_of(
    offsets: NDArray[np.int64], positions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of these images, and for each its image's new position."""
    rows = [np.arange(offsets[i], offsets[i + 1]) for i in positions]
    image = np.repeat(np.arange(len(positions)), [len(r) for r in rows])
    return np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64), image.astype(np.int64)
