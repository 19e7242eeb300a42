"""AP50 over the classes that have boxes enough and one pooled tail, with whole groups resampled.

Nothing is matched or sorted again: a resample gives every group a weight (how often it was drawn), see
:class:`evaluation.resamples.WeightedCurve`.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.gate.noninferiority import Estimate
from evaluation.gate.outcomes import GateFrames, ModelOutcomes, PairedOutcomes
from evaluation.resamples import WeightedCurve

BATCH = 500  # resamples at once: bounds the memory


@dataclass(frozen=True)
class Ap50:
    """AP50 of one model under any weights of groups.

    ``boxes``: float64 ``(C, G)``, ground-truth boxes of each class that counts (the tail last) in each group.
    """

    curves: tuple[WeightedCurve, ...]
    boxes: NDArray[np.float64]

    @classmethod
    def of(cls, frames: GateFrames, model: ModelOutcomes, class_boxes: int) -> "Ap50":
        """Sort once. Classes with fewer than ``class_boxes`` boxes, but some, make the tail."""
        column = ap50_columns(frames, class_boxes)
        columns = int(column.max(initial=-1)) + 1
        detections = model.detections
        belongs = column[detections.class_index]
        group = frames.group[detections.frame]
        order = np.lexsort((-detections.score, belongs))
        starts = np.searchsorted(belongs[order], np.arange(columns + 1))
        rows = [order[begin:end] for begin, end in pairwise(starts)]
        counted = column[frames.item_class] * frames.groups + frames.item_group
        boxes = np.bincount(counted, minlength=columns * frames.groups).astype(np.float64)
        return cls(
            tuple(WeightedCurve.of(group[r], detections.hit[r], frames.groups) for r in rows),
            boxes.reshape(columns, frames.groups),
        )

    def mean(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the classes that a resample has boxes of, ``(B,)``; NaN where it has none.

        ``weights``: ``(G, B)``.
        """
        boxes = self.boxes @ weights
        sums, counts = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for curve, there in zip(self.curves, boxes, strict=True):
            ap = curve.average_precision(weights, there)
            counts += there > 0
            sums += np.where(there > 0, ap, 0.0)
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def ap50_columns(frames: GateFrames, class_boxes: int) -> NDArray[np.int64]:
    """Each class's column in the mean, ``(K,)``: its own, the last for the tail, -1 without a box."""
    boxes = frames.class_boxes
    own = boxes >= class_boxes
    column = np.where(own, np.cumsum(own) - 1, int(own.sum()))
    return np.where(boxes > 0, column, -1).astype(np.int64)


def ap50_of(frames: GateFrames, model: ModelOutcomes, class_boxes: int) -> float | None:
    """AP50 of one model on the gate set as it is; ``None`` without a box."""
    value = float(Ap50.of(frames, model, class_boxes).mean(np.ones((frames.groups, 1)))[0])
    return None if np.isnan(value) else value


def ap50_interval(
    outcomes: PairedOutcomes, class_boxes: int, level: float, resamples: int, seed: int
) -> Estimate:
    """The difference in AP50 with its bounds, both at ``level``.

    Bootstrap over whole groups, bias-corrected and accelerated (BCa; Efron 1987), both models under the same
    weights. Where BCa has no answer (fewer than three groups, or a statistic at the edge of its resamples)
    the bounds are infinite: nothing can be said.
    """
    frames = outcomes.frames
    challenger = Ap50.of(frames, outcomes.challenger, class_boxes)
    champion = Ap50.of(frames, outcomes.champion, class_boxes)

    def difference(drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        rows = drawn.reshape(-1, drawn.shape[-1])
        parts = [
            challenger.mean(weights) - champion.mean(weights)
            for start in range(0, len(rows), BATCH)
            for weights in [_weights(rows[start : start + BATCH], frames.groups)]
        ]
        return np.concatenate(parts).reshape(drawn.shape[:-1])

    if not frames.groups:
        return Estimate(0.0, -inf, inf, inf)
    everything = np.arange(frames.groups)
    value = float(difference(everything[None])[0])
    if frames.groups < 3 or np.isnan(value):
        return Estimate(0.0 if np.isnan(value) else value, -inf, inf, inf)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below
        result = stats.bootstrap(
            (everything,),
            difference,
            n_resamples=resamples,
            vectorized=True,
            method="BCa",
            confidence_level=1 - 2 * level,
            rng=np.random.default_rng(seed),
        )
    drawn = result.bootstrap_distribution
    if np.ptp(drawn) == 0:  # the models differ nowhere
        return Estimate(value, value, value, 0.0)
    low, high = (float(bound) for bound in result.confidence_interval)
    if np.isnan(low) or np.isnan(high):
        return Estimate(value, -inf, inf, inf)
    return Estimate(value, low, high, float(np.var(drawn, ddof=1)))


def _weights(drawn: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """How often each resample drew each group, ``(G, B)``."""
    keys = drawn * len(drawn) + np.arange(len(drawn))[:, None]
    counts = np.bincount(keys.ravel(), minlength=groups * len(drawn))
    return counts.reshape(groups, len(drawn)).astype(np.float64)
