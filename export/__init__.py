"""Going out: each trained detector as the one file that is shipped, and what the student's chip will make of it.

The verbs import TensorFlow or torch when they are called, not before; ``check_edgetpu`` needs neither.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.candidates import (
        Candidate,
        fetch_model,
        newest_candidate,
        publish_candidate,
        publish_trained,
        read_candidate,
    )
    from export.edgetpu import EdgeTpuReport, check_edgetpu
    from export.onnx import OnnxReport, export_onnx
    from export.params import ExportParams
    from export.tflite import TfliteReport, export_tflite

_HOME = {
    "Candidate": "export.candidates",
    "EdgeTpuReport": "export.edgetpu",
    "ExportParams": "export.params",
    "OnnxReport": "export.onnx",
    "TfliteReport": "export.tflite",
    "check_edgetpu": "export.edgetpu",
    "export_onnx": "export.onnx",
    "export_tflite": "export.tflite",
    "fetch_model": "export.candidates",
    "newest_candidate": "export.candidates",
    "publish_candidate": "export.candidates",
    "publish_trained": "export.candidates",
    "read_candidate": "export.candidates",
}

__all__ = [
    "Candidate",
    "EdgeTpuReport",
    "ExportParams",
    "OnnxReport",
    "TfliteReport",
    "check_edgetpu",
    "export_onnx",
    "export_tflite",
    "fetch_model",
    "newest_candidate",
    "publish_candidate",
    "publish_trained",
    "read_candidate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
