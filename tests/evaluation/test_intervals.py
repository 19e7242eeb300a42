"""Intervals of clustered items, against arithmetic done by hand and against simulation."""

import numpy as np
import pytest

from evaluation.intervals import ClusteredProportion, bca_interval, group_weights, number_groups
from evaluation.sorting_accuracy import wilson_interval


def share_of(*groups: tuple[int, int]) -> ClusteredProportion:
    """From ``(hits, of)`` per group."""
    return ClusteredProportion(np.array([h for h, _ in groups]), np.array([n for _, n in groups]))


def test_without_repeated_groups_it_is_plain_wilson() -> None:
    """Eight of ten items, each of a group of its own: Wilson's interval of 8 of 10."""
    share = share_of(*[(1, 1)] * 8, *[(0, 1)] * 2)
    assert share.effective_items == 10
    assert share.interval == pytest.approx(wilson_interval(8, 10))


def test_the_design_effect_by_hand() -> None:
    """Forty groups of four items, half of the groups 4 of 4 and half 2 of 4."""
    share = share_of(*[(4, 4)] * 20, *[(2, 4)] * 20)
    # p = 120 / 160 = 0.75; residuals 4 - 3 = 1 and 2 - 3 = -1, so the sum of squares is 40, and
    # v = 40 / 39 * 40 / 160^2 = 0.0016026; independent: 0.75 * 0.25 / 160 = 0.0011719; design effect 1.3675
    # few groups: t(39) = 2.0227, (1.95996 / 2.0227)^2 = 0.93893; 160 / 1.3675 * 0.93893 = 109.86
    assert share.effective_items == pytest.approx(109.86, abs=0.01)


@pytest.mark.parametrize("hits", [0, 5])
def test_all_or_none(hits: int) -> None:
    """Where groups do not differ each counts as one item: 4 groups of 5 are 4, not 20."""
    share = share_of(*[(hits, 5)] * 4)
    assert share.effective_items == 4
    assert share.interval == pytest.approx(wilson_interval(4 * hits / 5, 4))


def test_items_that_fare_alike_count_once() -> None:
    """Groups of which all or no items are hits say no more than one item each."""
    assert share_of(*[(5, 5)] * 10, *[(0, 5)] * 10).effective_items == pytest.approx(20)


def test_nothing_has_no_interval() -> None:
    """Of no items there is neither a share nor an interval; groups without an item play no part."""
    nothing = share_of((0, 0))
    assert (nothing.value, nothing.effective_items, nothing.interval) == (None, None, None)
    assert share_of((1, 1), (0, 0), (0, 1)).effective_items == 2


def test_items_are_counted_by_group() -> None:
    """Hits and items per group, of those that count."""
    share = ClusteredProportion.count(
        np.array([True, False, True, True]), np.array([0, 0, 2, 2]), np.array([True, True, True, False])
    )
    assert share.hits.tolist() == [1, 0, 1]
    assert share.of.tolist() == [2, 0, 1]


@pytest.mark.parametrize("truth", [0.7, 0.95])
def test_it_holds_the_truth_where_plain_wilson_does_not(truth: float) -> None:
    """Sixty groups of 1 to 9 items with an intraclass correlation of 0.3: the interval holds the truth in at
    least 92% of 1,000 seeded trials, Wilson's of independent items in less than 88%.
    """
    draw = np.random.default_rng(20)
    spread = 1 / 0.3 - 1  # a beta-binomial's a + b, of which the intraclass correlation is 1 / (a + b + 1)
    held = plain = 0
    for _ in range(1000):
        of = draw.integers(1, 10, 60)
        hits = draw.binomial(of, draw.beta(truth * spread, (1 - truth) * spread, 60))
        interval = ClusteredProportion(hits, of).interval
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
        low, high = wilson_interval(int(hits.sum()), int(of.sum()))
        plain += low <= truth <= high
    assert held >= 920
    assert plain < 880


def test_group_names_become_numbers() -> None:
    """The same name is the same number."""
    assert number_groups(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert number_groups([]).tolist() == []


def test_resamples_draw_whole_groups() -> None:
    """Each draws as many groups as there are; then every group is left out once; last is the sample."""
    weights = group_weights(5, 100, seed=1)
    assert weights.shape == (5, 106)
    assert (weights[:, :100].sum(axis=0) == 5).all()
    assert (weights[:, 100:105] == 1 - np.eye(5)).all()
    assert (weights[:, -1] == 1).all()
    assert (group_weights(5, 100, seed=1) == weights).all()


def test_bca_agrees_with_scipy() -> None:
    """Of the mean of 40 skewed numbers the interval is SciPy's, but for chance."""
    from scipy.stats import bootstrap

    numbers = np.random.default_rng(3).exponential(size=40)
    weights = group_weights(40, 20_000, seed=4)
    ours = bca_interval((weights * numbers[:, None]).sum(axis=0) / weights.sum(axis=0), 40)
    theirs = bootstrap((numbers,), np.mean, n_resamples=20_000, rng=np.random.default_rng(5))
    assert ours == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.015)


def test_resamples_that_all_agree_say_nothing() -> None:
    """An AP of 0 in every resample is no proof that it is 0 elsewhere."""
    assert bca_interval(np.zeros(105), 4) is None


def test_one_group_has_no_bootstrap_interval() -> None:
    """From one burst nothing can be said of others."""
    assert bca_interval(np.ones(102), 1) is None
    assert bca_interval(np.full(103, np.nan), 2) is None
