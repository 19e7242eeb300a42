"""Does any slice get worse? All slices at once, with one error rate for the whole family."""

import numpy as np
from numpy.typing import NDArray

FLIPS_AT_ONCE = 1000  # bounds the memory


def max_t_p_values(sums: NDArray[np.float64], flips: int, seed: int) -> NDArray[np.float64]:
    """P values of "this slice got worse", adjusted for looking at all of them, ``(S,)``.

    ``sums``: float64 ``(S, G)``, each slice's difference (challenger minus champion) in each group.

    If both models are equally good, a group's differences could as well have the other sign, in all slices at
    once. So whole groups change sign, and the largest of all studentised losses is compared, step by step
    from the worst slice on (Westfall and Young 1993, algorithm 4.1). Slices may overlap and depend on each
    other. The observed signs count as one of the flips: a p value is never below 1 / (flips + 1).
    """
    slices, groups = sums.shape
    scale = np.sqrt((sums**2).sum(axis=1, keepdims=True))
    # the sum of squares is the same under every flip, so studentising is done once
    loss = -np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0)
    observed = loss.sum(axis=1)
    order = np.argsort(observed)
    reached = np.ones(slices)
    random = np.random.default_rng(seed)
    for start in range(0, flips, FLIPS_AT_ONCE):
        count = min(FLIPS_AT_ONCE, flips - start)
        signs = random.integers(0, 2, (count, groups), dtype=np.int8) * 2.0 - 1.0
        drawn = signs @ loss[order].T
        largest = np.maximum.accumulate(drawn, axis=1)  # over this slice and all less harmed ones
        reached += (largest >= observed[order] - 1e-9).sum(axis=0)  # equal sums differ in their last bits
    adjusted = np.empty(slices)
    adjusted[order[::-1]] = np.maximum.accumulate((reached / (flips + 1))[::-1])
    return adjusted
