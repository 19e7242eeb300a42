"""The gate's error rates are tests: equal models, injected losses, 200 seeded trials each.

A count of errors may exceed the level by what chance gives once in a thousand times (``allowed_errors``), so
each of these tests fails with that probability, and no more, where the level is just held. The seeds are
fixed: a test that passes goes on passing until the code changes.
"""

import numpy as np
import pytest

from benchmarks.support.fleet_outcomes import Difference, FleetShape
from benchmarks.support.gate_simulation import (
    allowed_errors,
    comparisons,
    finding,
    harm_power,
    utility_shares,
)
from evaluation.gate import GateParams, judge_challenger
from evaluation.gate.ap50 import ap50_interval

TRIALS = 200
FEWER_DRAWS = GateParams(resamples=500, flips=1000)  # the level does not depend on it, the time does
SIZES = [FleetShape(groups=60), FleetShape(groups=200), FleetShape(groups=600)]


def test_bound_by_hand() -> None:
    """One trial of two may fail at 50 %; of 10, nine may."""
    # P(2 of 2) = 1/4 > 0.001, so both may fail; of 10 at 50 %, P(all ten) = 1/1024 < 0.001, so nine may
    assert allowed_errors(2, 0.5) == 2
    assert allowed_errors(10, 0.5) == 9


def test_equal_models_are_rarely_blocked_small() -> None:
    """A/A in seconds: 40 comparisons on a small gate set, at most 7 blocks (5 % would give 2).

    These give 4. Were each slice tested alone at 5 %, it would be 11; with no interval about utility, 14.
    """
    params = GateParams(resamples=100, flips=500)
    outcomes = comparisons(FleetShape(groups=60, scale=0.3), Difference(), 40, seed=1)
    verdicts = [judge_challenger(o, params, trial) for trial, o in enumerate(outcomes)]
    assert allowed_errors(40, params.harm_level) == 7
    assert sum(v.outcome == "blocks" for v in verdicts) <= 7


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES, ids=lambda s: f"{s.groups} groups")
def test_equal_models_are_rarely_blocked(shape: FleetShape) -> None:
    """False blocks: at most 5 % of equally good challengers, over all tests of the gate together.

    AP50 truly differs by nothing between them, so each of its bounds is beyond that at most 5 % of times.
    """
    verdicts = [
        judge_challenger(outcomes, FEWER_DRAWS, trial)
        for trial, outcomes in enumerate(comparisons(shape, Difference(), TRIALS, seed=2))
    ]
    assert sum(v.outcome == "blocks" for v in verdicts) <= allowed_errors(TRIALS, FEWER_DRAWS.harm_level)
    ap50 = [next(f for f in v.findings if f.test == "ap50") for v in verdicts]
    allowed = allowed_errors(TRIALS, FEWER_DRAWS.level)
    assert sum(f.low is not None and f.low > 0 for f in ap50) <= allowed
    assert sum(f.high is not None and f.high < 0 for f in ap50) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES, ids=lambda s: f"{s.groups} groups")
def test_a_loss_of_just_the_margin_rarely_passes(shape: FleetShape) -> None:
    """False passes of the primary test: at most 5 % where utility is truly worse by the margin."""
    shares = utility_shares(shape, FEWER_DRAWS.utility_margin, FEWER_DRAWS, TRIALS, seed=3)
    assert shares.passes * TRIALS <= allowed_errors(TRIALS, FEWER_DRAWS.level)
    # the same with every item taken as independent breaks its level where groups are large
    assert shares.independent_passes > shares.passes


@pytest.mark.slow
def test_a_loss_of_ap50_by_the_margin_rarely_passes() -> None:
    """The lower bound exceeds a true loss (its mean over all trials) at most 5 % of times."""
    shape, difference = FleetShape(groups=200), Difference(overall=0.05)
    estimates = [
        ap50_interval(outcomes, 30, FEWER_DRAWS.level, FEWER_DRAWS.resamples, trial)
        for trial, outcomes in enumerate(comparisons(shape, difference, TRIALS, seed=5))
    ]
    truth = float(np.mean([e.value for e in estimates]))
    assert truth < -0.02
    assert sum(e.low > truth for e in estimates) <= allowed_errors(TRIALS, FEWER_DRAWS.level)


@pytest.mark.slow
def test_a_better_model_that_harms_one_class_does_not_pass() -> None:
    """Overall 2 points better, a class of 60 boxes 40 points worse: blocked, and named, nine times of ten.

    The margins are wide here, so that nothing but the test of harm stands in the way.
    """
    shape = FleetShape(groups=300)
    harmed = int(np.argmin(np.abs(shape.class_boxes - 60)))
    params = GateParams(utility_margin=0.2, ap50_margin=0.2, resamples=100, flips=1000)
    difference = Difference(overall=-0.02, classes={harmed: 0.4})
    named = passed = 0
    for trial, outcomes in enumerate(comparisons(shape, difference, TRIALS, seed=6)):
        verdict = judge_challenger(outcomes, params, trial)
        assert finding(verdict, "utility") == "passes"
        passed += verdict.outcome == "passes"
        named += any(f.name == f"class class {harmed}" for f in verdict.findings)
    assert named >= 0.9 * TRIALS
    assert passed <= 0.1 * TRIALS


@pytest.mark.slow
def test_power_grows_with_the_slice() -> None:
    """The same loss of 30 points is found more often in a class of 200 boxes than in one of 60, or of 31."""
    shape = FleetShape(groups=300)
    boxes = shape.class_boxes
    found = [
        harm_power(shape, int(np.argmin(np.abs(boxes - size))), 0.3, FEWER_DRAWS, TRIALS, seed=7)
        for size in (31, 60, 200)
    ]
    assert found[0] < found[1] < found[2]
    assert found[1] > 0.75
