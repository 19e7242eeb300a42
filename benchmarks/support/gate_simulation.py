"""How often the gate errs, by drawing comparisons whose truth is known: for tests and for docs/gate.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.support.fleet_outcomes import Difference, FleetShape, draw_outcomes
from evaluation.gate import GateParams, PairedOutcomes, Verdict, judge_challenger
from evaluation.gate.judgement import slice_results, utility_estimate

FALSE_ALARM = 0.001  # of a test that counts errors: how often it fails though the level is held


def allowed_errors(trials: int, level: float) -> int:
    """Errors in so many trials that an error rate of just ``level`` exceeds once in a thousand times."""
    return int(stats.binom.ppf(1 - FALSE_ALARM, trials, level))


def comparisons(
    shape: FleetShape, difference: Difference, trials: int, seed: int
) -> Iterator[PairedOutcomes]:
    """Independent comparisons with the same true difference."""
    for trial in range(trials):
        yield draw_outcomes(shape, difference, seed * 1_000_000 + trial)


def harm_blocks(
    shape: FleetShape,
    difference: Difference,
    sizes: Sequence[float],
    params: GateParams,
    trials: int,
    seed: int,
) -> list[float]:
    """Share of comparisons blocked for a slice, with each least size of a harm."""
    blocks = np.zeros(len(sizes))
    for trial, outcomes in enumerate(comparisons(shape, difference, trials, seed)):
        significant = [
            r.gain
            for r in slice_results(outcomes, params, trial)
            if r.p is not None and r.p <= params.harm_level
        ]
        blocks += [any(gain <= -size for gain in significant) for size in sizes]
    return [float(share) for share in blocks / trials]


def finding(verdict: Verdict, test: str) -> str:
    """The outcome of the first finding of a test."""
    return next(f.outcome for f in verdict.findings if f.test == test)


def harm_power(
    shape: FleetShape, class_index: int, loss: float, params: GateParams, trials: int, seed: int
) -> float:
    """Share of comparisons in which a class that truly lost so much is found and named."""
    difference = Difference(classes={class_index: loss})
    name = f"class {class_index}"
    found = 0
    for trial, outcomes in enumerate(comparisons(shape, difference, trials, seed)):
        results = slice_results(outcomes, params, trial)
        found += any(
            r.kind == "class"
            and r.name == name
            and r.p is not None
            and r.p <= params.harm_level
            and r.gain <= -params.harm_size
            for r in results
        )
    return found / trials


@dataclass(frozen=True)
class GateShares:
    """How often the whole gate says what.

    ``named``: how often the harmed class is among the reasons of a block, ``None`` where none is harmed.
    """

    passes: float
    holds: float
    blocks: float
    named: float | None
    frames: float


def gate_shares(
    shape: FleetShape, difference: Difference, params: GateParams, trials: int, seed: int
) -> GateShares:
    """All tests of the gate together, against a champion that is the best one ever, without fixed limits."""
    outcomes, named, frames = list[str](), 0, list[int]()
    harmed = {f"class class {index}" for index in difference.classes}
    for trial, drawn in enumerate(comparisons(shape, difference, trials, seed)):
        verdict = judge_challenger(drawn, params, trial)
        outcomes.append(verdict.outcome)
        named += any(f.name in harmed for f in verdict.findings)
        frames.append(verdict.frames)
    passes, holds, blocks = (outcomes.count(name) / trials for name in ("passes", "holds", "blocks"))
    return GateShares(passes, holds, blocks, named / trials if harmed else None, float(np.mean(frames)))


@dataclass(frozen=True)
class UtilityShares:
    """The primary test alone, and the same with every item taken as independent.

    ``psi``: variance of one item's difference; ``design_effect``: of the dependence within frames and groups.
    """

    passes: float
    blocks: float
    independent_passes: float
    psi: float
    design_effect: float
    frames: float
    items: float


def utility_shares(
    shape: FleetShape, loss: float, params: GateParams, trials: int, seed: int
) -> UtilityShares:
    """``loss``: true loss of sorting utility per item, as a share."""
    rows: list[tuple[float, ...]] = []
    for outcomes in comparisons(shape, Difference(overall=loss / 2), trials, seed):
        estimate = utility_estimate(outcomes, params)
        gains: NDArray[np.float64] = outcomes.step * outcomes.right_gain.astype(np.float64)
        alone = estimate.value - stats.norm.ppf(1 - params.level) * np.sqrt(gains.var() / len(gains))
        margin = -params.utility_margin
        dependence = estimate.variance * len(gains) / gains.var()
        rows.append(
            (
                estimate.low > margin,
                estimate.high < margin,
                alone > margin,
                float(gains.var()),
                dependence,
                len(outcomes.frames),
                len(gains),
            )
        )
    return UtilityShares(*(float(value) for value in np.mean(rows, axis=0)))
