"""Would this TFLite file run on a Coral EdgeTPU? Judged from the file alone, without the (closed) compiler and without TensorFlow."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.edgetpu_rules import INT8_TYPES, Node, shape_of, why_not
from export.flatbuffer import TYPE_NAMES, operator_name, parse_model
from export.runtime_versions import NEWEST_RUNTIME, is_too_new, minimum_runtime
from trashnet.errors import UserError

POSTPROCESS = "TFLite_Detection_PostProcess"
COMPILED = "edgetpu-custom-op"
LEAST_OPERATORS = (
    50  # a detector of this family has about 100; a conversion that failed in silence leaves next to none
)
WEIGHT_LIMIT = int(6.9 * 2**20)  # bytes: what stays on the chip (8 MiB less the executable and activations)
INPUT_SCALE = 1 / 127.5
ON_TPU, ON_CPU = "EdgeTPU", "CPU"


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition: what it asks, whether it holds, and what was found."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """Operators of one kind that share a fate."""

    operator: str
    version: int
    count: int
    where: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class EdgeTpuReport:
    """What was found in one file. ``compiler`` is the parsed log of ``edgetpu_compiler``, or ``None`` where it was not run."""

    path: str
    rows: tuple[OperatorRow, ...]
    gates: tuple[Gate, ...]
    weight_bytes: int
    compiler: dict[str, Any] | None = field(default=None)

    @property
    def ok(self) -> bool:
        """Whether every gate holds. Without the compiler that is a well-founded expectation, no proof."""
        return all(gate.ok for gate in self.gates)

    @property
    def failures(self) -> list[str]:
        """The gates that do not hold, each with what was found instead."""
        return [f"{gate.name}: {gate.found}" for gate in self.gates if not gate.ok]

    def count(self, where: str) -> int:
        """How many operators run there."""
        return sum(row.count for row in self.rows if row.where == where)

    def table(self) -> str:
        """Operators, gates and verdict, for a person."""
        total = sum(row.count for row in self.rows)
        lines = [
            f"{self.path}: {total} operators, {self.count(ON_TPU)} for the EdgeTPU, {self.count(ON_CPU)} on the CPU",
            "",
        ]
        lines += _columns(
            [("operator", "version", "count", "where", "why not")]
            + [(row.operator, str(row.version), str(row.count), row.where, row.why_not) for row in self.rows]
        )
        lines += [
            "",
            *_columns([("pass" if gate.ok else "FAIL", gate.name, gate.found) for gate in self.gates]),
            "",
        ]
        verdict = (
            "run, see its gates above"
            if self.compiler
            else "not run, it is not on PATH; nothing is proved until it is"
        )
        lines.append(f"edgetpu_compiler: {verdict}")
        return "\n".join(line.rstrip() for line in lines)

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "model": self.path,
            "ok": self.ok,
            "operators": [
                {
                    "operator": r.operator,
                    "version": r.version,
                    "count": r.count,
                    "where": r.where,
                    "why_not": r.why_not,
                }
                for r in self.rows
            ],
            "operator_count": sum(row.count for row in self.rows),
            "mappable": self.count(ON_TPU),
            "weight_bytes": self.weight_bytes,
            "gates": [{"gate": gate.name, "pass": gate.ok, "found": gate.found} for gate in self.gates],
            "compiler": self.compiler or "not run",
        }


def check_edgetpu(path: Path) -> EdgeTpuReport:
    """Check a TFLite detector against everything that is publicly known of the EdgeTPU and its compiler.

    Raises :class:`UserError` if the file is missing, damaged, no TFLite model, or compiled already.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such model. `dvc repro export_ssd` writes one.") from None
    return check_model(data, str(path))


def check_model(data: bytes, name: str) -> EdgeTpuReport:
    """The same for a model in memory; ``name`` stands for it in the report."""
    model = parse_model(data, name)
    graph = model.subgraphs[0]
    nodes = [
        Node(model, graph, op, operator_name(model, op), int(model.operatorCodes[op.opcodeIndex].version))
        for op in graph.operators or []
    ]
    if any(node.name == COMPILED for node in nodes):
        raise UserError(f"{name}: already compiled for the EdgeTPU; check the model it was compiled from")
    placed = list(_places(nodes))
    weight_bytes = _weight_bytes(model, graph)
    gates = (
        *_operator_gates(model, nodes, placed, weight_bytes),
        _input_gate(graph),
        *_output_gates(model, graph, nodes),
    )
    return EdgeTpuReport(name, _rows(nodes, placed), gates, weight_bytes)


def _places(nodes: list[Node]) -> Iterator[tuple[str, str]]:
    """Where each operator runs and why not on the TPU: whatever follows an operator that is not mapped stays on the CPU with it."""
    off_chip: set[int] = set()
    for node in nodes:
        reason = why_not(node)
        if reason is None and off_chip.intersection(node.input_indices):
            reason = "comes after an operator that is not mapped"
        if reason is not None:
            off_chip.update(node.output_indices)
        yield (ON_TPU, "") if reason is None else (ON_CPU, _expected(node) or reason)


def _expected(node: Node) -> str:
    """What to say of the operators that run on the CPU in every published Coral detector."""
    if node.name == POSTPROCESS:
        return "by design: decoding and NMS"
    return "by design: hands floats to the post-processing" if node.name == "DEQUANTIZE" else ""


