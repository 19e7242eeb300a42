"""Findings in words, for people who do not read statistics."""

from math import isfinite
from typing import Literal

from evaluation.gate.noninferiority import Estimate
from evaluation.gate.params import GateParams
from evaluation.gate.verdict import Check, Outcome, Rival, SliceResult

Noninferiority = Literal["utility", "ap50"]
NAMES: dict[Noninferiority, str] = {"utility": "sorting utility per item", "ap50": "AP50"}


def noninferiority(
    test: Noninferiority,
    estimate: Estimate,
    margin: float,
    outcome: Outcome,
    rival: Rival,
    params: GateParams,
    groups: int,
    needed: int | None,
) -> str:
    """The difference, its interval, and what follows from it."""
    name = NAMES[test][0].upper() + NAMES[test][1:]
    what = f"{name} differs by {points(estimate.value)} points from the {rival}'s"
    if isfinite(estimate.low) and isfinite(estimate.high):
        share = 100 * (1 - 2 * params.level)
        what += f" ({share:.0f} % interval {points(estimate.low)} to {points(estimate.high)})"
    loss = f"a loss of {100 * margin:.1f} points"
    if outcome == "passes":
        return f"{what}: {loss} is ruled out."
    if outcome == "blocks":
        return f"{what}: it loses more than the {100 * margin:.1f} points that are allowed."
    total = "" if needed is None else f"; about {needed} exploration frames in all would decide"
    if groups < params.min_groups:
        least = f"{params.min_groups} are needed"
        return f"{what}: {groups} groups of frames are too few to judge on ({least}){total}."
    return f"{what}: {loss} is neither ruled out nor shown{total}."


def harm(result: SliceResult, rival: Rival) -> str:
    """Which slice got worse, by how much, and how sure that is."""
    return (
        f"{_slice(result)} got worse: of its {result.boxes} items in {result.groups} groups, "
        f"{100 * -result.gain:.1f} points fewer are {counted(result.counted_as)} than by the {rival} "
        f"(p = {result.p:.4f}, adjusted for all slices)."
    )


def no_harm(slices: int, rival: Rival, level: float) -> str:
    """No slice got worse."""
    return (
        f"None of {slices} slices got worse than with the {rival} "
        f"(chance of a false alarm in any of them: {100 * level:.1f} %)."
    )


def minimum(name: str, value: float | None, limit: float) -> str:
    """A first champion against an absolute minimum."""
    name = name[0].upper() + name[1:]
    if value is None:
        return f"{name} cannot be said: the gate set has no item."
    return f"{name} is {value:.3f}; a first champion needs {limit:.3f}."


def check(result: Check) -> str:
    """A number against its limit."""
    unit = f" {result.unit}" if result.unit else ""
    allowed = f"{result.bound} {result.limit:g}{unit}"
    if result.value is None:
        return f"{result.name} was not measured; it must be {allowed}."
    verdict = "" if result.outcome == "passes" else ", which is outside the limit"
    return f"{result.name}: {result.value:g}{unit}{verdict}; {allowed} is allowed."


def counted(kind: str) -> str:
    """How an item of a slice of this kind is right, see :mod:`evaluation.gate.slices`."""
    return "recognised as what they are" if kind == "class" else "sorted right"


def points(share: float) -> str:
    """A share as points of 100, with its sign."""
    return f"{100 * share:+.1f}"


def _slice(result: SliceResult) -> str:
    kinds = {"class": "Class", "stream": "Stream", "tail": "The rare classes of stream", "bin": "Bin"}
    return f"{kinds[result.kind]} {result.name}"
