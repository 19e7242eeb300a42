"""Which operators the EdgeTPU supports, and on which conditions: Coral's public table, as code."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.flatbuffer import TYPE_NAMES

INT8_TYPES = ("INT8", "UINT8")
MAX_SOFTMAX_VALUES = 16_000


class Operator:
    """One operator of a graph and its tensors; optional tensors that are absent are left out."""

    def __init__(self, model: Any, graph: Any, operator: Any, name: str, version: int) -> None:
        self.name, self.version = name, version
        self.options = operator.builtinOptions
        self.input_indices = _present(operator.inputs)
        self.output_indices = _present(operator.outputs)
        self.inputs = [graph.tensors[i] for i in self.input_indices]
        self.outputs = [graph.tensors[i] for i in self.output_indices]
        self._model = model

    def constant_values(self, tensor: Any) -> Any | None:
        """The values of a constant int32 tensor, int32 ``(N,)``; ``None`` if it is computed."""
        data = self._model.buffers[tensor.buffer].data
        return None if data is None else np.frombuffer(bytes(data), np.int32)

    def is_constant(self, tensor: Any) -> bool:
        """Whether the tensor's values are in the file."""
        return self._model.buffers[tensor.buffer].data is not None

    def activations(self) -> list[Any]:
        """Inputs and outputs that are computed, not stored."""
        return [tensor for tensor in [*self.inputs, *self.outputs] if not self.is_constant(tensor)]


def _present(indices: Any) -> list[int]:
    return [] if indices is None else [int(index) for index in indices if index >= 0]


