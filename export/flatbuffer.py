"""Reads and writes TFLite files, and makes the few changes that follow a conversion; needs no TensorFlow."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from trashnet.errors import UserError

FILE_IDENTIFIER = b"TFL3"
OUTPUT_NAMES = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
TYPE_NAMES = {value: name for name, value in vars(schema.TensorType).items() if name[0] != "_"}
OPERATOR_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if name[0] != "_"}


def parse_model(data: bytes, name: str) -> Any:
    """Parse a TFLite file into ``schema.ModelT``.

    Raises:
        UserError: ``data`` is not a complete TFLite file; the message calls it ``name``.
    """
    if data[4:8] != FILE_IDENTIFIER:
        raise UserError(
            f"{name}: not a TFLite model (its first bytes are {data[:8]!r}); "
            "export one with `dvc repro export_ssd`"
        )
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                _ = model.buffers[tensor.buffer]  # an index beyond the list is damage too
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{name}: a damaged TFLite model, cut off or overwritten ({error}); export it again"
        ) from None
    return model


def pack_model(model: Any) -> bytes:
    """The bytes of the file."""
    builder = flatbuffers.Builder(8 << 20)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """The name of an operator, such as ``CONV_2D``, or the one that a custom operator gives itself."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes over 127 stand in the new field; older writers know only the old one.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return bytes(code.customCode or b"CUSTOM").decode(errors="replace")
    return str(OPERATOR_NAMES.get(number, f"BUILTIN_{number}"))


def set_outputs(model: Any, max_detections: int) -> None:
    """Make the results of the post-processing the outputs, with the order, shapes and names of the contract.

    The converter chooses names and order freely and leaves the shapes open. The SignatureDef is removed:
    compilers drop it, so nothing may rely on it.
    """
    graph = model.subgraphs[0]
    last = graph.operators[-1]
    shapes = [(1, max_detections, 4), (1, max_detections), (1, max_detections), (1,)]
    for index, name, shape in zip(last.outputs, OUTPUT_NAMES, shapes, strict=True):
        tensor = graph.tensors[index]
        tensor.name, tensor.shape, tensor.shapeSignature = name.encode(), np.array(shape, np.int32), None
    graph.tensors[graph.inputs[0]].name = b"normalized_input_image_tensor"
    graph.outputs = np.array(last.outputs, np.int32)
    model.signatureDefs = None


def append_labels(path: Path, file_name: str, names: Sequence[str]) -> None:
    """Append the class names to the model file.

    They form a zip after the flatbuffer, as the "associated files" of TFLite's metadata do.
    """
    info = zipfile.ZipInfo(
        file_name, (1980, 1, 1, 0, 0, 0)
    )  # a fixed date: the same model has the same bytes
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "".join(f"{name}\n" for name in names))
