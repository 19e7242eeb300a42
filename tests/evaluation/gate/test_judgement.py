"""The verdict: what passes, holds and blocks, and what it says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.support.fleet_outcomes import Difference, FleetShape, draw_outcomes
from evaluation.gate import (
    Check,
    GateParams,
    PairedOutcomes,
    Verdict,
    judge_challenger,
    judge_first_champion,
)
from evaluation.gate.judgement import slice_results, utility_estimate
from evaluation.gate.slices import gains
from tests.evaluation.gate.small_outcomes import frames_of, model_of, pair

QUICK = GateParams(resamples=100, flips=500)
LATENCY = Check(name="latency", value=8.0, limit=10.0, bound="at most", unit="ms")


def two_groups_each(groups: int, champion: list[bool], challenger: list[bool]) -> PairedOutcomes:
    """``groups`` groups of one frame, each with the same items of class 0, 1, ... and the same outcomes."""
    items = [(frame, index) for frame in range(groups) for index in range(len(champion))]
    frames = frames_of(list(range(groups)), items)
    return pair(frames, model_of(frames, champion * groups), model_of(frames, challenger * groups))


def test_utility_by_hand() -> None:
    """Of every two items one gets right that was wrong: a step of 2 on half of the items is 1 per item."""
    estimate = utility_estimate(two_groups_each(25, [False, True], [True, True]), QUICK)
    assert estimate.value == 1.0
    assert estimate.variance == 0.0


def test_slices_by_hand() -> None:
    """Three classes in 12 groups: the first lost in all, the second gained in all, the third unchanged."""
    outcomes = two_groups_each(12, [True, False, True], [False, True, True])
    params = QUICK.model_copy(update={"class_boxes": 12, "flips": 20_000})
    results = {(r.kind, r.name): r for r in slice_results(outcomes, params, seed=1)}
    lost = results["class", "class 0"]
    assert (lost.boxes, lost.groups, lost.gain) == (12, 12, -1.0)
    assert lost.p is not None
    assert lost.p < 0.005  # 2^-12 alone, a few times that among seven slices
    assert results["class", "class 1"].gain == 1.0
    assert results["stream", "recycling"].gain == 0.0  # 12 lost, 12 gained
    assert results["bin", "bin-a"].boxes == 18  # every second group
    assert results["bin", "bin-a"].watched == ("6 groups; with fewer than 10 chance alone is never ruled out")
    assert ("tail", "recycling") not in results  # every class stands for itself


def test_a_class_that_is_no_longer_recognised_is_harmed_though_it_is_sorted_right() -> None:
    """Its items are taken for another class of their stream, or are missed and belong to the default one."""
    items = [(frame, 0) for frame in range(12)]
    frames = frames_of(list(range(12)), items)
    champion = model_of(frames, [True] * 12)
    challenger = model_of(frames, [True] * 12, recognised=[False] * 12)
    params = QUICK.model_copy(update={"class_boxes": 12, "flips": 20_000})
    outcomes = pair(frames, champion, challenger)
    results = {(r.kind, r.name): r for r in slice_results(outcomes, params, seed=1)}
    assert (results["class", "class 0"].gain, results["stream", "recycling"].gain) == (-1.0, 0.0)
    verdict = judge_challenger(outcomes, params, seed=1)
    (reason,) = [f.sentence for f in verdict.findings if f.slice is not None]
    assert reason.startswith("Class class 0 got worse: of its 12 items in 12 groups, 100.0 points fewer are")
    assert "recognised as what they are than by the champion" in reason


def test_rare_classes_are_watched_and_pooled() -> None:
    """With 12 boxes each and 20 wanted, classes are watched, and their stream's tail is tested."""
    outcomes = two_groups_each(12, [True, False, True], [False, True, True])
    params = QUICK.model_copy(update={"class_boxes": 20})
    results = {(r.kind, r.name): r for r in slice_results(outcomes, params, seed=1)}
    watched = results["class", "class 0"]
    assert (watched.p, watched.watched) == (None, "12 boxes; a test needs 20")
    assert results["tail", "recycling"].boxes == 24
    assert results["tail", "recycling"].p is not None


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 80))
def test_a_copy_of_the_champion_never_blocks(seed: int, groups: int) -> None:
    """However small the gate set; it passes once that is large enough to rule a loss out."""
    outcomes = draw_outcomes(FleetShape(groups=groups, scale=0.3), Difference(), seed)
    copy = pair(outcomes.frames, outcomes.champion, outcomes.champion)
    verdict = judge_challenger(copy, QUICK, seed)
    assert verdict.outcome == ("passes" if groups >= QUICK.min_groups else "holds")


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_names_of_groups_and_their_order_change_nothing(seed: int) -> None:
    """Groups are only a partition: other numbers give the same utility, gains and AP50."""
    outcomes = draw_outcomes(FleetShape(groups=40, scale=0.3), Difference(), seed)
    order = np.random.default_rng(seed).permutation(40)
    renamed = replace(outcomes, frames=replace(outcomes.frames, group=order[outcomes.frames.group]))
    one, other = (judge_challenger(o, QUICK, seed) for o in (outcomes, renamed))
    for a, b in zip(one.findings[:2], other.findings[:2], strict=True):
        assert b.estimate == pytest.approx(a.estimate, abs=1e-12)
    assert other.findings[0].low == pytest.approx(one.findings[0].low)
    gains = [{(s.kind, s.name): s.gain for s in v.slices["champion"]} for v in (one, other)]
    assert gains[0] == gains[1]


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_exchanged_roles_flip_signs(seed: int) -> None:
    """What the challenger gains is what the champion would lose."""
    outcomes = draw_outcomes(FleetShape(groups=40, scale=0.3), Difference(), seed)
    there, back = (judge_challenger(o, QUICK, seed) for o in (outcomes, outcomes.swapped()))
    for a, b in zip(there.findings[:2], back.findings[:2], strict=True):
        assert a.estimate is not None
        assert b.estimate == pytest.approx(-a.estimate, abs=1e-12)
    slices = [{(s.kind, s.name): s for s in v.slices["champion"]} for v in (there, back)]
    assert slices[0].keys() == slices[1].keys()
    for name, one in slices[0].items():
        other = slices[1][name]
        if one.counted_as == other.counted_as:
            assert other.gain == -one.gain
        else:  # each is counted by the way in which it is worse
            assert one.kind == "class"
    for way in ("class", "stream"):
        forth = gains(outcomes.champion, outcomes.challenger, way)
        assert (gains(outcomes.challenger, outcomes.champion, way) == -forth).all()