def tensor_shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor; () where it has none."""
    return tuple(int(side) for side in (tensor.shape if tensor.shape is not None else ()))


# Why an operator of this kind cannot run on the EdgeTPU; None if it can.
Rule = Callable[[Operator], str | None]


def _always_supported(operator: Operator) -> str | None:
    return None


def _convolution(operator: Operator) -> str | None:
    if operator.options.dilationHFactor != operator.options.dilationWFactor:
        return "dilation differs between x and y"
    return _weights(operator, channel_axis=3 if operator.name == "DEPTHWISE_CONV_2D" else 0)


def _transposed_convolution(operator: Operator) -> str | None:
    return _weights(operator, channel_axis=0)


def _weights(operator: Operator, channel_axis: int) -> str | None:
    weights = next(
        (t for t in operator.inputs if TYPE_NAMES[t.type] in INT8_TYPES and operator.is_constant(t)), None
    )
    if weights is None:
        return "weights are not int8 constants"
    quantization = weights.quantization
    has_scale = quantization is not None and quantization.scale is not None
    scales = np.atleast_1d(quantization.scale) if has_scale else np.zeros(0)
    if len(scales) > 1 and (
        len(scales) != tensor_shape(weights)[channel_axis] or quantization.quantizedDimension != channel_axis
    ):
        axis = quantization.quantizedDimension
        return f"weights have {len(scales)} scales along axis {axis}, not one per output channel"
    if not len(scales):
        return "weights carry no scale"
    if TYPE_NAMES[weights.type] == "INT8" and np.any(np.atleast_1d(quantization.zeroPoint) != 0):
        return "int8 weights are not symmetric (zero point is not 0)"
    return None


def _fully_connected(operator: Operator) -> str | None:
    if sum(side > 1 for side in tensor_shape(operator.outputs[0])) > 1:
        return "its output has more than one dimension"
    return _weights(operator, channel_axis=0)


def _no_activation(operator: Operator) -> str | None:
    fused = operator.options.fusedActivationFunction != schema.ActivationFunctionType.NONE
    return "has a fused activation" if fused else None


def _concatenation(operator: Operator) -> str | None:
    if reason := _no_activation(operator):
        return reason
    constants = [tensor for tensor in operator.inputs if operator.is_constant(tensor)]
    if constants and len(operator.inputs) != 2:
        return "joins a constant and more than one other"
    return None


def _softmax(operator: Operator) -> str | None:
    sides = [side for side in tensor_shape(operator.inputs[0]) if side > 1]
    if len(sides) > 1:
        return "its input has more than one dimension"
    return (
        f"its input has more than {MAX_SOFTMAX_VALUES:,} values"
        if sides and sides[0] > MAX_SOFTMAX_VALUES
        else None
    )


def _fixed_shape(operator: Operator) -> str | None:
    if len(operator.inputs) > 1 and not operator.is_constant(operator.inputs[1]):
        return "its second argument is computed, not constant"
    return None


def _pad(operator: Operator) -> str | None:
    padding = operator.constant_values(operator.inputs[1])
    if padding is None:
        return "its padding is computed, not constant"
    return "pads the batch" if padding[:2].any() else None


def _reduction(operator: Operator) -> str | None:
    axes = operator.constant_values(operator.inputs[1])
    if axes is None:
        return "its axes are computed, not constant"
    rank = len(tensor_shape(operator.inputs[0]))
    reduced = {int(axis) % rank for axis in np.atleast_1d(axes)}
    if 0 in reduced:
        return "reduces over the batch"
    if operator.name == "MEAN" and rank - 1 in reduced and tensor_shape(operator.inputs[0])[-1] % 4:
        return "reduces over channels that are no multiple of 4"
    return None


def _strided_slice(operator: Operator) -> str | None:
    strides = operator.constant_values(operator.inputs[3])
    return None if strides is not None and (strides == 1).all() else "its strides are not all 1"


def _pack(operator: Operator) -> str | None:
    return "packs along the batch" if operator.options.axis == 0 else None


def _split(operator: Operator) -> str | None:
    axis = operator.constant_values(operator.inputs[0])
    return None if axis is not None and axis[0] != 0 else "splits along the batch"


def _squeeze(operator: Operator) -> str | None:
    before, after = tensor_shape(operator.inputs[0]), tensor_shape(operator.outputs[0])
    lead = len(before) - len(after)
    return None if before[lead:] == after else "squeezes more than leading dimensions"


def _prelu(operator: Operator) -> str | None:
    dimensions = sum(side > 1 for side in tensor_shape(operator.inputs[1]))
    return None if dimensions <= 1 else "alpha has more than one dimension"


# The supported operators, and what else must hold.
# https://coral.ai/docs/edgetpu/models-intro/#supported-operations, table 1.
SUPPORTED: dict[str, Rule] = {
    "ADD": _always_supported,
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "EXPAND_DIMS": _fixed_shape,
    "FULLY_CONNECTED": _fully_connected,
    "L2_NORMALIZATION": _always_supported,
    "LOGISTIC": _always_supported,
    "MAXIMUM": _always_supported,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _reduction,
    "MINIMUM": _always_supported,
    "MUL": _always_supported,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "QUANTIZE": _always_supported,
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "RELU": _always_supported,
    "RELU6": _always_supported,
    "RELU_N1_TO_1": _always_supported,
    "RESHAPE": _fixed_shape,
    "RESIZE_BILINEAR": _fixed_shape,
    "RESIZE_NEAREST_NEIGHBOR": _fixed_shape,
    "RSQRT": _always_supported,
    "SLICE": _fixed_shape,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _always_supported,
    "SPLIT": _split,
    "SQUARED_DIFFERENCE": _always_supported,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _always_supported,
    "SUM": _reduction,
    "TANH": _always_supported,
    "TRANSPOSE": _fixed_shape,
    "TRANSPOSE_CONV": _transposed_convolution,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _always_supported,
}


def unsupported_reason(operator: Operator) -> str | None:
    """Why an operator cannot run on the EdgeTPU; ``None`` if it can, as far as the public rules say."""
    if operator.name not in SUPPORTED:
        return "not supported by the EdgeTPU"
    for tensor in operator.activations():
        if TYPE_NAMES[tensor.type] not in INT8_TYPES:
            return f"{TYPE_NAMES[tensor.type].lower()}, not int8"
        shape = tensor_shape(tensor)
        signature = () if tensor.shapeSignature is None else tensor.shapeSignature
        if not shape or min(shape) < 1 or min(signature, default=1) < 1:
            return "its shape is not static"
        if len(shape) > 1 and shape[0] != 1:
            return f"its batch is {shape[0]}, not 1"
        if any(side > 1 for side in shape[:-3]):
            return f"shape {shape}: only the three innermost dimensions may exceed 1"
    return SUPPORTED[operator.name](operator)
