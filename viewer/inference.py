"""One photo through one model: what it found, how long it took, and that as marks to draw and rows of a table."""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from dataset import Labels
from trashnet.box_drawing import Mark
from trashnet.detectors import Detections, Detector, open_detector
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Model:
    """One of the three exported models: the name it goes by in files, a title and a line for people, and its file's name."""

    name: str
    title: str
    role: str
    file: str


SURE = 0.3  # where the confidence slider begins: the sorting score of params.yaml

MODELS = (
    Model("efficientdet", "EfficientDet-D0", "the teacher · ONNX", "efficientdet.onnx"),
    Model("ssd_float", "SSD float", "the student · TFLite", "ssd_float.tflite"),
    Model("ssd_int8", "SSD int8", "the student, as bins run it", "ssd_int8.tflite"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a model found on a photo, everything it reports, and the milliseconds that took on this machine."""

    detections: Detections
    milliseconds: float


class Looker:
    """An open detector that several people may use: one photo at a time, as a TFLite interpreter cannot do two."""

    def __init__(self, path: Path, taxonomy: Taxonomy) -> None:
        """Open and warm up a model. Raises :class:`UserError` if it cannot be opened."""
        self._detector: Detector = open_detector(path, taxonomy)
        self._lock = Lock()
        self.look(np.zeros((64, 64, 3), np.uint8))  # the first run allocates; it would tell a wrong latency

    def look(self, image: NDArray[np.uint8]) -> Look:
        """Detect on one RGB image, uint8 ``(height, width, 3)``; the time covers resizing, the network and decoding of its boxes."""
        with self._lock:
            start = time.perf_counter()
            (detections,) = self._detector.detect([image])
            return Look(detections, (time.perf_counter() - start) * 1000)


def only(detections: Detections, score: float, class_ids: Collection[int]) -> Detections:
    """The detections of at least this score and of these classes; of all classes if none is named."""
    sure = detections.above(score)
    keep = np.isin(sure.class_ids, list(class_ids)) if class_ids else np.ones(len(sure), bool)
    return Detections(sure.boxes[keep], sure.class_ids[keep], sure.scores[keep])


def found_marks(detections: Detections, taxonomy: Taxonomy) -> list[Mark]:
    """Detections as boxes to draw, in the colour of their stream, best first."""
    return [
        Mark(
            _box(box), f"{taxonomy.name_of[int(c)]} {score:.2f}", taxonomy.streams[taxonomy.stream_of[int(c)]]
        )
        for box, c, score in zip(detections.boxes, detections.class_ids, detections.scores, strict=True)
    ]


def truth_marks(labels: Labels, taxonomy: Taxonomy) -> list[Mark]:
    """What a person boxed, dashed, in the colour of its stream."""
    return [
        Mark(_box(box), taxonomy.name_of[int(c)], taxonomy.streams[taxonomy.stream_of[int(c)]], "dashed")
        for box, c in zip(labels.boxes, labels.class_ids, strict=True)
    ]


def found_rows(detections: Detections, taxonomy: Taxonomy) -> list[dict[str, str | float]]:
    """Detections as rows of a table, best first."""
    return [
        {
            "Class": taxonomy.name_of[int(c)],
            "Stream": taxonomy.stream_of[int(c)],
            "Score": round(float(score), 3),
        }
        for c, score in zip(detections.class_ids, detections.scores, strict=True)
    ]


def truth_words(labels: Labels, taxonomy: Taxonomy) -> str:
    """What a person boxed, by stream, in Markdown: "**recycling**: 2 × Drink can, Glass jar; **organics**: Food waste"."""
    counts = Counter(int(c) for c in labels.class_ids)
    streams: dict[str, list[str]] = {}
    for class_id, n in counts.most_common():
        streams.setdefault(taxonomy.stream_of[class_id], []).append(
            f"{n} × " * (n > 1) + taxonomy.name_of[class_id]
        )
    return (
        "; ".join(f"**{stream}**: {', '.join(names)}" for stream, names in streams.items()) or "an empty bin"
    )


def _box(box: NDArray[np.floating]) -> tuple[float, float, float, float]:
    x, y, w, h = (float(v) for v in box)
    return x, y, w, h
