"""The gate: may this challenger replace the champion?"""

from collections.abc import Iterator, Sequence
from math import ceil, isfinite

import numpy as np

from evaluation.gate import sentences
from evaluation.gate.ap50 import ap50_interval, ap50_of
from evaluation.gate.harm import max_t_p_values
from evaluation.gate.noninferiority import (
    Estimate,
    RatioEstimate,
    items_needed,
    least_item_variance,
    ratio_interval,
)
from evaluation.gate.outcomes import GateFrames, ModelOutcomes, PairedOutcomes
from evaluation.gate.params import GateParams
from evaluation.gate.slices import gains, gate_slices, ways_to_count
from evaluation.gate.verdict import Check, Finding, Outcome, Rival, SliceResult, Verdict, worst


def judge_challenger(
    outcomes: PairedOutcomes,
    params: GateParams,
    seed: int,
    checks: Sequence[Check] = (),
    against_best: PairedOutcomes | None = None,
) -> Verdict:
    """Judge a challenger against the champion, and against the best champion there ever was.

    ``against_best``: the same challenger paired with that one, so that many small losses do not add up;
    ``None`` if it is the champion. With two rivals each test of harm has half the level, so that the gate's
    rate of false blocks stays what it was. Every finding is in the verdict, whether it passed or not.
    """
    pairings: list[tuple[Rival, PairedOutcomes]] = [("champion", outcomes)]
    if against_best is not None:
        pairings.append(("best champion", against_best))
    findings: list[Finding] = []
    tested, watched = {}, {}
    for rival, pairing in pairings:
        findings.append(utility_finding(pairing, params, rival))
        findings.append(ap50_finding(pairing, params, rival, seed))
        slices = slice_results(pairing, params, seed)
        tested[rival] = tuple(s for s in slices if s.watched is None)
        watched[rival] = tuple(s for s in slices if s.watched is not None)
        findings += harm_findings(tested[rival], params, rival, params.harm_level / len(pairings))
    findings += check_findings(checks)
    return _verdict(findings, outcomes.frames, params, tested, watched)


def judge_first_champion(
    frames: GateFrames,
    model: ModelOutcomes,
    nothing: ModelOutcomes,
    params: GateParams,
    checks: Sequence[Check] = (),
) -> Verdict:
    """Judge a model when there is no champion: it must reach the absolute minima.

    ``nothing``: the outcomes of a model that detects nothing, to which utility is compared: where most items
    belong to the default stream, that one has much. The estimates themselves are compared, not their bounds:
    no better model is displaced.
    """
    items = len(frames.item_frame)
    gain = float((model.utility - nothing.utility).sum())
    values = {
        "sorting utility per item above that of no model": (
            gain / items if items else None,
            params.min_utility,
        ),
        "AP50": (ap50_of(frames, model, params.class_boxes), params.min_ap50),
    }
    findings = [
        Finding(
            test="minimum",
            against="limit",
            name=name,
            outcome="holds" if value is None else "passes" if value >= limit else "blocks",
            estimate=value,
            limit=limit,
            sentence=sentences.minimum(name, value, limit),
        )
        for name, (value, limit) in values.items()
    ]
    return _verdict([*findings, *check_findings(checks)], frames, params, {}, {})


def utility_finding(outcomes: PairedOutcomes, params: GateParams, rival: Rival) -> Finding:
    """Primary: sorting utility per item is not worse by the margin."""
    estimate = utility_estimate(outcomes, params)
    return _noninferiority_finding(
        outcomes.frames,
        params,
        rival,
        estimate,
        "utility",
        params.utility_margin,
        least_item_variance(params.utility_margin, outcomes.step),
    )


def utility_estimate(outcomes: PairedOutcomes, params: GateParams) -> RatioEstimate:
    """The difference in sorting utility per item, with its bounds."""
    frames = outcomes.frames
    return ratio_interval(
        frames.group_sums(outcomes.utility_gain),
        frames.group_sums(frames.frame_items),
        outcomes.utility_gain,
        frames.frame_items.astype(np.float64),
        params.level,
        least_item_variance(params.utility_margin, outcomes.step),
    )


def ap50_finding(outcomes: PairedOutcomes, params: GateParams, rival: Rival, seed: int) -> Finding:
    """Co-primary: AP50 is not worse by the margin."""
    estimate = ap50_interval(outcomes, params.class_boxes, params.level, params.resamples, seed)
    return _noninferiority_finding(
        outcomes.frames, params, rival, estimate, "ap50", params.ap50_margin, least_variance=0.0
    )


