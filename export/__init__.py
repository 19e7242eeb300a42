"""Exports trained detectors as shipped files, checks them against the EdgeTPU and publishes candidates.

The verbs import TensorFlow or torch when they are called, not before; ``check_edgetpu`` needs neither.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.candidates import Candidate, download_model, list_candidates, load_candidate
    from export.edgetpu import EdgeTpuReport, check_edgetpu
    from export.newest import Rollback, current_rollback, load_newest_candidate, roll_back
    from export.onnx import OnnxReport, export_onnx
    from export.params import ExportParams
    from export.publication import publish_candidate, publish_trained_models
    from export.tflite import TfliteReport, export_tflite

__all__ = [
    "Candidate",
    "EdgeTpuReport",
    "ExportParams",
    "OnnxReport",
    "Rollback",
    "TfliteReport",
    "check_edgetpu",
    "current_rollback",
    "download_model",
    "export_onnx",
    "export_tflite",
    "list_candidates",
    "load_candidate",
    "load_newest_candidate",
    "publish_candidate",
    "publish_trained_models",
    "roll_back",
]

_MODULES = {
    "Candidate": "export.candidates",
    "EdgeTpuReport": "export.edgetpu",
    "ExportParams": "export.params",
    "OnnxReport": "export.onnx",
    "Rollback": "export.newest",
    "TfliteReport": "export.tflite",
    "check_edgetpu": "export.edgetpu",
    "current_rollback": "export.newest",
    "download_model": "export.candidates",
    "export_onnx": "export.onnx",
    "export_tflite": "export.tflite",
    "list_candidates": "export.candidates",
    "load_candidate": "export.candidates",
    "load_newest_candidate": "export.newest",
    "publish_candidate": "export.publication",
    "publish_trained_models": "export.publication",
    "roll_back": "export.newest",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
