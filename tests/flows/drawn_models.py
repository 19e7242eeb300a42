"""Real model files for tests: the demo's student, its classes renamed, and a teacher that says one thing.

They are run by the runtimes that servers and bins use.
"""

import json
import shutil
import zipfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.flatbuffer import append_labels
from trashnet.detectors._onnx import FORMAT, METADATA_PREFIX
from trashnet.letterbox import FILL
from trashnet.models import LABELS_FILE
from trashnet.taxonomy import Taxonomy

SIDE, CELLS = 128, (16, 8, 4, 2, 1)  # pixels of the teacher's input, and cells a side of its pyramid's levels
ANCHORS = {
    "min_level": 3,
    "max_level": 7,
    "num_scales": 3,
    "aspect_ratios": [[1.0, 1.0], [1.4, 0.7], [0.7, 1.4]],
    "anchor_scale": 4.0,
}
ANCHORS_PER_CELL = 9
APART = (
    2,
    6,
    10,
)  # rows and columns of the finest level whose square anchors of 32 px touch, but do not overlap
SURE, NEVER = 2.2, -12.0  # logits: scores of 0.90 and of nothing
MOST_BOXES = len(APART) ** 2


def write_student(path: Path, trained: Path, names: Sequence[str], note: str) -> Path:
    """The trained student, its outputs called by these class names; ``note`` makes it a file of its own."""
    shutil.copy(trained, path)
    with zipfile.ZipFile(trained) as archive:
        begin = archive.getinfo(LABELS_FILE).header_offset
    with path.open("r+b") as file:
        file.truncate(begin)  # the network ends where the names begin
    append_labels(path, LABELS_FILE, names)
    append_labels(path, "note.txt", [note])
    return path


def write_teacher(path: Path, taxonomy: Taxonomy, label: str, boxes: int) -> Path:
    """A teacher that sees so many items of one class, at most ``MOST_BOXES``, in every picture."""
    anchors = sum(cells**2 for cells in CELLS) * ANCHORS_PER_CELL
    logits = np.full((anchors, len(taxonomy.classes)), NEVER, np.float32)
    for row, column in list(product(APART, APART))[:boxes]:
        logits[(row * CELLS[0] + column) * ANCHORS_PER_CELL, taxonomy.id_of[label] - 1] = SURE
    heads = {"class_logits": logits, "box_codes": np.zeros((anchors, 4), np.float32)}
    nodes = [helper.make_node("Shape", ["images"], ["batch"], start=0, end=1)]
    constants, outputs = [], []
    for name, value in heads.items():
        constants += [
            numpy_helper.from_array(value, f"{name}_once"),
            numpy_helper.from_array(np.array(value.shape, np.int64), f"{name}_shape"),
        ]
        nodes += [
            helper.make_node("Concat", ["batch", f"{name}_shape"], [f"{name}_size"], axis=0),
            helper.make_node("Expand", [f"{name}_once", f"{name}_size"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *value.shape]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    graph = helper.make_graph(nodes, "says_one_thing", [images], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    metadata = {
        "format": FORMAT,
        "classes": list(taxonomy.names),
        "image_size": SIDE,
        "letterbox": {"fill": FILL},
        "anchors": ANCHORS,
    }
    properties = {f"{METADATA_PREFIX}{key}": json.dumps(value) for key, value in metadata.items()}
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
