"""Whether a TFLite file would run on a Coral EdgeTPU.

Judged from the file alone, without the compiler, which is closed, and without TensorFlow.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.flatbuffer import TYPE_NAMES, operator_name, parse_model
from export.operator_rules import INT8_TYPES, Operator, tensor_shape, unsupported_reason
from export.runtime_versions import COMPILER_RUNTIME, is_too_new, minimum_runtime
from trashnet.errors import UserError

POSTPROCESS = "TFLite_Detection_PostProcess"
COMPILED_OPERATOR = "edgetpu-custom-op"
# A detector of this family has about 100; a conversion that failed silently leaves next to none.
MIN_OPERATORS = 50
MAX_WEIGHT_BYTES = int(6.9 * 2**20)  # what fits on the chip: 8 MiB less the executable and activations
INPUT_SCALE = 1 / 127.5
ON_TPU, ON_CPU = "EdgeTPU", "CPU"


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition: what it requires, whether it holds, and what was found."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class OperatorGroup:
    """Operators of one kind that run on the same device for the same reason."""

    operator: str
    version: int
    count: int
    device: str  # ON_TPU or ON_CPU
    reason: str = ""  # why they do not run on the EdgeTPU


@dataclass(frozen=True, slots=True)
class EdgeTpuReport:
    """What was found in one file.

    ``compiler`` is the parsed log of ``edgetpu_compiler``, or ``None`` where it was not run.
    """

    path: str
    operators: tuple[OperatorGroup, ...]
    gates: tuple[Gate, ...]
    weight_bytes: int
    compiler: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether every gate holds. Without the compiler that is a well-founded expectation, not a proof."""
        return all(gate.ok for gate in self.gates)

    @property
    def failures(self) -> list[str]:
        """The gates that do not hold, each with what was found instead."""
        return [f"{gate.name}: {gate.found}" for gate in self.gates if not gate.ok]

    @property
    def operator_count(self) -> int:
        """The number of operators."""
        return sum(group.count for group in self.operators)

    def count(self, device: str) -> int:
        """The number of operators that run on a device."""
        return sum(group.count for group in self.operators if group.device == device)

    def table(self) -> str:
        """Operators, gates and verdict, for a person."""
        on_tpu, on_cpu = self.count(ON_TPU), self.count(ON_CPU)
        operators = [("operator", "version", "count", "where", "why not")]
        operators += [(g.operator, str(g.version), str(g.count), g.device, g.reason) for g in self.operators]
        gates = [("pass" if gate.ok else "FAIL", gate.name, gate.found) for gate in self.gates]
        verdict = "not run, it is not on PATH; nothing is proved until it is"
        if self.compiler:
            verdict = "run, see its gates above"
        lines = [
            f"{self.path}: {self.operator_count} operators, {on_tpu} for the EdgeTPU, {on_cpu} on the CPU",
            "",
            *_align_columns(operators),
            "",
            *_align_columns(gates),
            "",
            f"edgetpu_compiler: {verdict}",
        ]
        return "\n".join(line.rstrip() for line in lines)

    def as_json(self) -> dict[str, Any]:
        """The report as it stands in ``edgetpu.json``."""
        operators = [
            {
                "operator": group.operator,
                "version": group.version,
                "count": group.count,
                "where": group.device,
                "why_not": group.reason,
            }
            for group in self.operators
        ]
        return {
            "model": self.path,
            "ok": self.ok,
            "operators": operators,
            "operator_count": self.operator_count,
            "mappable": self.count(ON_TPU),
            "weight_bytes": self.weight_bytes,
            "gates": [{"gate": gate.name, "pass": gate.ok, "found": gate.found} for gate in self.gates],
            "compiler": self.compiler or "not run",
        }


