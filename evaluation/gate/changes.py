"""Which slices moved, up or down, from champion to challenger: all at once, with one error rate."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluation.gate.harm import max_t_p_values
from evaluation.gate.judgement import too_small
from evaluation.gate.outcomes import GateFrames, ModelOutcomes, PairedOutcomes
from evaluation.gate.params import GateParams
from evaluation.gate.slices import GateSlice, gains, gate_slices, successes

SHOWN_KINDS = ("class", "stream", "bin")  # a tail is what others left over; nobody asks for its labels


class SliceChange(BaseModel):
    """One slice of the gate set before and after.

    ``before``, ``after``: share of its ``boxes`` that the champion and the challenger get right, as
    :mod:`evaluation.gate.slices` counts it; ``before`` is ``None`` where there was no champion. ``p``: of "it
    did not change", adjusted for all slices; ``None`` where the slice is too small for a test, or where there
    was no champion.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    boxes: int
    groups: int
    before: float | None
    after: float
    p: float | None
    moved: bool

    @property
    def gain(self) -> float:
        """Share of the slice's items that are right now and were not before; negative for a loss."""
        return 0.0 if self.before is None else self.after - self.before


def slice_changes(outcomes: PairedOutcomes, params: GateParams, seed: int) -> list[SliceChange]:
    """Classes, streams and bins before and after, those that moved first, the largest gain on top.

    A slice moved if its change is no chance: whole groups change sign, and the largest studentised change in
    either direction is compared (see :func:`evaluation.gate.harm.max_t_p_values`), so the chance that any
    slice is said to have moved although none did is ``params.harm_level``.
    """
    frames = outcomes.frames
    slices = _slices(frames, params)
    tested = [s for s in slices if too_small(*_size(frames, s), params) is None]
    sums = np.reshape(
        [
            np.bincount(
                frames.item_group,
                gains(outcomes.champion, outcomes.challenger, s.kind) * s.items,
                minlength=frames.groups,
            )
            for s in tested
        ],
        (len(tested), frames.groups),
    )
    both_ways = max_t_p_values(np.concatenate([sums, -sums]), params.flips, seed)
    p_values = np.minimum(both_ways[: len(tested)], both_ways[len(tested) :])
    p_of = {(s.kind, s.name): float(p) for s, p in zip(tested, p_values, strict=True)}
    changes = [
        _change(frames, s, outcomes.champion, outcomes.challenger, p_of.get((s.kind, s.name)), params)
        for s in slices
    ]
    return sorted(changes, key=lambda change: (not change.moved, -change.gain, -change.boxes))


def slices_of_first(frames: GateFrames, model: ModelOutcomes, params: GateParams) -> list[SliceChange]:
    """The same where there was no champion: nothing is compared. The largest slices first."""
    changes = [_change(frames, s, None, model, None, params) for s in _slices(frames, params)]
    return sorted(changes, key=lambda change: -change.boxes)


def _slices(frames: GateFrames, params: GateParams) -> Sequence[GateSlice]:
    return [s for s in gate_slices(frames, params.class_boxes) if s.kind in SHOWN_KINDS]


def _size(frames: GateFrames, one: GateSlice) -> tuple[int, int]:
    return int(one.items.sum()), len(np.unique(frames.item_group[one.items]))


def _change(
    frames: GateFrames,
    one: GateSlice,
    champion: ModelOutcomes | None,
    challenger: ModelOutcomes,
    p: float | None,
    params: GateParams,
) -> SliceChange:
    boxes, groups = _size(frames, one)
    return SliceChange(
        kind=one.kind,
        name=one.name,
        boxes=boxes,
        groups=groups,
        before=None if champion is None else float(successes(champion, one.kind)[one.items].mean()),
        after=float(successes(challenger, one.kind)[one.items].mean()),
        p=p,
        moved=p is not None and p <= params.harm_level,
    )
