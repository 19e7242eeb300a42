"""What an operator must be like to run on the EdgeTPU: Coral's public table of supported operators, as code."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.flatbuffer import TYPE_NAMES

INT8_TYPES = ("INT8", "UINT8")
SOFTMAX_LIMIT = 16_000


class Node:
    """One operator of a graph and its tensors; those that are not given are left out."""

    def __init__(self, model: Any, graph: Any, operator: Any, name: str, version: int) -> None:
        self.operator, self.name, self.version = operator, name, version
        self.options = operator.builtinOptions
        self.input_indices = [
            int(i) for i in (operator.inputs if operator.inputs is not None else []) if i >= 0
        ]
        self.output_indices = [
            int(i) for i in (operator.outputs if operator.outputs is not None else []) if i >= 0
        ]
        self.inputs = [graph.tensors[i] for i in self.input_indices]
        self.outputs = [graph.tensors[i] for i in self.output_indices]
        self._model = model

    def constant(self, tensor: Any) -> Any | None:
        """The values of a constant int32 tensor, flat; ``None`` if it is computed."""
        data = self._model.buffers[tensor.buffer].data
        return None if data is None else np.frombuffer(bytes(data), np.int32)

    def is_constant(self, tensor: Any) -> bool:
        """Whether the tensor's values are in the file."""
        return self._model.buffers[tensor.buffer].data is not None

    def activations(self) -> list[Any]:
        """Inputs and outputs that are computed, not stored."""
        return [tensor for tensor in [*self.inputs, *self.outputs] if not self.is_constant(tensor)]


Rule = Callable[[Node], str | None]


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The tensor's shape; () where it has none."""
    return tuple(int(side) for side in (tensor.shape if tensor.shape is not None else ()))


def _anything(node: Node) -> str | None:
    return None


def _convolution(node: Node) -> str | None:
    if node.options.dilationHFactor != node.options.dilationWFactor:
        return "dilation differs between x and y"
    return _weights(node, channel_axis=3 if node.name == "DEPTHWISE_CONV_2D" else 0)


def _transposed_convolution(node: Node) -> str | None:
    return _weights(node, channel_axis=0)


def _weights(node: Node, channel_axis: int) -> str | None:
    weights = next((t for t in node.inputs if TYPE_NAMES[t.type] in INT8_TYPES and node.is_constant(t)), None)
    if weights is None:
        return "weights are not int8 constants"
    quantization = weights.quantization
    scales = (
        np.atleast_1d(quantization.scale)
        if quantization is not None and quantization.scale is not None
        else np.zeros(0)
    )
    if len(scales) > 1 and (
        len(scales) != shape_of(weights)[channel_axis] or quantization.quantizedDimension != channel_axis
    ):
        return f"weights have {len(scales)} scales along axis {quantization.quantizedDimension}, not one per output channel"
    if not len(scales):
        return "weights carry no scale"
    if TYPE_NAMES[weights.type] == "INT8" and np.any(np.atleast_1d(quantization.zeroPoint) != 0):
        return "int8 weights are not symmetric (zero point is not 0)"
    return None


def _fully_connected(node: Node) -> str | None:
    if sum(side > 1 for side in shape_of(node.outputs[0])) > 1:
        return "its output has more than one dimension"
    return _weights(node, channel_axis=0)


def _no_activation(node: Node) -> str | None:
    return (
        "has a fused activation"
        if node.options.fusedActivationFunction != schema.ActivationFunctionType.NONE
        else None
    )


def _concatenation(node: Node) -> str | None:
    if fused := _no_activation(node):
        return fused
    constants = [tensor for tensor in node.inputs if node.is_constant(tensor)]
    if constants and len(node.inputs) != 2:
        return "joins a constant and more than one other"
    return None


def _softmax(node: Node) -> str | None:
    sides = [side for side in shape_of(node.inputs[0]) if side > 1]
    if len(sides) > 1:
        return "its input has more than one dimension"
    return f"its input has more than {SOFTMAX_LIMIT:,} values" if sides and sides[0] > SOFTMAX_LIMIT else None


