"""The gate set: the test frames that models are compared on, under a name.

Test frames come with nearly every turn. If each turn changed the frames that are judged on, no two verdicts
would be about the same thing. So the gate set grows by steps: it takes in the test frames of the turns so far
once they are so many more, and is named after the turn that completed the step. It is read off the log alone,
so it cannot drift from it. A frame that was withdrawn is in none; corrected labels keep a gate set's name and
change its digest (:meth:`evaluation.GroundTruth.digest`).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from dataset.log import Frames, Log
from dataset.turn_files import BINS, name_of_turn

NO_GATE_SET = "gate-00000"  # before the first test frame


@dataclass(frozen=True)
class GateSet:
    """A gate set: its name, its frames in the order of the log, and how many there are of each origin.

    ``origins``: ``bins`` for frames that bins uploaded, ``import`` for those of imported datasets.
    """

    name: str
    frames: Frames
    origins: dict[str, int]


def newest_gate_set(log: Log, step_frames: int) -> GateSet:
    """The newest gate set of a log: all labelled test frames up to the turn that completed the last step.

    A step is complete with the first test frame, and then with every turn after which there are
    ``step_frames`` more than at the step before.
    """
    turns = log.turns_of_rows()
    number = {turn: position for position, turn in enumerate(log.turns)}
    rows = np.flatnonzero((log.splits == "test") & log.labelled_rows())
    came_with = np.array([number[turns[row]] for row in rows.tolist()], np.int64)
    per_turn = np.bincount(came_with, minlength=len(log.turns))
    name, last, taken, pending = NO_GATE_SET, -1, 0, 0
    for position, turn in enumerate(log.turns):
        pending += int(per_turn[position])
        if pending and (not taken or pending >= step_frames):
            name, last = f"gate-{turn.partition('-')[0]}", position
            taken, pending = taken + pending, 0
    chosen = rows[came_with <= last]
    origins = Counter("bins" if name_of_turn(turns[row]) == BINS else "import" for row in chosen.tolist())
    return GateSet(name, Frames([(log, chosen)]), dict(origins))
