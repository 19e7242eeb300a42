"""Which frames: acquisition scores, sampling and random exploration say which frames are worth a person's
time.
"""

from selection.params import SelectionParams
from selection.sampling import sample_frames
from selection.scoring import score_frames

__all__ = ["SelectionParams", "sample_frames", "score_frames"]
