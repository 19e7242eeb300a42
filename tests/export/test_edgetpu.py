"""The EdgeTPU gates: what they let pass, and that each of them stops what it is for."""

import copy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import flatbuffers.util
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from export import check_edgetpu
from export.edgetpu import check_model
from export.flatbuffer import pack_model
from export.runtime_versions import is_too_new, minimum_runtime
from trashnet.errors import UserError

ANCHORS, CLASSES, KEPT, CHAIN = 6, 3, 20, 50


def _tensor(
    model: Any, shape: list[int], kind: int, data: np.ndarray | None = None, scale: float = 0.0, zero: int = 0
) -> int:
    buffer = schema.BufferT()
    buffer.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = (
        b"t",
        np.array(shape, np.int32),
        kind,
        len(model.buffers) - 1,
    )
    tensor.quantization = schema.QuantizationParametersT()
    if scale:
        tensor.quantization.scale, tensor.quantization.zeroPoint = (
            np.array([scale], np.float32),
            np.array([zero], np.int64),
        )
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _operator(
    model: Any,
    code: int,
    inputs: list[int],
    outputs: list[int],
    options: Any = None,
    version: int = 1,
    custom: str = "",
) -> None:
    kind = schema.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), version
    kind.customCode = custom.encode() or None
    model.operatorCodes.append(kind)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = (
        len(model.operatorCodes) - 1,
        np.array(inputs, np.int32),
        np.array(outputs, np.int32),
    )
    if options is not None:
        operator.builtinOptions, operator.builtinOptionsType = (
            options,
            getattr(schema.BuiltinOptions, type(options).__name__[:-1]),
        )
    model.subgraphs[0].operators.append(operator)


def detector(*, pixels: int = schema.TensorType.UINT8, scale: float = 1 / 127.5) -> Any:
    """A small detector made by hand: QUANTIZE, 50 convolutions, two branches, LOGISTIC, two DEQUANTIZE, the post-processing."""
    int8, float32 = schema.TensorType.INT8, schema.TensorType.FLOAT32
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    image = _tensor(model, [1, 8, 8, 3], pixels, scale=scale, zero=127)
    x = _tensor(model, [1, 8, 8, 3], int8, scale=scale, zero=-1)
    _operator(model, schema.BuiltinOperator.QUANTIZE, [image], [x])
    for _ in range(CHAIN):
        weights = _tensor(model, [3, 1, 1, 3], int8, np.ones((3, 1, 1, 3), np.int8), scale=0.1)
        y = _tensor(model, [1, 8, 8, 3], int8, scale=0.1)
        _operator(
            model, schema.BuiltinOperator.CONV_2D, [x, weights], [y], schema.Conv2DOptionsT(), version=3
        )
        x = y
    shape = _tensor(model, [3], schema.TensorType.INT32, np.array([1, ANCHORS, 4], np.int32))
    encodings, scores = (_tensor(model, [1, ANCHORS, width], int8, scale=0.1) for width in (4, CLASSES))
    _operator(model, schema.BuiltinOperator.RESHAPE, [x, shape], [encodings], schema.ReshapeOptionsT())
    _operator(model, schema.BuiltinOperator.LOGISTIC, [x], [scores])
    floats = [_tensor(model, [1, ANCHORS, width], float32) for width in (4, CLASSES)]
    for quantized, plain in zip((encodings, scores), floats, strict=True):
        _operator(model, schema.BuiltinOperator.DEQUANTIZE, [quantized], [plain])
    anchors = _tensor(model, [ANCHORS, 4], float32, np.ones((ANCHORS, 4), np.float32))
    outputs = [_tensor(model, shape, float32) for shape in ([1, KEPT, 4], [1, KEPT], [1, KEPT], [1])]
    _operator(
        model,
        schema.BuiltinOperator.CUSTOM,
        [*floats, anchors],
        outputs,
        custom="TFLite_Detection_PostProcess",
    )
    graph.operators[-1].customOptions = np.frombuffer(
        bytes(flexbuffers.Dumps({"num_classes": CLASSES})), np.uint8
    )
    graph.inputs, graph.outputs = np.array([image], np.int32), np.array(outputs, np.int32)
    return model


def _first(model: Any, code: int) -> Any:
    return next(
        op for op in model.subgraphs[0].operators if model.operatorCodes[op.opcodeIndex].builtinCode == code
    )


def _failures(model: Any) -> list[str]:
    return check_model(pack_model(model), "model").failures


