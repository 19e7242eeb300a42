"""A gate set of drawn frames, and detectors that err on it as told."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset import Frame, Frames, Labels, Log, append_turn
from synthetic import draw_scene
from tests.evaluation.conftest import JitteringDetector
from trashnet.taxonomy import Taxonomy

SIZE = 160  # pixels a side
FRAMES = 60
CLASSES = 5  # the first ones, each with 36 items


def draw_gate_set(root: Path, taxonomy: Taxonomy, name: str = "bins") -> Log:
    """A log of sixty test frames, each a group of its own, with three items of the first five classes."""
    made, labels = [], []
    for number in range(FRAMES):
        rng = np.random.default_rng([20, number])
        items = [1 + (number + step) % CLASSES for step in range(3)]
        image, boxes, class_ids = draw_scene(rng, items, SIZE, taxonomy)
        jpeg = io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG")
        data = jpeg.getvalue()
        sha256, group, bin_id = hashlib.sha256(data).hexdigest(), f"group {number}", f"bin {number % 4}"
        made.append(
            Frame(sha256, data, SIZE, SIZE, "test", group, number + 1, f"{number}.jpg", bin_id=bin_id)
        )
        labels.append((sha256, Labels(boxes.astype(float), class_ids, np.zeros(len(class_ids), bool))))
    append_turn(root, name, made, labels, taxonomy)
    return Log(root, taxonomy)


def detector_maker(frames: Frames, taxonomy: Taxonomy) -> Callable[..., JitteringDetector]:
    """Makes detectors that err on these frames as told; without a word they know them."""

    def make(name: str, **errors: Any) -> JitteringDetector:
        how = {"blur": 0.0, "confuse": 0.0, "lose": 0.0, "clutter": 0} | errors
        return JitteringDetector(name, frames, taxonomy, **how)

    return make
