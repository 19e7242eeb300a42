"""Detectors with a harm that is known: what tests and benchmarks of the gate inject into detections."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dataset import Frames
from trashnet.detectors import Detections, Detector


class OfLabels:
    """Detects what people drew, boxes shaken a little, where nothing is trained that could detect it."""

    name, image_size = "of labels", 0

    def __init__(self, frames: Frames, seed: int, blur: float = 0.05) -> None:
        """``blur``: standard deviation of a box's edges, as a share of its size."""
        self._found: dict[bytes, Detections] = {}
        for position in range(len(frames)):
            frame, draw = frames[position], np.random.default_rng([seed, position])
            labels = frame.labels
            if labels is None:
                raise ValueError(f"frame {frame.sha256} has no labels")
            boxes = labels.boxes + draw.normal(0, blur, labels.boxes.shape) * np.tile(labels.boxes[:, 2:], 2)
            boxes[:, 2:] = boxes[:, 2:].clip(1)
            scores = np.sort(draw.uniform(0.4, 1, len(labels)))[::-1]
            found = Detections(boxes.astype(np.float32), labels.class_ids, scores.astype(np.float32))
            self._found[hashlib.sha256(frame.image().tobytes()).digest()] = found

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Look the frames up."""
        return [self._found[hashlib.sha256(image.tobytes()).digest()] for image in images]


class Recorded:
    """A detector that runs its model once for each image, and remembers."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.name, self.image_size = detector.name, detector.image_size
        self._found: dict[bytes, Detections] = {}

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """As the model does."""
        return [self.of(image)[1] for image in images]

    def of(self, image: NDArray[np.uint8]) -> tuple[bytes, Detections]:
        """The image's digest, and what is detected on it."""
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in self._found:
            (self._found[key],) = self._detector.detect([image])
        return key, self._found[key]


class Harmed:
    """The same model with detections lost, and classes taken for others.

    ``lose``: share of all detections that are dropped; ``mistake``: to which class id a class's detections
    go, a ``mistaken`` share of them; ``shuffle``: share of all detections that get the class of another one
    in the gate set, as a model's that learnt boxes with shuffled labels. ``seed``: of these draws; each image
    has its own, so the order of the images changes nothing.
    """

    def __init__(
        self,
        model: Recorded,
        seed: int,
        *,
        lose: float = 0.0,
        mistake: Mapping[int, int] | None = None,
        mistaken: float = 1.0,
        shuffle: float = 0.0,
        class_ids: NDArray[np.int64] | None = None,
    ) -> None:
        self.name, self.image_size = f"{model.name} {seed}", model.image_size
        self._model, self._seed = model, seed
        self._lose, self._mistake, self._mistaken = lose, dict(mistake or {}), mistaken
        self._shuffle, self._class_ids = shuffle, class_ids

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """What the model detects, harmed."""
        return [self._harm(*self._model.of(image)) for image in images]

    def _harm(self, key: bytes, found: Detections) -> Detections:
        draw = np.random.default_rng([self._seed, int.from_bytes(key[:8], "big")])
        lost, mistaken, shuffled = draw.random((3, len(found)))
        class_ids = found.class_ids.copy()
        for actual, other in self._mistake.items():
            class_ids[(found.class_ids == actual) & (mistaken < self._mistaken)] = other
        if self._class_ids is not None:
            anybodys = draw.choice(self._class_ids, len(found))
            class_ids = np.where(shuffled < self._shuffle, anybodys, class_ids)
        kept = lost >= self._lose
        return Detections(found.boxes[kept], class_ids[kept], found.scores[kept])
