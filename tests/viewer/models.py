"""The smallest real models: ONNX and TFLite files that the runtimes run.

Each detects one item in the middle of any photo, its box x and y from 0.25 to 0.75 of the photo.
"""

import json
import math
from pathlib import Path

import numpy as np


def write_onnx(path: Path, names: tuple[str, ...], class_name: str, score: float) -> None:
    """A file as ``export_onnx`` writes it, with one anchor: 64 × 64 in the middle of 128 × 128."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    logits = np.full((1, 1, len(names)), -20, np.float32)
    logits[0, 0, names.index(class_name)] = math.log(score / (1 - score))
    constants = {
        "logits": logits,
        "codes": np.zeros((1, 1, 4), np.float32),
        "from": np.array([0]),
        "to": np.array([1]),
        "ones": np.array([1, 1]),
    }
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["batch"]),
        helper.make_node("Concat", ["batch", "ones"], ["repeats"], axis=0),
        helper.make_node("Expand", ["logits", "repeats"], ["class_logits"]),
        helper.make_node("Expand", ["codes", "repeats"], ["box_codes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one_anchor",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 128, 128, 3])],
        [
            helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["batch", 1, len(names)]),
            helper.make_tensor_value_info("box_codes", TensorProto.FLOAT, ["batch", 1, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    anchors = {
        "min_level": 7,
        "max_level": 7,
        "num_scales": 1,
        "aspect_ratios": [[1, 1]],
        "anchor_scale": 0.5,
    }
    facts = {
        "format": 1,
        "classes": names,
        "image_size": 128,
        "letterbox": {"fill": [0, 0, 0]},
        "anchors": anchors,
    }
    helper.set_model_props(model, {f"trashnet.{key}": json.dumps(value) for key, value in facts.items()})
    onnx.save(model, path)


def write_tflite(path: Path, names: tuple[str, ...], class_name: str, score: float, kind: type) -> None:
    """A file as ``export_tflite`` writes it: the input is one square image; the outputs are boxes, classes,
    scores and their count; the class names are appended.

    The outputs are constants of the graph, so it needs no operator and the test needs no TensorFlow.
    """
    from ai_edge_litert import schema_py_generated as schema

    from export.flatbuffer import append_labels, pack_model

    results = [[[[0.25, 0.25, 0.75, 0.75]]], [[names.index(class_name)]], [[score]], [1.0]]
    types = {np.uint8: schema.TensorType.UINT8, np.float32: schema.TensorType.FLOAT32}
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [schema.BufferT()], []
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [0], [1, 2, 3, 4]
    for name, value in [("image", None), *zip(("boxes", "classes", "scores", "count"), results, strict=True)]:
        tensor, buffer = schema.TensorT(), schema.BufferT()
        array = np.array(value, np.float32)
        tensor.name, tensor.buffer = name.encode(), len(model.buffers)
        tensor.type = types[kind] if value is None else schema.TensorType.FLOAT32
        tensor.shape = [1, 32, 32, 3] if value is None else list(array.shape)
        buffer.data = None if value is None else np.frombuffer(array.tobytes(), np.uint8)
        graph.tensors.append(tensor)
        model.buffers.append(buffer)
    path.write_bytes(pack_model(model))
    append_labels(path, "labels.txt", names)
