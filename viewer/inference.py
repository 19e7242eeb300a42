"""Inference on one photo: detections and latency, as boxes to draw and rows of a table."""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from dataset import Labels
from trashnet.box_drawing import BoxOverlay
from trashnet.detectors import Detections, Detector, open_detector
from trashnet.taxonomy import Taxonomy

DEFAULT_CONFIDENCE = 0.3  # where the confidence slider begins without a scorecard that says it


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """Everything that a model detected on a photo, and the milliseconds that it took on this machine."""

    detections: Detections
    milliseconds: float


class ModelRunner:
    """An open detector that several threads share.

    It runs one photo at a time, because a TFLite interpreter is not safe for threads.
    """

    def __init__(self, path: Path, taxonomy: Taxonomy) -> None:
        """Open and warm up a model. Raises :class:`UserError` if it cannot be opened."""
        self._detector: Detector = open_detector(path, taxonomy)
        self._lock = Lock()
        self.run(np.zeros((64, 64, 3), np.uint8))  # the first run allocates; its latency would be wrong

    def run(self, image: NDArray[np.uint8]) -> InferenceResult:
        """Detect on one RGB image, uint8 ``(height, width, 3)``.

        The time covers resizing, the network and decoding of its boxes.
        """
        with self._lock:
            start = time.perf_counter()
            (detections,) = self._detector.detect([image])
            return InferenceResult(detections, (time.perf_counter() - start) * 1000)


def filter_detections(detections: Detections, score: float, class_ids: Collection[int]) -> Detections:
    """The detections of at least this score and of these classes; of all classes if none is named."""
    confident = detections.above(score)
    keep = np.isin(confident.class_ids, list(class_ids)) if class_ids else np.ones(len(confident), bool)
    return Detections(confident.boxes[keep], confident.class_ids[keep], confident.scores[keep])


def detection_overlays(detections: Detections, taxonomy: Taxonomy) -> list[BoxOverlay]:
    """Detections as boxes to draw, in the colour of their stream, best first."""
    return [
        BoxOverlay(
            _box(box), f"{taxonomy.name_of[int(c)]} {score:.2f}", taxonomy.streams[taxonomy.stream_of[int(c)]]
        )
        for box, c, score in zip(detections.boxes, detections.class_ids, detections.scores, strict=True)
    ]


def label_overlays(labels: Labels, taxonomy: Taxonomy) -> list[BoxOverlay]:
    """Ground truth as dashed boxes to draw, in the colour of their stream."""
    return [
        BoxOverlay(
            _box(box), taxonomy.name_of[int(c)], taxonomy.streams[taxonomy.stream_of[int(c)]], "dashed"
        )
        for box, c in zip(labels.boxes, labels.class_ids, strict=True)
    ]


def detection_rows(detections: Detections, taxonomy: Taxonomy) -> list[dict[str, str | float]]:
    """Detections as rows of a table, best first."""
    return [
        {
            "Class": taxonomy.name_of[int(c)],
            "Stream": taxonomy.stream_of[int(c)],
            "Score": round(float(score), 3),
        }
        for c, score in zip(detections.class_ids, detections.scores, strict=True)
    ]


def describe_labels(labels: Labels, taxonomy: Taxonomy) -> str:
    """Ground truth by stream, in Markdown.

    Example: ``**recycling**: 2 × Drink can, Glass jar; **organics**: Food waste``.
    """
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