def _fixed_shape(node: Node) -> str | None:
    if len(node.inputs) > 1 and not node.is_constant(node.inputs[1]):
        return "its second argument is computed, not constant"
    return None


def _pad(node: Node) -> str | None:
    padding = node.constant(node.inputs[1])
    if padding is None:
        return "its padding is computed, not constant"
    return "pads the batch" if padding[:2].any() else None


def _reduction(node: Node) -> str | None:
    axes = node.constant(node.inputs[1])
    if axes is None:
        return "its axes are computed, not constant"
    rank = len(shape_of(node.inputs[0]))
    real = {int(axis) % rank for axis in np.atleast_1d(axes)}
    if 0 in real:
        return "reduces over the batch"
    if node.name == "MEAN" and rank - 1 in real and shape_of(node.inputs[0])[-1] % 4:
        return "reduces over channels that are no multiple of 4"
    return None


def _strided_slice(node: Node) -> str | None:
    strides = node.constant(node.inputs[3])
    return None if strides is not None and (strides == 1).all() else "its strides are not all 1"


def _pack(node: Node) -> str | None:
    return "packs along the batch" if node.options.axis == 0 else None


def _split(node: Node) -> str | None:
    axis = node.constant(node.inputs[0])
    return None if axis is not None and axis[0] != 0 else "splits along the batch"


def _squeeze(node: Node) -> str | None:
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    lead = len(before) - len(after)
    return None if before[lead:] == after else "squeezes more than leading dimensions"


def _prelu(node: Node) -> str | None:
    return (
        None
        if sum(side > 1 for side in shape_of(node.inputs[1])) <= 1
        else "alpha has more than one dimension"
    )


# Operator: what else must hold. https://coral.ai/docs/edgetpu/models-intro/#supported-operations, table 1.
SUPPORTED: dict[str, Rule] = {
    "ADD": _anything,
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "EXPAND_DIMS": _fixed_shape,
    "FULLY_CONNECTED": _fully_connected,
    "L2_NORMALIZATION": _anything,
    "LOGISTIC": _anything,
    "MAXIMUM": _anything,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _reduction,
    "MINIMUM": _anything,
    "MUL": _anything,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "QUANTIZE": _anything,
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "RELU": _anything,
    "RELU6": _anything,
    "RELU_N1_TO_1": _anything,
    "RESHAPE": _fixed_shape,
    "RESIZE_BILINEAR": _fixed_shape,
    "RESIZE_NEAREST_NEIGHBOR": _fixed_shape,
    "RSQRT": _anything,
    "SLICE": _fixed_shape,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _anything,
    "SPLIT": _split,
    "SQUARED_DIFFERENCE": _anything,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _anything,
    "SUM": _reduction,
    "TANH": _anything,
    "TRANSPOSE": _fixed_shape,
    "TRANSPOSE_CONV": _transposed_convolution,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _anything,
}


def why_not(node: Node) -> str | None:
    """Why this operator cannot run on the EdgeTPU; ``None`` if it can, as far as the public rules say."""
    if node.name not in SUPPORTED:
        return "not supported by the EdgeTPU"
    for tensor in node.activations():
        if TYPE_NAMES[tensor.type] not in INT8_TYPES:
            return f"{TYPE_NAMES[tensor.type].lower()}, not int8"
        shape = shape_of(tensor)
        if (
            not shape
            or min(shape) < 1
            or (tensor.shapeSignature is not None and min(tensor.shapeSignature, default=1) < 1)
        ):
            return "its shape is not static"
        if len(shape) > 1 and shape[0] != 1:
            return f"its batch is {shape[0]}, not 1"
        if any(side > 1 for side in shape[:-3]):
            return f"shape {shape}: only the three innermost dimensions may exceed 1"
    return SUPPORTED[node.name](node)
