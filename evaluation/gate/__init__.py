"""The gate between a challenger and the champion: passes, holds or blocks, with known error rates."""

from evaluation.gate.changes import SliceChange, slice_changes, slices_of_first
from evaluation.gate.judgement import judge_challenger, judge_first_champion
from evaluation.gate.outcomes import (
    GateFrames,
    ModelOutcomes,
    PairedOutcomes,
    ScoredDetections,
    gate_frames,
    model_outcomes,
)
from evaluation.gate.params import GateParams
from evaluation.gate.verdict import Check, Finding, SliceResult, Verdict

__all__ = [
    "Check",
    "Finding",
    "GateFrames",
    "GateParams",
    "ModelOutcomes",
    "PairedOutcomes",
    "ScoredDetections",
    "SliceChange",
    "SliceResult",
    "Verdict",
    "gate_frames",
    "judge_challenger",
    "judge_first_champion",
    "model_outcomes",
    "slice_changes",
    "slices_of_first",
]
