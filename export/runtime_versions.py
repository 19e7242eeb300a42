"""The TensorFlow Lite release that each version of an operator requires.

From TensorFlow's ``tensorflow/lite/tools/versioning/runtime_version.cc``
(``FindMinimumRuntimeVersionForOp``), for the operators that the EdgeTPU knows and DEQUANTIZE. A version that
is not listed is newer than that table, and so newer than the compiler.
"""

MINIMUM_RUNTIME: dict[str, tuple[str, ...]] = {  # operator: release of version 1, 2, 3, ...
    "ADD": ("1.5", "1.14", "2.4", "2.6"),
    "AVERAGE_POOL_2D": ("1.5", "1.14", "2.3"),
    "CONCATENATION": ("1.5", "1.14", "2.3"),
    "CONV_2D": ("1.5", "1.14", "1.14", "2.3", "2.4", "2.9", "2.11"),
    "DEPTHWISE_CONV_2D": ("1.5", "1.12", "1.14", "2.2", "2.3", "2.3", "2.11"),
    "DEQUANTIZE": ("1.13", "1.14", "1.15", "2.2", "2.7"),
    "EXPAND_DIMS": ("1.10",),
    "FULLY_CONNECTED": ("1.5", "1.10", "1.14", "1.14", "2.0", "2.1", "2.3", "2.3", "2.3", "2.11"),
    "L2_NORMALIZATION": ("1.5", "1.14"),
    "LOGISTIC": ("1.14", "1.14", "2.3"),
    "MAXIMUM": ("1.14", "1.14", "2.3", "2.3"),
    "MAX_POOL_2D": ("1.5", "1.14", "2.3"),
    "MEAN": ("1.6", "1.14", "2.4"),
    "MINIMUM": ("1.14", "1.14", "2.3", "2.3"),
    "MUL": ("1.5", "1.14", "1.15", "2.3", "2.6", "2.11"),
    "PACK": ("1.11", "1.14", "2.3"),
    "PAD": ("1.5", "1.14", "2.4", "2.6"),
    "PRELU": ("1.8",),
    "QUANTIZE": ("1.14", "1.15", "2.7"),
    "REDUCE_MAX": ("1.11", "1.14", "2.5"),
    "REDUCE_MIN": ("1.11", "1.14", "2.5"),
    "RELU": ("1.5", "2.1", "2.5"),
    "RELU6": ("1.5", "1.14", "2.5"),
    "RELU_N1_TO_1": ("1.5",),
    "RESHAPE": ("1.5",),
    "RESIZE_BILINEAR": ("1.7", "1.14", "2.2", "2.5"),
    "RESIZE_NEAREST_NEIGHBOR": ("1.13", "1.14", "2.3", "2.4"),
    "RSQRT": ("1.10", "2.5"),
    "SLICE": ("1.14", "1.14", "1.14", "2.4", "2.5"),
    "SOFTMAX": ("1.5", "1.14", "2.3"),
    "SPACE_TO_DEPTH": ("1.5", "1.14"),
    "SPLIT": ("1.5", "1.14", "1.14", "2.3"),
    "SQUARED_DIFFERENCE": ("1.13", "2.5"),
    "SQUEEZE": ("1.6", "2.5"),
    "STRIDED_SLICE": ("1.6", "1.14", "2.1", "2.2", "2.5", "2.6"),
    "SUB": ("1.6", "1.14", "2.3", "2.4", "2.4"),
    "SUM": ("1.10", "1.15"),
    "TANH": ("1.14", "1.14", "2.3"),
    "TRANSPOSE": ("1.6", "1.14", "1.15", "2.3", "2.4", "2.12"),
    "TRANSPOSE_CONV": ("1.9", "2.2", "2.3", "2.13"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("1.13", "1.14", "2.3", "2.12"),
}
COMPILER_RUNTIME = "2.5"  # what edgetpu_compiler 16.0, the last there is, can read


def minimum_runtime(operator: str, version: int) -> str | None:
    """The release that introduced this version of the operator, ``None`` where the table has none."""
    releases = MINIMUM_RUNTIME.get(operator, ())
    return releases[version - 1] if 1 <= version <= len(releases) else None


def is_too_new(release: str) -> bool:
    """Whether this release is newer than the EdgeTPU's compiler.

    >>> is_too_new("2.5"), is_too_new("2.10")
    (False, True)
    """
    return tuple(map(int, release.split("."))) > tuple(map(int, COMPILER_RUNTIME.split(".")))
