"""95% intervals that know that frames of one group (a burst of one bin) resemble each other.

Proportions get Wilson's interval of an effective number of items; what is no proportion of items (AP,
utility) is resampled by whole groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.sorting_accuracy import wilson_interval

LEVEL = 0.95
_Z = float(stats.norm.ppf(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class ClusteredProportion:
    """A share whose items come in groups. ``hits`` and ``of``: int64 ``(G,)``, per group; groups without an
    item say nothing.
    """

    hits: NDArray[np.int64]
    of: NDArray[np.int64]

    @classmethod
    def count(
        cls, hit: NDArray[np.bool_], group: NDArray[np.int64], within: NDArray[np.bool_]
    ) -> "ClusteredProportion":
        """From items: whether each is a hit, the number of its group, and whether it counts, all ``(N,)``."""
        groups = int(group.max(initial=-1)) + 1
        return cls(
            np.bincount(group[within & hit], minlength=groups), np.bincount(group[within], minlength=groups)
        )

    @cached_property
    def value(self) -> float | None:
        """The share, ``None`` of nothing."""
        return int(self.hits.sum()) / int(self.of.sum()) if self.of.any() else None

    @cached_property
    def effective_items(self) -> float | None:
        """The independent items that would say as much; ``None`` of nothing.

        All items, divided by the design effect, which is the variance of the ratio estimator between groups
        over that of independent items (Rao & Scott 1992, section 2), and corrected for how few groups it was
        estimated from (Korn & Graubard 1998, section 2: ``(z / t)^2``). Never more than the items there are,
        and never fewer than if all items of a group always fared alike, ``n^2 / sum(n_g^2)`` (Kish 1965,
        section 5.4): that is also what is taken where all or none are hits, when groups do not differ and so
        nothing can be estimated. Where no group has two items, it is their number.
        """
        there = self.of > 0
        of, hits = self.of[there].astype(np.float64), self.hits[there].astype(np.float64)
        total, groups = of.sum(), len(of)
        if not groups:
            return None
        alike = float(total**2 / (of**2).sum())
        share = hits.sum() / total
        if of.max() == 1 or groups == 1 or share in (0.0, 1.0):
            return alike
        between = groups / (groups - 1) * ((hits - share * of) ** 2).sum() / total**2
        if between == 0:
            return float(total)
        few = (_Z / stats.t.ppf(0.5 + LEVEL / 2, groups - 1)) ** 2
        return float(np.clip(share * (1 - share) / between * few, alike, total))

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's interval of that many items; ``None`` of nothing."""
        if self.value is None or self.effective_items is None:
            return None
        return wilson_interval(self.value * self.effective_items, self.effective_items)


def number_groups(groups: Sequence[str]) -> NDArray[np.int64]:
    """Group names as numbers 0, 1, ..., int64 of the same length."""
    _, numbers = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    return np.asarray(numbers, np.int64).reshape(-1)


def group_weights(groups: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each group is drawn, float64 ``(groups, resamples + groups + 1)``.

    The first columns are bootstrap resamples (as many groups as there are, with replacement; Davison &
    Hinkley 1997, section 3.8), then one that leaves out each group in turn, for the acceleration, and last
    the sample itself.
    """
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(groups, np.full(groups, 1 / groups), resamples).T
    return np.concatenate([drawn, 1 - np.eye(groups), np.ones((groups, 1))], axis=1)


def bca_interval(values: NDArray[np.float64], groups: int) -> tuple[float, float] | None:
    """The bias-corrected and accelerated interval (Efron 1987; Efron & Tibshirani 1993, section 14.3).

    ``values``: a statistic at each column of :func:`group_weights`, NaN where a resample has nothing to say.
    ``None`` for a single group, and where every resample says the same (an AP of 0 or 1, say): that groups do
    not differ here does not mean that they never would.
    """
    estimate, jackknife, drawn = values[-1], values[-1 - groups : -1], values[: -1 - groups]
    drawn, jackknife = drawn[~np.isnan(drawn)], jackknife[~np.isnan(jackknife)]
    if groups < 2 or np.isnan(estimate) or not len(drawn) or drawn.min() == drawn.max():
        return None
    below = (np.sum(drawn < estimate) + np.sum(drawn == estimate) / 2) / len(drawn)
    bias = stats.norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    apart = jackknife.mean() - jackknife if len(jackknife) else np.zeros(1)
    spread = (apart**2).sum()
    acceleration = (apart**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + np.array([-_Z, _Z])
    low, high = np.quantile(drawn, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)
