"""What the gate says: one verdict, and every finding behind it as data and as a sentence."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evaluation.gate.params import GateParams

Outcome = Literal["passes", "holds", "blocks"]
Rival = Literal["champion", "best champion", "limit"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(_Frozen):
    """One measured number against a fixed limit: latency, size, the EdgeTPU's compatibility, int8 to float.

    ``value``: ``None`` if nobody measured it, which holds the challenger; ``unit``: as printed behind both
    numbers, empty for none.
    """

    name: str
    value: float | None
    limit: float
    bound: Literal["at most", "at least"]
    unit: str = ""

    @property
    def outcome(self) -> Outcome:
        """Passes at the limit, too."""
        if self.value is None:
            return "holds"
        within = self.value <= self.limit if self.bound == "at most" else self.value >= self.limit
        return "passes" if within else "blocks"


class SliceResult(_Frozen):
    """One slice of the gate set: how many more of its items the challenger gets right.

    ``gain``: share of ``boxes``, negative for a loss; ``p``: of "it got worse", adjusted for all slices that
    were tested; ``None`` on the watch list, and then ``watched`` says why.
    """

    kind: str
    name: str
    boxes: int
    groups: int
    gain: float
    p: float | None
    watched: str | None = None
    counted_as: str = "stream"  # a class counts as "class" (recognised) or as "stream" (sorted), by the worse


class Finding(_Frozen):
    """One test's answer.

    ``estimate``, ``low``, ``high``: challenger minus rival, as shares; ``None`` where there is nothing to say
    (a bound that is infinite, a check that nobody measured). ``limit``: what the answer was held against.
    ``frames_needed``: about how many frames in all would decide; ``None`` where it is decided.
    """

    test: Literal["utility", "ap50", "harm", "minimum", "check"]
    against: Rival
    name: str
    outcome: Outcome
    estimate: float | None
    low: float | None = None
    high: float | None = None
    limit: float
    p: float | None = None
    slice: SliceResult | None = None
    frames_needed: int | None = None
    sentence: str


class Verdict(_Frozen):
    """May the challenger replace the champion?

    ``slices``: by rival, those that were tested, the worst first; ``watch``: those too small to test, which
    never block.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]
    slices: dict[Rival, tuple[SliceResult, ...]]
    watch: dict[Rival, tuple[SliceResult, ...]]
    frames: int
    groups: int
    items: int
    params: GateParams

    @property
    def more_frames(self) -> int | None:
        """About how many more exploration frames would decide; ``None`` unless evidence is what lacks."""
        needed = [f.frames_needed for f in self.findings if f.frames_needed is not None]
        return max(max(needed) - self.frames, 1) if self.outcome == "holds" and needed else None

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the findings that made the outcome what it is."""
        return tuple(f.sentence for f in self.findings if f.outcome == self.outcome)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """One block blocks, else one hold holds."""
    found = set(outcomes)
    return "blocks" if "blocks" in found else "holds" if "holds" in found else "passes"
