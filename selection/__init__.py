"""Which frames: acquisition scores, sampling and random exploration say which frames are worth a person's
time.
"""

from selection.params import SelectionParams
from selection.quotas import TaskQuotas, task_quotas
from selection.sampling import sample_frames
from selection.scoring import ScoringModels, score_frames, select_frames

__all__ = [
    "ScoringModels",
    "SelectionParams",
    "TaskQuotas",
    "sample_frames",
    "score_frames",
    "select_frames",
    "task_quotas",
]
