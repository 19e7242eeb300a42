"""Exports trained detectors as shipped files, checks them against the EdgeTPU and publishes candidates.

The verbs import TensorFlow or torch when they are called, not before; ``check_edgetpu`` needs neither.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.candidate_gate import GateCriteria, compare_candidates, judge_candidate, sort_score_of
    from export.candidates import Candidate, download_model, list_candidates, load_candidate
    from export.champions import (
        ChampionChange,
        last_change,
        list_champion_changes,
        load_best_champion,
        load_champion,
        override,
        promote,
        roll_back,
    )
    from export.edgetpu import EdgeTpuReport, check_edgetpu
    from export.gate_watch import GateState, GateWatch
    from export.judgement import (
        Judgement,
        frames_wanted,
        judgement_due,
        load_judgement,
        load_judgement_page,
    )
    from export.judgement_table import compare_judgements
    from export.newest import load_newest_candidate
    from export.onnx import OnnxReport, export_onnx
    from export.params import ExportParams
    from export.pictures import remove_pictures
    from export.publication import publish_candidate, publish_trained_models
    from export.tflite import TfliteReport, export_tflite

__all__ = [
    "Candidate",
    "ChampionChange",
    "EdgeTpuReport",
    "ExportParams",
    "GateCriteria",
    "GateState",
    "GateWatch",
    "Judgement",
    "OnnxReport",
    "TfliteReport",
    "check_edgetpu",
    "compare_candidates",
    "compare_judgements",
    "download_model",
    "export_onnx",
    "export_tflite",
    "frames_wanted",
    "judge_candidate",
    "judgement_due",
    "last_change",
    "list_candidates",
    "list_champion_changes",
    "load_best_champion",
    "load_candidate",
    "load_champion",
    "load_judgement",
    "load_judgement_page",
    "load_newest_candidate",
    "override",
    "promote",
    "publish_candidate",
    "publish_trained_models",
    "remove_pictures",
    "roll_back",
    "sort_score_of",
]

_MODULES = {
    "Candidate": "export.candidates",
    "ChampionChange": "export.champions",
    "GateCriteria": "export.candidate_gate",
    "GateState": "export.gate_watch",
    "GateWatch": "export.gate_watch",
    "EdgeTpuReport": "export.edgetpu",
    "ExportParams": "export.params",
    "Judgement": "export.judgement",
    "OnnxReport": "export.onnx",
    "TfliteReport": "export.tflite",
    "check_edgetpu": "export.edgetpu",
    "compare_candidates": "export.candidate_gate",
    "compare_judgements": "export.judgement_table",
    "download_model": "export.candidates",
    "export_onnx": "export.onnx",
    "export_tflite": "export.tflite",
    "frames_wanted": "export.judgement",
    "judge_candidate": "export.candidate_gate",
    "judgement_due": "export.judgement",
    "last_change": "export.champions",
    "list_candidates": "export.candidates",
    "list_champion_changes": "export.champions",
    "load_best_champion": "export.champions",
    "load_candidate": "export.candidates",
    "load_champion": "export.champions",
    "load_judgement": "export.judgement",
    "load_judgement_page": "export.judgement",
    "load_newest_candidate": "export.newest",
    "override": "export.champions",
    "promote": "export.champions",
    "publish_candidate": "export.publication",
    "publish_trained_models": "export.publication",
    "remove_pictures": "export.pictures",
    "roll_back": "export.champions",
    "sort_score_of": "export.candidate_gate",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
