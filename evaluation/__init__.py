"""Judging: COCO's numbers, sorting accuracy and utility, why a model errs, the report, and FiftyOne to look
at it all.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.coco import CocoMetrics, coco_metrics
    from evaluation.comparison import ComparedModel, Comparison, SliceExamples, compare_models
    from evaluation.evaluator import evaluate
    from evaluation.fiftyone_app import FiftyOneDataset, open_fiftyone
    from evaluation.flat_arrays import GroundTruth, Predictions
    from evaluation.frame_matches import FrameMatches
    from evaluation.paired_matches import PairedMatches, pair_matches
    from evaluation.params import EvaluationParams
    from evaluation.report import headline_table, write_html_report
    from evaluation.score_table import compare_scores
    from evaluation.scorecard import Scorecard
    from evaluation.utility import frame_utilities

_HOME = {
    "CocoMetrics": "coco",
    "Comparison": "comparison",
    "ComparedModel": "comparison",
    "EvaluationParams": "params",
    "FiftyOneDataset": "fiftyone_app",
    "FrameMatches": "frame_matches",
    "GroundTruth": "flat_arrays",
    "PairedMatches": "paired_matches",
    "Predictions": "flat_arrays",
    "Scorecard": "scorecard",
    "SliceExamples": "comparison",
    "coco_metrics": "coco",
    "compare_models": "comparison",
    "compare_scores": "score_table",
    "evaluate": "evaluator",
    "frame_utilities": "utility",
    "headline_table": "report",
    "open_fiftyone": "fiftyone_app",
    "pair_matches": "paired_matches",
    "write_html_report": "report",
}

__all__ = [
    "CocoMetrics",
    "ComparedModel",
    "Comparison",
    "EvaluationParams",
    "FiftyOneDataset",
    "FrameMatches",
    "GroundTruth",
    "PairedMatches",
    "Predictions",
    "Scorecard",
    "SliceExamples",
    "coco_metrics",
    "compare_models",
    "compare_scores",
    "evaluate",
    "frame_utilities",
    "headline_table",
    "open_fiftyone",
    "pair_matches",
    "write_html_report",
]


def __getattr__(name: str) -> Any:
    """Import a verb's module when it is first used: matplotlib and FiftyOne are slow to start."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
