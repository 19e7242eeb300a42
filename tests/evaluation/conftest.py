"""Detectors for tests: real implementations of the protocol that make known mistakes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dataset import Frames, Log
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy


class JitteringDetector:
    """Knows the labels of the frames it will be shown and errs on purpose, the same way every time."""

    def __init__(
        self,
        name: str,
        frames: Frames,
        taxonomy: Taxonomy,
        *,
        blur: float,
        confuse: float,
        lose: float,
        clutter: int,
        lose_class: int | None = None,
    ) -> None:
        self.name = name
        self.calls = 0
        self._answers = {}
        for number in range(len(frames)):
            frame = frames[number]
            assert frame.labels is not None
            draw = np.random.default_rng([20, number, *name.encode()])
            kept = np.flatnonzero(
                (draw.random(len(frame.labels)) >= lose) & (frame.labels.class_ids != lose_class)
            )
            size = np.tile(frame.labels.boxes[kept, 2:], 2)
            boxes = frame.labels.boxes[kept] + draw.normal(0, blur, (len(kept), 4)) * size
            other = draw.integers(1, len(taxonomy.classes) + 1, len(kept))
            class_ids = np.where(draw.random(len(kept)) < confuse, other, frame.labels.class_ids[kept])
            noise = np.concatenate(
                [
                    draw.uniform(0, frame.width * 0.7, (clutter, 2)),
                    draw.uniform(10, frame.width * 0.3, (clutter, 2)),
                ],
                1,
            )
            boxes = np.concatenate([boxes, noise])
            boxes[:, 2:] = boxes[:, 2:].clip(2)
            scores = np.concatenate([draw.uniform(0.4, 1, len(kept)), draw.uniform(0, 0.6, clutter)])
            class_ids = np.concatenate([class_ids, draw.integers(1, len(taxonomy.classes) + 1, clutter)])
            order = np.argsort(-scores, kind="stable")
            found = Detections(
                boxes[order].astype(np.float32),
                class_ids[order].astype(np.int64),
                scores[order].astype(np.float32),
            )
            self._answers[frame.image().tobytes()] = found

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Look the frames up."""
        self.calls += len(images)
        return [self._answers[image.tobytes()] for image in images]


@pytest.fixture(scope="session")
def jittering(sample_log: Log, taxonomy: Taxonomy) -> Callable[..., JitteringDetector]:
    """Make a detector that errs on the sample's test and val splits as told."""

    def make(
        name: str,
        *,
        blur: float = 0.0,
        confuse: float = 0.0,
        lose: float = 0.0,
        clutter: int = 0,
        lose_class: int | None = None,
    ) -> JitteringDetector:
        return JitteringDetector(
            name,
            sample_log.frames("test") + sample_log.frames("val"),
            taxonomy,
            blur=blur,
            confuse=confuse,
            lose=lose,
            clutter=clutter,
            lose_class=lose_class,
        )

    return make