def _rows(nodes: list[Node], placed: list[tuple[str, str]]) -> tuple[OperatorRow, ...]:
    counts = Counter((node.name, node.version, *place) for node, place in zip(nodes, placed, strict=True))
    return tuple(
        OperatorRow(name, version, count, where, why)
        for (name, version, where, why), count in sorted(
            counts.items(), key=lambda item: (item[0][2] == ON_CPU, -item[1], item[0][0])
        )
    )


def _operator_gates(
    model: Any, nodes: list[Node], placed: list[tuple[str, str]], weight_bytes: int
) -> Iterator[Gate]:
    yield Gate("one graph", len(model.subgraphs) == 1, f"{len(model.subgraphs)}")
    yield Gate(f"at least {LEAST_OPERATORS} operators", len(nodes) >= LEAST_OPERATORS, f"{len(nodes)}")
    allowed = Counter({POSTPROCESS: 1, "DEQUANTIZE": 2})
    astray = (
        Counter(node.name for node, (where, _) in zip(nodes, placed, strict=True) if where == ON_CPU)
        - allowed
    )
    why: dict[str, str] = {}
    for node, (_, reason) in zip(nodes, placed, strict=True):
        if reason:
            why.setdefault(node.name, reason)  # the first is the cause, later ones may only follow from it
    found = "; ".join(f"{count} {name} ({why[name]})" for name, count in astray.items()) or "only these"
    yield Gate("on the CPU only the post-processing and two DEQUANTIZE", not astray, found)
    releases = {
        (node.name, node.version): minimum_runtime(node.name, node.version)
        for node in nodes
        if node.name != POSTPROCESS
    }
    new = [
        f"{name} version {v}"
        for (name, v), release in sorted(releases.items())
        if release is None or is_too_new(release)
    ]
    yield Gate(f"operator versions of runtime {NEWEST_RUNTIME} or older", not new, ", ".join(new) or "all")
    fits = 0 < weight_bytes <= WEIGHT_LIMIT
    yield Gate(
        f"int8 weights of at most {WEIGHT_LIMIT / 2**20:.1f} MiB", fits, f"{weight_bytes / 2**20:.2f} MiB"
    )


def _weight_bytes(model: Any, graph: Any) -> int:
    """Bytes of all constants that the chip would hold: int8 weights, and the int32 biases beside them."""
    kept = {
        tensor.buffer for tensor in graph.tensors if TYPE_NAMES[tensor.type] in INT8_TYPES or _is_bias(tensor)
    }
    return sum(len(model.buffers[index].data) for index in kept if model.buffers[index].data is not None)


def _is_bias(tensor: Any) -> bool:
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    return TYPE_NAMES[tensor.type] == "INT32" and quantized


def _input_gate(graph: Any) -> Gate:
    name = "one input, uint8 (1, S, S, 3), scale 1/127.5, zero point 127 or 128"
    inputs = [graph.tensors[int(i)] for i in graph.inputs]
    if len(inputs) != 1:
        return Gate(name, False, f"{len(inputs)} inputs")
    tensor, shape = inputs[0], shape_of(inputs[0])
    quantization = tensor.quantization
    scale = (
        float(np.atleast_1d(quantization.scale)[0])
        if quantization is not None and quantization.scale is not None
        else 0.0
    )
    zero = int(np.atleast_1d(quantization.zeroPoint)[0]) if scale else 0
    square = len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] > 0 and shape[3] == 3
    # Coral's own models have 1/127.5 or 1/128; the bin feeds raw pixels, so anything else would be a network
    # of other images.
    ok = (
        TYPE_NAMES[tensor.type] == "UINT8"
        and square
        and abs(scale / INPUT_SCALE - 1) < 0.005
        and zero in (127, 128)
    )
    said = f"1/{1 / scale:.4g}, zero point {zero}" if scale else "none"
    return Gate(name, ok, f"{TYPE_NAMES[tensor.type].lower()} {shape}, scale {said}")


def _output_gates(model: Any, graph: Any, nodes: list[Node]) -> Iterator[Gate]:
    post = [node for node in nodes if node.name == POSTPROCESS]
    outputs = [int(i) for i in graph.outputs]
    shapes = [shape_of(graph.tensors[i]) for i in outputs]
    kept = shapes[0][1] if shapes and len(shapes[0]) == 3 else 0
    right = [(1, kept, 4), (1, kept), (1, kept), (1,)]
    floats = all(TYPE_NAMES[graph.tensors[i].type] == "FLOAT32" for i in outputs)
    ordered = len(post) == 1 and kept > 0 and floats and shapes == right and outputs == post[0].output_indices
    yield Gate(
        "outputs boxes (1, K, 4), classes (1, K), scores (1, K), count (1), in this order, from the post-processing",
        ordered,
        ", ".join(map(str, shapes)) + ("" if len(post) == 1 else f"; {len(post)} post-processing operators"),
    )
    inputs = [shape_of(tensor) for tensor in post[0].inputs] if post else []
    anchors = inputs[2][0] if len(inputs) == 3 and len(inputs[2]) == 2 else 0
    fitting = (
        anchors > 0 and inputs[0] == (1, anchors, 4) and len(inputs[1]) == 3 and inputs[1][:2] == (1, anchors)
    )
    stored = fitting and post[0].is_constant(post[0].inputs[2])
    found = ", ".join(map(str, inputs)) or "none"
    yield Gate(
        "post-processing of encodings (1, N, 4), scores (1, N, C), constant anchors (N, 4)", stored, found
    )
    signatures = len(model.signatureDefs or [])
    yield Gate("no SignatureDef, for compilers drop it", signatures == 0, f"{signatures}")


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
