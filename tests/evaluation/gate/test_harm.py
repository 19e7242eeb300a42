"""The sign-flip max-T test, against every flip written out."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.gate.harm import max_t_p_values


def all_flips(sums: np.ndarray) -> list[float]:
    """Single-slice p values by going through all 2^G signs."""
    out = []
    for row in sums:
        flipped = [float(np.dot(signs, row)) for signs in product((1, -1), repeat=len(row))]
        out.append(sum(f <= row.sum() for f in flipped) / len(flipped))
    return out


def test_one_slice_by_hand() -> None:
    """Five groups that all lose: only one of 2^5 = 32 flips loses as much."""
    p = max_t_p_values(np.array([[-1.0, -1, -1, -1, -1]]), flips=20_000, seed=1)
    assert all_flips(np.array([[-1.0, -1, -1, -1, -1]])) == [1 / 32]
    assert p == pytest.approx([1 / 32], abs=0.005)


def test_two_slices_by_hand() -> None:
    """The larger of two losses is compared; the second then with itself alone."""
    # disjoint slices of three groups each: both lose with chance 1/8 of being as bad; the worst of two is as
    # bad with 1 - (7/8)² = 15/64, and both have the same observed value, so the same p
    sums = np.array([[-1.0, -1, -1, 0, 0, 0], [0, 0, 0, -1, -1, -1]])
    assert max_t_p_values(sums, 20_000, seed=1) == pytest.approx([15 / 64] * 2, abs=0.01)
    # a slice that gained is not harmed: the first is compared with the larger of two, the second with itself
    sums = np.array([[-1.0, -1, -1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    p = max_t_p_values(sums, 20_000, seed=1)
    assert p == pytest.approx([15 / 64, 1.0], abs=0.01)


def test_the_same_slice_twice_costs_nothing() -> None:
    """Slices that say the same are one question, where Bonferroni would double the p value."""
    row = [-1.0, -1, -1, -1, -1, 1]
    once = max_t_p_values(np.array([row]), 5000, seed=2)[0]
    twice = max_t_p_values(np.array([row, row]), 5000, seed=2)
    assert twice.tolist() == [once, once]


def test_slices_without_a_difference_are_not_harmed() -> None:
    """No difference: p = 1. No slice: no p value."""
    assert max_t_p_values(np.zeros((2, 5)), 100, seed=1).tolist() == [1, 1]
    assert max_t_p_values(np.zeros((0, 5)), 100, seed=1).shape == (0,)


@settings(max_examples=30)
@given(arrays(np.float64, (4, 6), elements=st.integers(-3, 3).map(float)), st.permutations(range(4)))
def test_p_values_are_ordered_adjusted_and_follow_their_slices(sums: np.ndarray, order: list[int]) -> None:
    """The worse the slice the smaller its p; never below the single slice's; whatever the slices' order."""
    p = max_t_p_values(sums, 2000, seed=3)
    scale = np.sqrt((sums**2).sum(axis=1))
    t = np.divide(sums.sum(axis=1), scale, out=np.zeros(4), where=scale > 0)
    by_harm = np.argsort(t, kind="stable")
    assert (np.diff(p[by_harm]) >= 0).all()
    assert (p >= np.array(all_flips(sums)) - 0.06).all()  # 2,000 flips: 5 standard errors of 0.011
    assert max_t_p_values(sums[order], 2000, seed=3) == pytest.approx(p[order])
