"""What moved from champion to challenger, up and down, and how often chance is taken for a move."""

from benchmarks.support.fleet_outcomes import Difference, FleetShape, draw_outcomes
from evaluation.gate import GateParams, slice_changes, slices_of_first
from tests.evaluation.gate.small_outcomes import frames_of, model_of, pair
from tests.evaluation.gate.test_judgement import two_groups_each

PARAMS = GateParams(class_boxes=12, flips=2000)


def test_changes_by_hand() -> None:
    """Three classes in 12 groups: the second gained in all, the first lost in all, the third is as it was."""
    outcomes = two_groups_each(12, [True, False, True], [False, True, True])
    changes = slice_changes(outcomes, PARAMS, seed=1)
    by_name = {(c.kind, c.name): c for c in changes}
    gained, lost = by_name["class", "class 1"], by_name["class", "class 0"]
    assert (gained.before, gained.after, gained.gain, gained.moved) == (0.0, 1.0, 1.0, True)
    assert (lost.before, lost.after, lost.gain, lost.moved) == (1.0, 0.0, -1.0, True)
    assert [by_name["class", "class 2"].gain, by_name["stream", "recycling"].gain] == [0.0, 0.0]
    assert not by_name["class", "class 2"].moved
    assert [c.name for c in changes[:2]] == ["class 1", "class 0"]  # what moved comes first, gains on top
    assert by_name["bin", "bin-a"].p is None  # six groups
    assert "tail" not in {c.kind for c in changes}


def test_a_change_either_way_costs_twice_the_loss_alone() -> None:
    """Five groups that all gain: of 2^5 flips one is as high and one as low, so p = 2/32."""
    params = GateParams(class_boxes=1, slice_groups=1, flips=20_000)
    frames = frames_of(list(range(5)), [(frame, 0) for frame in range(5)], classes=1)
    outcomes = pair(frames, model_of(frames, [False] * 5), model_of(frames, [True] * 5))
    change = next(c for c in slice_changes(outcomes, params, seed=1) if c.kind == "class")
    # the two bins have 3 and 2 groups, and are never as extreme as all five
    assert change.p is not None
    assert abs(change.p - 2 / 32) < 0.006


def test_a_first_model_has_no_before() -> None:
    """Nothing is compared, so nothing moved."""
    frames = frames_of([0, 1], [(0, 0), (1, 0), (1, 2)])
    changes = slices_of_first(frames, model_of(frames, [True, False, True]), PARAMS)
    first = next(c for c in changes if c.name == "class 0")
    assert (first.before, first.after, first.p, first.moved, first.gain) == (None, 0.5, None, False, 0.0)


def test_without_a_frame_there_is_no_slice() -> None:
    """An empty gate set has nothing to show."""
    frames = frames_of([], [])
    nothing = model_of(frames, [])
    assert slice_changes(pair(frames, nothing, nothing), PARAMS, seed=1) == []
    assert slices_of_first(frames, nothing, PARAMS) == []


def test_equal_models_rarely_move_anything() -> None:
    """In 100 comparisons of equal models at most 11 name a slice: at a rate of 5 % more come once in 200."""
    params = GateParams(flips=1000)
    named = 0
    for seed in range(100):
        outcomes = draw_outcomes(FleetShape(groups=100), Difference(), seed)
        named += any(change.moved for change in slice_changes(outcomes, params, seed))
    assert named <= 11
