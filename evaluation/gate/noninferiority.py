"""Is a mean per item worse by less than a margin? Paired, with items of one group taken as dependent."""

from dataclasses import dataclass
from math import ceil, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A difference, challenger minus champion, with one-sided bounds.

    ``low``, ``high``: each is wrong with at most the test's level, so together they are an interval of twice
    that level (90 % at 5 %). ``variance``: of the estimate; infinite where nothing can be said.
    """

    value: float
    low: float
    high: float
    variance: float


@dataclass(frozen=True)
class RatioEstimate(Estimate):
    """``degrees_of_freedom``: of its t distribution; ``psi``: variance of one item's difference if frames
    were independent; ``design_effect``: by how much the dependence within groups multiplies it.
    """

    degrees_of_freedom: float
    psi: float
    design_effect: float


def mean_per_item(sums: NDArray[np.float64], items: NDArray[np.float64]) -> tuple[float, float, float]:
    """The ratio of two sums over groups, its variance and its degrees of freedom.

    ``sums``, ``items``: float64 ``(G,)``, of each group. The ratio estimator (Cochran 1977, section 2.11) is
    the mean of all items; its variance is the cluster-robust CR2 with Bell and McCaffrey's degrees of freedom
    (2002; Imbens and Kolesár 2016, section 3), which for a lone mean have the closed form below: G - 1 for
    groups of one size, fewer where some are large. Variance infinite, 1 degree, with fewer than two groups.
    """
    total = items.sum()
    share = items / total if total else items
    if np.count_nonzero(items) < 2:
        return float(sums.sum() / total) if total else 0.0, inf, 1.0
    ratio = sums.sum() / total
    residuals = sums - ratio * items
    weight = 1 / (1 - share)
    variance = float((weight * residuals**2).sum() / total**2)
    # the quadratic form's squared trace over its squared Frobenius norm, for equal independent items
    off_diagonal = (weight * share**2).sum() ** 2 - ((weight * share**2) ** 2).sum()
    freedom = float(1 / ((share**2).sum() + off_diagonal))
    return float(ratio), variance, freedom


def ratio_interval(
    sums: NDArray[np.float64],
    items: NDArray[np.float64],
    frame_sums: NDArray[np.float64],
    frame_items: NDArray[np.float64],
    level: float,
    least_variance: float = 0.0,
) -> RatioEstimate:
    """Mean per item with its bounds, both at ``level``.

    ``sums``, ``items``: ``(G,)``; ``frame_sums``, ``frame_items``: ``(F,)``, the same per frame, for the
    design effect (Kish 1965, section 8.2). ``least_variance``: of one item, below which the lower bound does
    not believe the data (see :func:`least_item_variance`).
    """
    value, variance, freedom = mean_per_item(sums, items)
    _, independent, _ = mean_per_item(frame_sums, frame_items)
    total = float(items.sum())
    if not np.isfinite(variance):
        return RatioEstimate(value, -inf, inf, inf, 1.0, inf, 1.0)
    t = float(stats.t.ppf(1 - level, freedom))
    low = value - t * sqrt(max(variance, least_variance / total))
    return RatioEstimate(
        value,
        low,
        value + t * sqrt(variance),
        variance,
        freedom,
        psi=independent * total,
        design_effect=variance / independent if independent else 1.0,
    )


def least_item_variance(margin: float, step: float) -> float:
    """Variance that one item's difference has at least if the mean is ``-margin`` in steps of ``step``.

    A loss of the margin needs a share margin / step of items that go wrong. Where few items are judged, none
    of them may be seen, and the observed variance says then that nothing differs. The score test for paired
    proportions (Tango 1998, Statistics in Medicine 17, section 2) takes its variance under the hypothesis for
    the same reason.
    """
    return margin * step - margin**2


def items_needed(psi: float, design_effect: float, delta: float) -> int:
    """Items with which a difference that is ``delta`` away from the margin is decided with power 0.80.

    n = (z_0.95 + z_0.80)² psi / delta² x design effect, and (1.645 + 0.842)² = 6.18 (Connor 1987, Biometrics
    43, for paired proportions, where psi is the share of discordant pairs; design effect: Kish 1965).
    """
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.80)
    return ceil(float(z**2 * psi / delta**2 * design_effect))
