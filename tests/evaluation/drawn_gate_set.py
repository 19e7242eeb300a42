"""A gate set of drawn frames, and detectors that err on it as told."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset import Frame, Frames, Labels, Log, Split, append_turn
from synthetic import draw_scene
from tests.evaluation.conftest import JitteringDetector
from trashnet.choice import FrameChoice
from trashnet.taxonomy import Taxonomy

SIZE = 160  # pixels a side
FRAMES = 60
CLASSES = 5  # the first ones, each with 36 items


def draw_gate_set(root: Path, taxonomy: Taxonomy, name: str = "bins") -> Log:
    """A log of sixty test frames, each a group of its own, with three items of the first five classes."""
    items = {number: [1 + (number + step) % CLASSES for step in range(3)] for number in range(FRAMES)}
    append_drawn_turn(root, taxonomy, name, "test", items, FrameChoice())
    return Log(root, taxonomy)


def append_drawn_turn(
    root: Path,
    taxonomy: Taxonomy,
    name: str,
    split: Split,
    items: Mapping[int, Sequence[int]],
    choice: FrameChoice,
) -> None:
    """Append drawn frames, by their numbers, with items of these classes."""
    made, labels = [], []
    for number, classes in items.items():
        image, boxes, class_ids = draw_scene(
            np.random.default_rng([20, number]), list(classes), SIZE, taxonomy
        )
        jpeg = io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG")
        data = jpeg.getvalue()
        sha256, group, bin_id = hashlib.sha256(data).hexdigest(), f"group {number}", f"bin {number % 4}"
        made.append(
            Frame(
                sha256,
                data,
                SIZE,
                SIZE,
                split,
                group,
                number + 1,
                f"{number}.jpg",
                bin_id=bin_id,
                upload_reason=choice.upload_reason,
                selected_by=choice.selected_by,
            )
        )
        labels.append((sha256, Labels(boxes.astype(float), class_ids, np.zeros(len(class_ids), bool))))
    append_turn(root, name, made, labels, taxonomy)


def detector_maker(frames: Frames, taxonomy: Taxonomy) -> Callable[..., JitteringDetector]:
    """Makes detectors that err on these frames as told; without a word they know them."""

    def make(name: str, **errors: Any) -> JitteringDetector:
        how = {"blur": 0.0, "confuse": 0.0, "lose": 0.0, "clutter": 0} | errors
        return JitteringDetector(name, frames, taxonomy, **how)

    return make