def slice_results(outcomes: PairedOutcomes, params: GateParams, seed: int) -> list[SliceResult]:
    """Every slice of the gate set, the worst first; those too small for a test have no p value."""
    frames = outcomes.frames
    slices = list(gate_slices(frames, params.class_boxes))
    groups = [len(np.unique(frames.item_group[s.items])) for s in slices]
    boxes = [int(s.items.sum()) for s in slices]
    why = [too_small(b, g, params) for b, g in zip(boxes, groups, strict=True)]
    ways = [(i, way) for i, s in enumerate(slices) for way in ways_to_count(s.kind)]
    gain = {(i, way): gains(outcomes.champion, outcomes.challenger, way) * slices[i].items for i, way in ways}
    tested = [(i, way) for i, way in ways if why[i] is None]
    sums = [np.bincount(frames.item_group, gain[row], minlength=frames.groups) for row in tested]
    p_values = max_t_p_values(np.reshape(sums, (len(tested), frames.groups)), params.flips, seed)
    p_of = dict(zip(tested, p_values.tolist(), strict=True))

    lost = {row: int(values.sum()) for row, values in gain.items()}
    counted = [min((lost[i, way], way) for way in ways_to_count(s.kind))[1] for i, s in enumerate(slices)]
    results = [
        SliceResult(
            kind=s.kind,
            name=s.name,
            boxes=boxes[i],
            groups=groups[i],
            gain=float(gain[i, counted[i]].sum() / boxes[i]),
            p=p_of.get((i, counted[i])),
            counted_as=counted[i],
            watched=why[i],
        )
        for i, s in enumerate(slices)
    ]
    return sorted(results, key=lambda r: (1.0 if r.p is None else r.p, r.gain))


def harm_findings(
    tested: Sequence[SliceResult], params: GateParams, rival: Rival, level: float
) -> Iterator[Finding]:
    """A block for every slice that got worse, or a single pass.

    A loss must be more than chance and of a size that matters: in a slice of thousands of items a tenth of a
    point is no chance any more, and every retraining moves some slice by that.
    """
    harmed = [s for s in tested if s.p is not None and s.p <= level and s.gain <= -params.harm_size]
    for s in harmed:
        yield Finding(
            test="harm",
            against=rival,
            name=f"{s.kind} {s.name}",
            outcome="blocks",
            estimate=s.gain,
            limit=-params.harm_size,
            p=s.p,
            slice=s,
            sentence=sentences.harm(s, rival),
        )
    if not harmed:
        yield Finding(
            test="harm",
            against=rival,
            name="slices",
            outcome="passes",
            estimate=min((s.gain for s in tested), default=None),
            limit=-params.harm_size,
            p=min((s.p for s in tested if s.p is not None), default=None),
            sentence=sentences.no_harm(len(tested), rival, level),
        )


def check_findings(checks: Sequence[Check]) -> Iterator[Finding]:
    """One finding for each number that somebody else measured."""
    for check in checks:
        yield Finding(
            test="check",
            against="limit",
            name=check.name,
            outcome=check.outcome,
            estimate=check.value,
            limit=check.limit,
            sentence=sentences.check(check),
        )


def too_small(boxes: int, groups: int, params: GateParams) -> str | None:
    """Why a slice of so many boxes in so many groups cannot be tested; ``None`` if it can."""
    if boxes < params.class_boxes:
        return f"{boxes} boxes; a test needs {params.class_boxes}"
    if groups < params.slice_groups:
        return f"{groups} groups; with fewer than {params.slice_groups} chance alone is never ruled out"
    return None


def _noninferiority_finding(
    frames: GateFrames,
    params: GateParams,
    rival: Rival,
    estimate: Estimate,
    test: sentences.Noninferiority,
    margin: float,
    least_variance: float,
) -> Finding:
    few = frames.groups < params.min_groups
    outcome: Outcome = "holds"
    if not few and estimate.low > -margin:
        outcome = "passes"
    elif not few and estimate.high < -margin:
        outcome = "blocks"
    needed = _frames_needed(frames, params, estimate, margin, least_variance) if outcome == "holds" else None
    return Finding(
        test=test,
        against=rival,
        name=sentences.NAMES[test],
        outcome=outcome,
        estimate=estimate.value,
        low=estimate.low if isfinite(estimate.low) else None,
        high=estimate.high if isfinite(estimate.high) else None,
        limit=-margin,
        frames_needed=needed,
        sentence=sentences.noninferiority(
            test, estimate, margin, outcome, rival, params, frames.groups, needed
        ),
    )


def _frames_needed(
    frames: GateFrames, params: GateParams, estimate: Estimate, margin: float, least_variance: float
) -> int | None:
    """Frames in all with which this would be decided with power 0.80.

    Planned for a challenger that is as good as the champion: the estimate of one comparison says little about
    the next one's power (Hoenig and Heisey 2001). If that many frames are there already, the true difference
    is probably near the margin, and twice as many are asked for. ``None`` without a frame.
    """
    if not len(frames) or not frames.groups:
        return None
    from_groups = ceil(params.min_groups * len(frames) / frames.groups)
    items = len(frames.item_frame)
    if not isfinite(estimate.variance) or not items:
        return from_groups
    psi_and_design_effect = max(estimate.variance * items, least_variance)
    planned = ceil(items_needed(psi_and_design_effect, 1.0, margin) * len(frames) / items)
    enough = planned <= len(frames) and from_groups <= len(frames)
    return 2 * len(frames) if enough else max(from_groups, planned)


def _verdict(
    findings: Sequence[Finding],
    frames: GateFrames,
    params: GateParams,
    slices: dict[Rival, tuple[SliceResult, ...]],
    watch: dict[Rival, tuple[SliceResult, ...]],
) -> Verdict:
    return Verdict(
        outcome=worst(f.outcome for f in findings),
        findings=tuple(findings),
        slices=slices,
        watch=watch,
        frames=len(frames),
        groups=frames.groups,
        items=len(frames.item_frame),
        params=params,
    )