def check_edgetpu(path: Path) -> EdgeTpuReport:
    """Check a TFLite detector against everything that is publicly known of the EdgeTPU and its compiler.

    Raises:
        UserError: The file is missing, damaged, no TFLite model, or compiled already.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such model. `dvc repro export_ssd` writes one.") from None
    return check_model(data, str(path))


def check_model(data: bytes, name: str) -> EdgeTpuReport:
    """As :func:`check_edgetpu`, for a model in memory; the report calls it ``name``."""
    model = parse_model(data, name)
    graph = model.subgraphs[0]
    operators = [
        Operator(model, graph, op, operator_name(model, op), int(model.operatorCodes[op.opcodeIndex].version))
        for op in graph.operators or []
    ]
    if any(operator.name == COMPILED_OPERATOR for operator in operators):
        raise UserError(f"{name}: already compiled for the EdgeTPU; check the model it was compiled from")
    placements = list(_place(operators))
    weight_bytes = _weight_bytes(model, graph)
    gates = (
        Gate("one graph", len(model.subgraphs) == 1, f"{len(model.subgraphs)}"),
        Gate(f"at least {MIN_OPERATORS} operators", len(operators) >= MIN_OPERATORS, f"{len(operators)}"),
        _placement_gate(operators, placements),
        _version_gate(operators),
        _weight_gate(weight_bytes),
        _input_gate(graph),
        *_output_gates(model, graph, operators),
    )
    return EdgeTpuReport(name, _group(operators, placements), gates, weight_bytes)


def _place(operators: list[Operator]) -> Iterator[tuple[str, str]]:
    """The device of each operator, and why it is not the TPU.

    Whatever follows an unmapped operator stays on the CPU with it.
    """
    cpu_tensors: set[int] = set()
    for operator in operators:
        reason = unsupported_reason(operator)
        if reason is None and cpu_tensors.intersection(operator.input_indices):
            reason = "comes after an operator that is not mapped"
        if reason is None:
            yield ON_TPU, ""
        else:
            cpu_tensors.update(operator.output_indices)
            yield ON_CPU, _expected_reason(operator) or reason


def _expected_reason(operator: Operator) -> str:
    """Why an operator runs on the CPU in every published Coral detector; empty for the others."""
    if operator.name == POSTPROCESS:
        return "by design: decoding and NMS"
    return "by design: hands floats to the post-processing" if operator.name == "DEQUANTIZE" else ""


def _group(operators: list[Operator], placements: list[tuple[str, str]]) -> tuple[OperatorGroup, ...]:
    """TPU first, then by count and name."""
    kinds = [(op.name, op.version, *placement) for op, placement in zip(operators, placements, strict=True)]
    groups = [
        OperatorGroup(name, version, count, device, reason)
        for (name, version, device, reason), count in Counter(kinds).items()
    ]
    return tuple(sorted(groups, key=lambda group: (group.device == ON_CPU, -group.count, group.operator)))


def _placement_gate(operators: list[Operator], placements: list[tuple[str, str]]) -> Gate:
    allowed = Counter({POSTPROCESS: 1, "DEQUANTIZE": 2})
    on_cpu: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for operator, (device, reason) in zip(operators, placements, strict=True):
        if device == ON_CPU:
            on_cpu[operator.name] += 1
            reasons.setdefault(
                operator.name, reason
            )  # the first is the cause, later ones may only follow from it
    unexpected = on_cpu - allowed
    found = "; ".join(f"{count} {name} ({reasons[name]})" for name, count in unexpected.items())
    return Gate(
        "on the CPU only the post-processing and two DEQUANTIZE", not unexpected, found or "only these"
    )


def _version_gate(operators: list[Operator]) -> Gate:
    versions = {(op.name, op.version) for op in operators if op.name != POSTPROCESS}
    too_new = []
    for name, version in sorted(versions):
        release = minimum_runtime(name, version)
        if release is None or is_too_new(release):
            too_new.append(f"{name} version {version}")
    return Gate(
        f"operator versions of runtime {COMPILER_RUNTIME} or older", not too_new, ", ".join(too_new) or "all"
    )


def _weight_gate(weight_bytes: int) -> Gate:
    return Gate(
        f"int8 weights of at most {MAX_WEIGHT_BYTES / 2**20:.1f} MiB",
        0 < weight_bytes <= MAX_WEIGHT_BYTES,
        f"{weight_bytes / 2**20:.2f} MiB",
    )


def _weight_bytes(model: Any, graph: Any) -> int:
    """Bytes of all constants that the chip would hold: int8 weights, and the int32 biases beside them."""
    buffers = {
        tensor.buffer for tensor in graph.tensors if TYPE_NAMES[tensor.type] in INT8_TYPES or _is_bias(tensor)
    }
    constants = (model.buffers[index].data for index in buffers)
    return sum(len(data) for data in constants if data is not None)


def _is_bias(tensor: Any) -> bool:
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    return TYPE_NAMES[tensor.type] == "INT32" and quantized


def _input_gate(graph: Any) -> Gate:
    name = "one input, uint8 (1, S, S, 3), scale 1/127.5, zero point 127 or 128"
    inputs = [graph.tensors[int(i)] for i in graph.inputs]
    if len(inputs) != 1:
        return Gate(name, False, f"{len(inputs)} inputs")
    dtype, shape, quantization = TYPE_NAMES[inputs[0].type], tensor_shape(inputs[0]), inputs[0].quantization
    has_scale = quantization is not None and quantization.scale is not None
    scale = float(np.atleast_1d(quantization.scale)[0]) if has_scale else 0.0
    zero_point = int(np.atleast_1d(quantization.zeroPoint)[0]) if scale else 0
    square = len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] > 0 and shape[3] == 3
    # Coral's own models have 1/127.5 or 1/128. The bin feeds raw pixels, so with any other scale the network
    # would see other images than it was trained on.
    right_scale = abs(scale / INPUT_SCALE - 1) < 0.005 and zero_point in (127, 128)
    found_scale = f"1/{1 / scale:.4g}, zero point {zero_point}" if scale else "none"
    ok = dtype == "UINT8" and square and right_scale
    return Gate(name, ok, f"{dtype.lower()} {shape}, scale {found_scale}")


def _output_gates(model: Any, graph: Any, operators: list[Operator]) -> Iterator[Gate]:
    post = [operator for operator in operators if operator.name == POSTPROCESS]
    outputs = [int(i) for i in graph.outputs]
    shapes = [tensor_shape(graph.tensors[i]) for i in outputs]
    kept = shapes[0][1] if shapes and len(shapes[0]) == 3 else 0
    expected_shapes = [(1, kept, 4), (1, kept), (1, kept), (1,)]
    floats = all(TYPE_NAMES[graph.tensors[i].type] == "FLOAT32" for i in outputs)
    in_order = len(post) == 1 and outputs == post[0].output_indices
    yield Gate(
        "outputs boxes (1, K, 4), classes (1, K), scores (1, K), count (1), in this order, "
        "from the post-processing",
        in_order and kept > 0 and floats and shapes == expected_shapes,
        ", ".join(map(str, shapes)) + ("" if len(post) == 1 else f"; {len(post)} post-processing operators"),
    )
    inputs = [tensor_shape(tensor) for tensor in post[0].inputs] if post else []
    anchors = inputs[2][0] if len(inputs) == 3 and len(inputs[2]) == 2 else 0
    fitting = (
        anchors > 0 and inputs[0] == (1, anchors, 4) and len(inputs[1]) == 3 and inputs[1][:2] == (1, anchors)
    )
    yield Gate(
        "post-processing of encodings (1, N, 4), scores (1, N, C), constant anchors (N, 4)",
        fitting and post[0].is_constant(post[0].inputs[2]),
        ", ".join(map(str, inputs)) or "none",
    )
    signatures = len(model.signatureDefs or [])
    yield Gate("no SignatureDef, for compilers drop it", signatures == 0, f"{signatures}")


def _align_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
