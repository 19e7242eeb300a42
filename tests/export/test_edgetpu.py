"""The EdgeTPU gates: a good detector passes, and each gate stops the fault that it is for."""

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

NUM_ANCHORS, NUM_CLASSES, MAX_DETECTIONS, NUM_CONVOLUTIONS = 6, 3, 20, 50


def _tensor(
    model: Any,
    shape: list[int],
    dtype: int,
    data: np.ndarray | None = None,
    scale: float = 0.0,
    zero_point: int = 0,
) -> int:
    buffer = schema.BufferT()
    buffer.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = b"t", np.array(shape, np.int32), dtype
    tensor.buffer = len(model.buffers) - 1
    tensor.quantization = schema.QuantizationParametersT()
    if scale:
        tensor.quantization.scale = np.array([scale], np.float32)
        tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
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
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode, operator_code.version = code, version
    operator_code.deprecatedBuiltinCode = min(code, 127)
    operator_code.customCode = custom.encode() or None
    model.operatorCodes.append(operator_code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    if options is not None:
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
    model.subgraphs[0].operators.append(operator)


def detector(*, pixels: int = schema.TensorType.UINT8, scale: float = 1 / 127.5) -> Any:
    """QUANTIZE, 50 convolutions, two branches, LOGISTIC, two DEQUANTIZE, and the post-processing."""
    int8, float32 = schema.TensorType.INT8, schema.TensorType.FLOAT32
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    image = _tensor(model, [1, 8, 8, 3], pixels, scale=scale, zero_point=127)
    x = _tensor(model, [1, 8, 8, 3], int8, scale=scale, zero_point=-1)
    _operator(model, schema.BuiltinOperator.QUANTIZE, [image], [x])
    for _ in range(NUM_CONVOLUTIONS):
        weights = _tensor(model, [3, 1, 1, 3], int8, np.ones((3, 1, 1, 3), np.int8), scale=0.1)
        y = _tensor(model, [1, 8, 8, 3], int8, scale=0.1)
        _operator(
            model, schema.BuiltinOperator.CONV_2D, [x, weights], [y], schema.Conv2DOptionsT(), version=3
        )
        x = y
    shape = _tensor(model, [3], schema.TensorType.INT32, np.array([1, NUM_ANCHORS, 4], np.int32))
    encodings, scores = (
        _tensor(model, [1, NUM_ANCHORS, width], int8, scale=0.1) for width in (4, NUM_CLASSES)
    )
    _operator(model, schema.BuiltinOperator.RESHAPE, [x, shape], [encodings], schema.ReshapeOptionsT())
    _operator(model, schema.BuiltinOperator.LOGISTIC, [x], [scores])
    floats = [_tensor(model, [1, NUM_ANCHORS, width], float32) for width in (4, NUM_CLASSES)]
    for quantized, plain in zip((encodings, scores), floats, strict=True):
        _operator(model, schema.BuiltinOperator.DEQUANTIZE, [quantized], [plain])
    anchors = _tensor(model, [NUM_ANCHORS, 4], float32, np.ones((NUM_ANCHORS, 4), np.float32))
    outputs = [
        _tensor(model, shape, float32)
        for shape in ([1, MAX_DETECTIONS, 4], [1, MAX_DETECTIONS], [1, MAX_DETECTIONS], [1])
    ]
    _operator(
        model,
        schema.BuiltinOperator.CUSTOM,
        [*floats, anchors],
        outputs,
        custom="TFLite_Detection_PostProcess",
    )
    graph.operators[-1].customOptions = np.frombuffer(
        bytes(flexbuffers.Dumps({"num_classes": NUM_CLASSES})), np.uint8
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
    counts = {(group.operator, group.device): group.count for group in report.operators}
    assert counts == {
        ("CONV_2D", "EdgeTPU"): NUM_CONVOLUTIONS,
        ("QUANTIZE", "EdgeTPU"): 1,
        ("RESHAPE", "EdgeTPU"): 1,
        ("LOGISTIC", "EdgeTPU"): 1,
        ("DEQUANTIZE", "CPU"): 2,
        ("TFLite_Detection_PostProcess", "CPU"): 1,
    }
    assert report.weight_bytes == NUM_CONVOLUTIONS * 9
    assert report.as_json()["compiler"] == "not run"
    assert "not run" in report.table()


def _unsupported(model: Any) -> None:
    operator_code = model.operatorCodes[_first(model, schema.BuiltinOperator.LOGISTIC).opcodeIndex]
    operator_code.builtinCode = schema.BuiltinOperator.HARD_SWISH
    operator_code.deprecatedBuiltinCode = 117


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
    model.subgraphs[0].operators = [
        op
        for op in model.subgraphs[0].operators
        if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.CONV_2D
    ]


def _no_postprocessing(model: Any) -> None:
    model.subgraphs[0].operators.pop()


def _third_dequantize(model: Any) -> None:
    last = model.subgraphs[0].operators[-2]
    model.subgraphs[0].operators.insert(-1, copy.copy(last))


@pytest.mark.parametrize(
    ("damage", "message"),
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
def test_each_gate_stops_what_it_is_for(damage: Any, message: str) -> None:
    """With one fault in the good detector the report fails and names it."""
    model = detector()
    damage(model)
    assert any(message in failure for failure in _failures(model)), _failures(model)


def test_what_follows_an_unmapped_operator_stays_on_the_cpu() -> None:
    """The chip runs what comes before the first unsupported operator; all after it stays on the CPU."""
    model = detector()
    _dilated(model)  # the first of the 50 convolutions
    report = check_model(pack_model(model), "model")
    reason = "comes after an operator that is not mapped"
    group = next(g for g in report.operators if g.reason == reason and g.operator == "CONV_2D")
    assert (group.device, group.count) == ("CPU", NUM_CONVOLUTIONS - 1)


@pytest.mark.parametrize(
    ("scale", "ok"), [(1 / 127.5, True), (1 / 128, True), (1 / 255, False), (1 / 126, False)]
)
def test_the_input_scale_is_that_of_raw_pixels(scale: float, ok: bool) -> None:
    """A bin feeds raw pixels, so the quantised input must stand for [-1, 1]."""
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
    """A conversion that failed silently leaves a few hundred bytes, a TFLite model without operators."""
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    graph.inputs = graph.outputs = np.array([], np.int32)
    model.subgraphs = [graph]
    failures = _failures(model)
    assert any("at least 50 operators: 0" in failure for failure in failures)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_reported_as_damaged(tmp_path: Path, share: float) -> None:
    """Wherever the copy stopped, the message names the file and the remedy."""
    path = tmp_path / "cut.tflite"
    data = pack_model(detector())
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"cut\.tflite: (a damaged|not a) TFLite model"):
        check_edgetpu(path)


def test_a_file_that_is_no_tflite_model_is_refused(tmp_path: Path) -> None:
    """Neither a missing file nor a JPEG is judged as a model."""
    with pytest.raises(UserError, match="no such model"):
        check_edgetpu(tmp_path / "none.tflite")
    (tmp_path / "photo.tflite").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    with pytest.raises(UserError, match="not a TFLite model"):
        check_edgetpu(tmp_path / "photo.tflite")


def test_a_compiled_model_is_distinguished_from_a_faulty_one() -> None:
    """The compiler's own operator marks a model that is compiled already."""
    model = detector()
    _operator(model, schema.BuiltinOperator.CUSTOM, [0], [1], custom="edgetpu-custom-op")
    with pytest.raises(UserError, match="already compiled"):
        _failures(model)


def test_runtime_versions() -> None:
    """Spot values of runtime_version.cc, and 2.10 is newer than 2.5."""
    assert minimum_runtime("CONV_2D", 3) == "1.14"
    assert minimum_runtime("CONV_2D", 6) == "2.9"
    assert minimum_runtime("QUANTIZE", 3) == "2.7"
    assert minimum_runtime("TRANSPOSE_CONV", 4) == "2.13"
    assert minimum_runtime("CONV_2D", 99) is None
    assert [is_too_new(release) for release in ("1.14", "2.5", "2.6", "2.10")] == [False, False, True, True]


def test_checking_needs_no_tensorflow(tmp_path: Path) -> None:
    """`trashnet check-edgetpu` answers at once: neither TensorFlow nor torch is imported."""
    path = tmp_path / "model.tflite"
    path.write_bytes(pack_model(detector()))
    script = (
        "import sys; from pathlib import Path; from export import check_edgetpu\n"
        "assert check_edgetpu(Path(sys.argv[1])).ok\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert time.monotonic() - started < 20  # about 0.5 s on an idle machine


def test_flatbuffers_identifier() -> None:
    """A packed model carries TFLite's file identifier, which the interpreter requires."""
    assert flatbuffers.util.BufferHasIdentifier(pack_model(detector()), 0, b"TFL3")