def test_a_worse_challenger_is_blocked_and_the_sentences_say_why() -> None:
    """Twenty points fewer items sorted right."""
    outcomes = draw_outcomes(FleetShape(groups=200), Difference(overall=0.2), seed=1)
    verdict = judge_challenger(outcomes, QUICK, seed=1)
    assert verdict.outcome == "blocks"
    assert verdict.more_frames is None
    assert any("loses more than the 2.0 points that are allowed" in reason for reason in verdict.reasons)
    assert any("got worse: of its" in reason for reason in verdict.reasons)


def test_thin_evidence_holds_and_says_how_many_frames_would_decide() -> None:
    """The figure comes from n = 6.18 psi / margin², by frames."""
    outcomes = draw_outcomes(FleetShape(groups=60, scale=0.3), Difference(), seed=6)
    verdict = judge_challenger(outcomes, QUICK, seed=6)
    assert verdict.outcome == "holds"
    estimate = utility_estimate(outcomes, QUICK)
    frames = len(outcomes.frames)
    items = 6.1826 * estimate.variance * verdict.items / 0.02**2
    needed = verdict.findings[0].frames_needed
    assert needed == pytest.approx(items * frames / verdict.items, rel=1e-3)
    assert verdict.more_frames is not None
    assert verdict.more_frames + frames >= needed
    assert f"about {needed} exploration frames in all would decide" in verdict.reasons[0]


def test_too_few_groups_hold() -> None:
    """On 12 groups nobody is judged, however clear it looks; 20 groups would be 20 frames, 8 more."""
    verdict = judge_challenger(two_groups_each(12, [True] * 3, [True] * 3), QUICK, seed=1)
    assert verdict.outcome == "holds"
    assert "12 groups of frames are too few to judge on (20 are needed)" in verdict.reasons[0]
    # a loss of utility is ruled out by 6.18 x 0.0396 / 0.0004 = 612.1 items, and three are in a frame:
    # 613 / 3 = 204.3. AP50 never differed, so it needs just the 20 groups, of one frame each
    assert [f.frames_needed for f in verdict.findings if f.outcome == "holds"] == [205, 20]


