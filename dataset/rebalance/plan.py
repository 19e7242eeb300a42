"""The plan of rebalancing, an integer program: the fewest copies that lift every rare class to its target."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from dataset.rebalance.params import RebalanceParams


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """How often each original is copied.

    ``copies`` is int64 ``(N,)``. ``proven`` says whether no plan has fewer copies, and ``gap`` by how many
    copies this one may exceed the fewest.
    """

    copies: NDArray[np.int64]
    proven: bool
    gap: int


def plan_copies(images: NDArray[np.bool_], params: RebalanceParams, seed: int) -> CopyPlan:
    """Choose how often to copy each original so that rare classes reach the target with the fewest copies.

    Originals that show the same set of classes form a group, and each group is one variable of the integer
    program: x_g copies of group g, 0 <= x_g <= max_copies * |g|. For every class c, the sum of x_g over the
    groups that show c is at least target - images_c, or as much as ``max_copies`` allows. First the sum of x
    is minimised. Then, at that sum, the images summed over classes are minimised: of equally short plans, the
    one that adds the fewest images to classes that need none is chosen. HiGHS solves both by branch and
    bound. If it stops after ``solver_nodes`` nodes, its best plan is taken, or the rounded-up linear
    relaxation if that is shorter, and the plan tells how far from the bound it may be. A group's copies are
    spread evenly over its originals.

    Args:
        images: Which classes each original shows, bool ``(N, classes)``.
        params: The target, the greatest number of copies of one original, and the solver's node limit.
        seed: Decides which originals of a group are copied once more than others.
    """
    shown, group_of, sizes = np.unique(images, axis=0, return_inverse=True, return_counts=True)
    group_of = group_of.reshape(-1)
    counts = images.sum(0)
    reachable = np.minimum(params.target_images, counts * (1 + params.max_copies))
    demand = np.maximum(reachable - counts, 0)
    limits = np.where(shown.any(1), params.max_copies * sizes, 0)
    group_copies, gap = _solve(shown, demand, limits, params.solver_nodes)
    copies = np.zeros(len(images), np.int64)
    for group in np.flatnonzero(group_copies):
        members = np.flatnonzero(group_of == group)
        copies[members] = group_copies[group] // len(members)
        remainder = int(group_copies[group] % len(members))
        shuffled = np.random.default_rng([seed, int(group)]).permutation(members)
        copies[shuffled[:remainder]] += 1
    return CopyPlan(copies, gap == 0, gap)


def _solve(
    shown: NDArray[np.bool_], demand: NDArray[np.int64], limits: NDArray[np.int64], max_nodes: int
) -> tuple[NDArray[np.int64], int]:
    """Return the copies per group, int64 ``(groups,)``, and by how many their sum may exceed the minimum."""
    if not demand.any():
        return np.zeros(len(shown), np.int64), 0
    cover = LinearConstraint(shown.T.astype(float), demand, np.inf)
    bounds = Bounds(0, limits)
    options = {"node_limit": max_nodes}
    fewest = milp(np.ones(len(shown)), integrality=1, bounds=bounds, constraints=cover, options=options)
    candidates = [_integer_solution(fewest, shown, demand, limits)]
    lower_bound = fewest.mip_dual_bound
    if fewest.status != 0:
        relaxed = milp(np.ones(len(shown)), integrality=0, bounds=bounds, constraints=cover)
        candidates.append(_remove_spare(np.ceil(relaxed.x - 1e-6).astype(np.int64), shown, demand))
        lower_bound = relaxed.fun if lower_bound is None else max(lower_bound, relaxed.fun)
    best = min((c for c in candidates if c is not None), key=lambda c: int(c.sum()))
    total = int(best.sum())
    gap = 0 if fewest.status == 0 else max(0, total - int(np.ceil(lower_bound - 1e-6)))
    # Every demand is met, so the images beyond the demands are, up to a constant, the sum over groups of x_g
    # times the number of classes that the group shows.
    same_total = LinearConstraint(np.ones((1, len(shown))), total, total)
    fewest_images = milp(
        shown.sum(1).astype(float),
        integrality=1,
        bounds=bounds,
        constraints=[cover, same_total],
        options=options,
    )
    solution = _integer_solution(fewest_images, shown, demand, limits)
    return (best if solution is None else solution), gap


def _integer_solution(
    result: OptimizeResult, shown: NDArray[np.bool_], demand: NDArray[np.int64], limits: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return a solver's result as integers, ``None`` if it found no solution."""
    if result.x is None:
        return None
    copies: NDArray[np.int64] = np.round(result.x).astype(np.int64)
    if (copies @ shown < demand).any() or (copies < 0).any() or (copies > limits).any():
        raise ValueError(f"HiGHS returned a plan that violates its constraints: {result.message}")
    return copies


def _remove_spare(
    copies: NDArray[np.int64], shown: NDArray[np.bool_], demand: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Remove copies that no demand needs, those of the groups that show most classes first."""
    spare = copies @ shown - demand
    for group in np.argsort(-shown.sum(1), kind="stable"):
        removed = min(int(copies[group]), int(spare[shown[group]].min(initial=copies[group])))
        copies[group] -= removed
        spare[shown[group]] -= removed
    return copies
