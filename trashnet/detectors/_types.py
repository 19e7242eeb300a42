from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """What a model detects on one image, best first.

    ``boxes``: float32 ``(N, 4)``, ``(x, y, w, h)`` in pixels of the image given, clipped to it;
    ``class_ids``: int64 ``(N,)``, ids of the taxonomy; ``scores``: float32 ``(N,)`` in [0, 1], descending.
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, min_score: float) -> "Detections":
        """Only the detections that score at least ``min_score``."""
        keep = self.scores >= min_score
        return Detections(self.boxes[keep], self.class_ids[keep], self.scores[keep])


class Detector(Protocol):
    """An exported model, ready to run on images of any size."""

    @property
    def name(self) -> str:
        """The stem of its file, such as ``efficientdet`` or ``ssd_int8``."""

    @property
    def image_size(self) -> int:
        """The side of its square input in pixels: images are scaled to it."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detect on RGB images, uint8 ``(height, width, 3)``, whose sizes may differ.

        One :class:`Detections` per image, in order.
        """