def test_the_best_champion_ever_is_a_second_bar() -> None:
    """Equal to the champion, worse than the best one: blocked, by name; half the level for each."""
    outcomes = draw_outcomes(FleetShape(groups=200), Difference(overall=0.2), seed=1)
    same = pair(outcomes.frames, outcomes.challenger, outcomes.challenger)
    verdict = judge_challenger(same, QUICK, seed=1, against_best=outcomes)
    assert verdict.outcome == "blocks"
    assert {f.against for f in verdict.findings if f.outcome == "blocks"} == {"best champion"}
    assert "from the best champion's" in verdict.reasons[0]
    no_harm = next(f for f in verdict.findings if f.test == "harm" and f.against == "champion")
    assert "false alarm in any of them: 2.5 %" in no_harm.sentence


@pytest.mark.parametrize(
    ("check", "outcome", "sentence"),
    [
        (LATENCY, "passes", "latency: 8 ms; at most 10 ms is allowed."),
        (LATENCY.model_copy(update={"value": 10.0}), "passes", "latency: 10 ms; at most 10 ms is allowed."),
        (
            LATENCY.model_copy(update={"value": 12.5}),
            "blocks",
            "latency: 12.5 ms, which is outside the limit; at most",
        ),
        (LATENCY.model_copy(update={"value": None}), "holds", "latency was not measured"),
        (
            Check(name="EdgeTPU operations", value=0.8, limit=1.0, bound="at least"),
            "blocks",
            "EdgeTPU operations: 0.8, which is outside the limit; at least 1 is allowed.",
        ),
    ],
)
def test_checks_are_gates_too(check: Check, outcome: str, sentence: str) -> None:
    """A number at its limit passes; one that nobody measured holds the challenger."""
    outcomes = draw_outcomes(FleetShape(groups=60, scale=0.3), Difference(), seed=1)
    copy = pair(outcomes.frames, outcomes.champion, outcomes.champion)
    verdict = judge_challenger(copy, QUICK, seed=1, checks=[check])
    assert verdict.outcome == outcome
    assert verdict.findings[-1].sentence.startswith(sentence)
    assert verdict.more_frames is None


def test_the_first_champion_must_reach_the_minima() -> None:
    """A model that sorts everything wrong is blocked, one that sorts all right and finds it passes."""
    frames = frames_of([0, 1], [(0, 0), (1, 0)])
    untrained = model_of(frames, [False, False], [(0, 0, 0.5, False)])
    nothing = model_of(frames, [False, True])  # the second item belongs to the default stream
    verdict = judge_first_champion(frames, untrained, nothing, QUICK)
    assert verdict.outcome == "blocks"
    assert verdict.reasons == (
        "Sorting utility per item above that of no model is -1.000; a first champion needs 0.000.",
        "AP50 is 0.000; a first champion needs 0.050.",
    )
    trained = model_of(frames, [True, True], [(0, 0, 0.5, True), (1, 0, 0.5, True)])
    assert judge_first_champion(frames, trained, nothing, QUICK, [LATENCY]).outcome == "passes"


def test_without_an_item_nothing_is_said() -> None:
    """An empty gate set holds, with and without a champion."""
    frames = frames_of([], [])
    nothing = model_of(frames, [])
    assert judge_first_champion(frames, nothing, nothing, QUICK).outcome == "holds"
    verdict = judge_challenger(pair(frames, nothing, nothing), QUICK, seed=1)
    assert verdict.outcome == "holds"
    assert verdict.more_frames is None


def test_a_verdict_is_written_and_read() -> None:
    """JSON and back, infinite bounds being null."""
    outcomes = draw_outcomes(FleetShape(groups=2, scale=0.1), Difference(), seed=1)
    verdict = judge_challenger(outcomes, QUICK, seed=1, checks=[LATENCY])
    assert verdict.findings[1].low is None
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