def test_a_good_detector_passes() -> None:
    """Every operator is placed: the post-processing and two DEQUANTIZE on the CPU, all others on the chip."""
    report = check_model(pack_model(detector()), "model")
    assert report.failures == []
    assert report.ok
    placed = {(row.operator, row.where): row.count for row in report.rows}
    assert placed == {
        ("CONV_2D", "EdgeTPU"): CHAIN,
        ("QUANTIZE", "EdgeTPU"): 1,
        ("RESHAPE", "EdgeTPU"): 1,
        ("LOGISTIC", "EdgeTPU"): 1,
        ("DEQUANTIZE", "CPU"): 2,
        ("TFLite_Detection_PostProcess", "CPU"): 1,
    }
    assert report.weight_bytes == CHAIN * 9
    assert report.as_json()["compiler"] == "not run"
    assert "not run" in report.table()


def _unsupported(model: Any) -> None:
    model.operatorCodes[
        _first(model, schema.BuiltinOperator.LOGISTIC).opcodeIndex
    ].builtinCode = schema.BuiltinOperator.HARD_SWISH
    model.operatorCodes[
        _first(model, schema.BuiltinOperator.HARD_SWISH).opcodeIndex
    ].deprecatedBuiltinCode = 117


def _new_version(model: Any) -> None:
    model.operatorCodes[_first(model, schema.BuiltinOperator.CONV_2D).opcodeIndex].version = 6


def _unknown_version(model: Any) -> None:
    model.operatorCodes[_first(model, schema.BuiltinOperator.RESHAPE).opcodeIndex].version = 2


def _dilated(model: Any) -> None:
    _first(model, schema.BuiltinOperator.CONV_2D).builtinOptions.dilationWFactor = 2


def _batch_of_two(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors[:2]:
        tensor.shape = np.array([2, 8, 8, 3], np.int32)


def _dynamic(model: Any) -> None:
    model.subgraphs[0].tensors[1].shapeSignature = np.array([-1, 8, 8, 3], np.int32)


def _too_heavy(model: Any) -> None:
    weights = _first(model, schema.BuiltinOperator.CONV_2D).inputs[1]
    model.buffers[model.subgraphs[0].tensors[weights].buffer].data = np.zeros(8 << 20, np.uint8)


def _asymmetric_weights(model: Any) -> None:
    weights = _first(model, schema.BuiltinOperator.CONV_2D).inputs[1]
    model.subgraphs[0].tensors[weights].quantization.zeroPoint = np.array([3], np.int64)


def _wrong_scales(model: Any) -> None:
    weights = _first(model, schema.BuiltinOperator.CONV_2D).inputs[1]
    model.subgraphs[0].tensors[weights].quantization.scale = np.array([0.1, 0.2], np.float32)


def _swapped_outputs(model: Any) -> None:
    boxes, classes, scores, count = model.subgraphs[0].outputs
    model.subgraphs[0].outputs = np.array([boxes, scores, classes, count], np.int32)


def _signature(model: Any) -> None:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.inputs, signature.outputs = b"serving_default", [], []
    model.signatureDefs = [signature]


def _few_operators(model: Any) -> None:
    kept = [
        op
        for op in model.subgraphs[0].operators
        if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.CONV_2D
    ]
    model.subgraphs[0].operators = kept


def _no_postprocessing(model: Any) -> None:
    model.subgraphs[0].operators.pop()


def _third_dequantize(model: Any) -> None:
    last = model.subgraphs[0].operators[-2]
    model.subgraphs[0].operators.insert(-1, copy.copy(last))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_unsupported, "HARD_SWISH (not supported by the EdgeTPU)"),
        (_new_version, "CONV_2D version 6"),
        (_unknown_version, "RESHAPE version 2"),
        (_dilated, "CONV_2D (dilation differs between x and y)"),
        (_batch_of_two, "QUANTIZE (its batch is 2, not 1)"),
        (_dynamic, "its shape is not static"),
        (_too_heavy, "8.00 MiB"),
        (_asymmetric_weights, "not symmetric"),
        (_wrong_scales, "2 scales along axis 0, not one per output channel"),
        (_swapped_outputs, "in this order"),
        (_signature, "SignatureDef"),
        (_few_operators, "at least 50 operators: 6"),
        (_no_postprocessing, "0 post-processing operators"),
        (_third_dequantize, "1 DEQUANTIZE"),
    ],
)
def test_each_gate_stops_what_it_is_for(spoil: Any, said: str) -> None:
    """One fault put into the good detector: the report fails, and says which."""
    model = detector()
    spoil(model)
    assert any(said in failure for failure in _failures(model)), _failures(model)


