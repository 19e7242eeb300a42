"""The ratio estimator, its bounds and the sample size, against arithmetic done by hand."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation.gate.noninferiority import (
    items_needed,
    least_item_variance,
    mean_per_item,
    ratio_interval,
)


def test_variance_of_groups_of_one_size() -> None:
    """Three groups of two items: the ordinary variance of the groups' means, with two degrees of freedom."""
    # sums 2, 0, -2 of 2 items each: mean 0 / 6 = 0; means 1, 0, -1 have variance 1, and 1 / 3 of their mean
    value, variance, freedom = mean_per_item(np.array([2.0, 0.0, -2.0]), np.array([2.0, 2.0, 2.0]))
    assert value == 0
    assert variance == pytest.approx(1 / 3)
    assert freedom == pytest.approx(2)


def test_variance_of_groups_of_different_sizes() -> None:
    """Two groups of one and three items, every step written out."""
    # ratio (1 + 0) / 4 = 0.25; residuals 1 - 0.25 = 0.75 and 0 - 0.75 = -0.75; shares 1/4 and 3/4;
    # CR2 weights 1 / (3/4) = 4/3 and 1 / (1/4) = 4: variance (4/3 x 9/16 + 4 x 9/16) / 16 = 3 / 16.
    value, variance, freedom = mean_per_item(np.array([1.0, 0.0]), np.array([1.0, 3.0]))
    assert value == 0.25
    assert variance == pytest.approx(3 / 16)
    # shares² 1/16 + 9/16 = 5/8; weight x share²: 4/3 x 1/16 = 1/12 and 4 x 9/16 = 9/4; twice their product
    # is 2 x 1/12 x 9/4 = 3/8; 1 / (5/8 + 3/8) = 1: two groups leave one degree, whatever their sizes
    assert freedom == pytest.approx(1)


@pytest.mark.parametrize(("sums", "items"), [([], []), ([1.0], [2.0]), ([1.0, 0.0], [2.0, 0.0])])
def test_fewer_than_two_groups_say_nothing(sums: list[float], items: list[float]) -> None:
    """Without two groups that have items there is no variance, and the bounds are infinite."""
    arrays = np.array(sums), np.array(items)
    estimate = ratio_interval(*arrays, *arrays, level=0.05)
    assert (estimate.low, estimate.high, estimate.variance) == (-inf, inf, inf)


def test_bounds_are_students_t() -> None:
    """Mean ± t x standard error, each bound at the level itself."""
    sums, items = np.array([3.0, 1.0, 2.0]), np.array([2.0, 2.0, 2.0])
    estimate = ratio_interval(sums, items, sums, items, level=0.05)
    # means 1.5, 0.5, 1: mean 1, variance 0.25, of the mean 0.25 / 3; t(0.95, 2 degrees) = 2.91999
    half = 2.919986 * sqrt(0.25 / 3)
    assert estimate.low == pytest.approx(1 - half, rel=1e-6)
    assert estimate.high == pytest.approx(1 + half, rel=1e-6)


def test_design_effect_of_frames_that_repeat_each_other() -> None:
    """Two equal frames in each group count as one, so the design effect is nearly two."""
    gains = np.array([1.0, 0.0, -1.0, 0.0, 1.0, -1.0] * 20)
    frames, items = np.repeat(gains, 2), np.ones(240)
    estimate = ratio_interval(2 * gains, np.full(120, 2.0), frames, items, level=0.05)
    # groups: sum of squares 80 x 2² = 320, x 120/119 / 240²; frames: 160 x 240/239 / 240²
    assert estimate.design_effect == pytest.approx(2 * (120 / 119) / (240 / 239))
    # psi: variance of one frame's difference, 160 / 239
    assert estimate.psi == pytest.approx(160 / 239)


def test_models_that_never_differ_pass_only_on_enough_items() -> None:
    """Seeing no loss among a few items does not rule out a loss of the margin."""
    # a loss of 0.02 in steps of 2 has variance 0.02 x 2 - 0.02² = 0.0396 per item
    least = least_item_variance(0.02, 2.0)
    assert least == pytest.approx(0.0396)
    lows = {}
    for n in (200, 400):  # t x sqrt(0.0396 / 200) = 0.0233 > 0.02; t x sqrt(0.0396 / 400) = 0.0164 < 0.02
        nothing, ones = np.zeros(n), np.ones(n)
        lows[n] = ratio_interval(nothing, ones, nothing, ones, 0.05, least).low
    assert lows[200] < -0.02 < lows[400]
    assert lows[400] == pytest.approx(-stats.t.ppf(0.95, 399) * sqrt(0.0396 / 400))


@pytest.mark.parametrize(
    ("psi", "design_effect", "delta", "expected"),
    [
        (0.1, 1.0, 0.02, 1546),  # 6.1826 x 0.1 / 0.0004 = 1545.6
        (0.1, 1.5, 0.02, 2319),  # half as many again
        (0.1, 1.0, 0.04, 387),  # twice the margin, a quarter: 386.4
    ],
)
def test_sample_size(psi: float, design_effect: float, delta: float, expected: int) -> None:
    """n = 6.18 psi / delta² x design effect."""
    assert items_needed(psi, design_effect, delta) == expected


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 9)), min_size=2, max_size=30),
)
def test_exchanged_roles_mirror_the_interval(rows: list[tuple[int, int]]) -> None:
    """Challenger minus champion is minus champion minus challenger; degrees lie between 1 and G - 1."""
    sums, items = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    there = ratio_interval(sums, items, sums, items, 0.05)
    back = ratio_interval(-sums, items, -sums, items, 0.05)
    assert back.value == pytest.approx(-there.value)
    assert back.low == pytest.approx(-there.high)
    assert back.high == pytest.approx(-there.low)
    assert 1 - 1e-9 <= there.degrees_of_freedom <= len(rows) - 1 + 1e-9