def test_what_follows_an_unmapped_operator_stays_on_the_cpu() -> None:
    """The first operator that is not supported ends the chip's part: the convolutions behind it cannot come back to it."""
    model = detector()
    _dilated(model)  # the first of the 50 convolutions
    report = check_model(pack_model(model), "model")
    row = next(
        row
        for row in report.rows
        if row.why_not == "comes after an operator that is not mapped" and row.operator == "CONV_2D"
    )
    assert (row.where, row.count) == ("CPU", CHAIN - 1)


@pytest.mark.parametrize(
    ("scale", "ok"), [(1 / 127.5, True), (1 / 128, True), (1 / 255, False), (1 / 126, False)]
)
def test_the_input_scale_is_that_of_raw_pixels(scale: float, ok: bool) -> None:
    """A bin feeds raw pixels, so the input must mean [-1, 1]."""
    assert any("one input" in failure for failure in _failures(detector(scale=scale))) is not ok


def test_a_float_model_fails() -> None:
    """Float tensors run on the CPU, all of them, and the input takes no pixels."""
    model = detector(pixels=schema.TensorType.FLOAT32)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type in (schema.TensorType.INT8, schema.TensorType.UINT8):
            tensor.type = schema.TensorType.FLOAT32
    report = check_model(pack_model(model), "model")
    assert report.count("EdgeTPU") == 0
    assert any("float32, not int8" in failure for failure in report.failures)
    assert any("one input, uint8" in failure for failure in report.failures)


def test_an_empty_model_fails() -> None:
    """What a conversion that failed in silence leaves: a few hundred bytes that are a TFLite model of nothing."""
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = (
        [],
        [],
        np.array([], np.int32),
        np.array([], np.int32),
    )
    model.subgraphs = [graph]
    failures = _failures(model)
    assert any("at least 50 operators: 0" in failure for failure in failures)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_damaged_not_judged(tmp_path: Path, share: float) -> None:
    """Wherever the copy stopped, the file's name and what to do are said."""
    path = tmp_path / "cut.tflite"
    whole = pack_model(detector())
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"cut\.tflite: (a damaged|not a) TFLite model"):
        check_edgetpu(path)


def test_what_is_no_tflite_file_is_refused(tmp_path: Path) -> None:
    """Neither a missing file nor a JPEG is judged as a model."""
    with pytest.raises(UserError, match="no such model"):
        check_edgetpu(tmp_path / "none.tflite")
    (tmp_path / "photo.tflite").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    with pytest.raises(UserError, match="not a TFLite model"):
        check_edgetpu(tmp_path / "photo.tflite")


def test_a_compiled_model_is_told_from_a_faulty_one() -> None:
    """The compiler's own operator means that there is nothing left to check."""
    model = detector()
    _operator(model, schema.BuiltinOperator.CUSTOM, [0], [1], custom="edgetpu-custom-op")
    with pytest.raises(UserError, match="already compiled"):
        _failures(model)


def test_runtime_versions() -> None:
    """Spot values of runtime_version.cc, and 2.10 is newer than 2.5."""
    assert (minimum_runtime("CONV_2D", 3), minimum_runtime("CONV_2D", 6), minimum_runtime("QUANTIZE", 3)) == (
        "1.14",
        "2.9",
        "2.7",
    )
    assert minimum_runtime("TRANSPOSE_CONV", 4) == "2.13"
    assert minimum_runtime("CONV_2D", 99) is None
    assert [is_too_new(release) for release in ("1.14", "2.5", "2.6", "2.10")] == [False, False, True, True]


def test_checking_needs_no_tensorflow(tmp_path: Path) -> None:
    """`trashnet check-edgetpu` answers at once: neither TensorFlow nor torch is imported."""
    path = tmp_path / "model.tflite"
    path.write_bytes(pack_model(detector()))
    script = (
        "import sys; from pathlib import Path; from export import check_edgetpu; assert check_edgetpu(Path(sys.argv[1])).ok\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert time.monotonic() - began < 20  # about 0.5 s on an idle machine


def test_flatbuffers_identifier() -> None:
    """What is written carries TFLite's file identifier, which the interpreter asks for."""
    assert flatbuffers.util.BufferHasIdentifier(pack_model(detector()), 0, b"TFL3")
