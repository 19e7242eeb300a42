"""Sampling: the best-scored frames that differ from each other, and random ones, which no score chose."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np

from selection.params import SelectionParams
from selection.quotas import Bin, TaskQuotas, record_waiting_frames, task_quotas
from trashnet.ledger import Burst, Ledger, ScoredFrame


def sample_frames(ledger: Ledger, params: SelectionParams, seed: int, count: int) -> list[str]:
    """The SHA-256s of at most ``count`` accepted frames, best first; the same for the same ledger and seed.

    No bin gets more than its quota, see :func:`selection.quotas.task_quotas`. A share of the frames
    (``params.exploration_share``) is drawn at random, scored or not, and placed evenly among the others, so
    that such frames are labelled even if a turn's time runs out. Those and only those are marked in the
    ledger, in their explanation. How many frames wait over their bin's quota is written down there, too.
    """
    quotas = task_quotas(ledger, params, count)
    left = Counter({bin_id: quotas.left(bin_id) for bin_id in quotas.waiting})
    exploration = draw_exploration(ledger, left, round(count * params.exploration_share), seed)
    drawn = set(exploration)
    scored = [frame for frame in candidates(ledger, quotas, params, count) if frame.sha256 not in drawn]
    asked = ledger.count_asked_per_burst({frame.burst for frame in scored if frame.burst is not None})
    best = select_diverse(scored, asked, count - len(exploration), params, left)
    ledger.mark_exploration(exploration)
    record_waiting_frames(ledger, quotas, [*best, *exploration])
    return interleave(best, exploration)


def candidates(ledger: Ledger, quotas: TaskQuotas, params: SelectionParams, count: int) -> list[ScoredFrame]:
    """The best-scored frames, ``params.candidates_per_task`` for each of ``count`` tasks, best first.

    All bins whose quota is not used up have equal parts in them, but at least their quota: so no bin can fill
    them alone. Costs what is returned, and a search per bin.
    """
    bins = [bin_id for bin_id in quotas.waiting if quotas.left(bin_id)]
    most = count * params.candidates_per_task
    per_bin = max(ceil(most / max(len(bins), 1)), min(quotas.most, count))
    return ledger.best_scored(bins, per_bin)[:most]


def draw_exploration(ledger: Ledger, left: Counter[Bin], count: int, seed: int) -> list[str]:
    """At most ``count`` accepted frames drawn at random, without those over their bin's quota.

    What they use of it is taken from ``left``. Twice as many are drawn, so that others take their places.
    """
    drawn = ledger.sample_accepted(2 * count, seed)
    bins = ledger.bins_of(drawn)
    within: list[str] = []
    for sha256 in drawn:
        if len(within) < count and left[bins[sha256]] > 0:
            left[bins[sha256]] -= 1
            within.append(sha256)
    return within


def select_diverse(
    frames: Sequence[ScoredFrame],
    asked: Counter[Burst],
    count: int,
    params: SelectionParams,
    left: Mapping[Bin, int] | None = None,
) -> list[str]:
    """Greedily the frame with the greatest gain, ``count`` times; of equal ones that with the least SHA-256.

    The gain is ``(score + diversity_bonus) * same_burst_discount ** n * (1 - similarity)``, where ``n``
    frames of its burst were selected or ``asked`` about before, and the similarity to the nearest selected
    frame falls linearly to 0 at a mean colour difference of ``similarity_scale``. Without scores this is
    farthest-first traversal, the 2-approximation of k-center (Gonzalez 1985), as in core-set selection (Sener
    and Savarese, ICLR 2018).

    Args:
        frames: Scored frames, in any order.
        asked: How many frames of each burst people are asked about already.
        count: How many frames to select at most.
        params: The bonus, discount and scale above.
        left: How many frames of each bin may be selected; by default any number.

    Returns:
        SHA-256s, greatest gain first.
    """
    if not frames:
        return []
    ordered = sorted(frames, key=lambda frame: frame.sha256)
    # (N, 192): mean RGB of 8 x 8 cells, in [0, 255]
    cells = np.stack([np.frombuffer(frame.descriptor, np.uint8).astype(np.float32) for frame in ordered])
    members: dict[Burst, list[int]] = {}
    of_bin: dict[Bin, list[int]] = {}
    for index, frame in enumerate(ordered):
        of_bin.setdefault(frame.bin_id, []).append(index)
        if frame.burst is not None:
            members.setdefault(frame.burst, []).append(index)
    remaining = Counter({bin_id: len(ordered) if left is None else left.get(bin_id, 0) for bin_id in of_bin})
    value = np.array(
        [
            (frame.score + params.diversity_bonus)
            * params.same_burst_discount ** (asked[frame.burst] if frame.burst else 0)
            for frame in ordered
        ]
    )
    for bin_id, indices in of_bin.items():
        if remaining[bin_id] <= 0:
            value[indices] = -1.0
    dissimilarity = np.ones(len(ordered))
    selected: list[str] = []
    for _ in range(min(count, len(ordered))):
        gain = np.where(value < 0, -1.0, value * dissimilarity)
        best = int(np.argmax(gain))
        if gain[best] < 0:  # every frame is selected, or over its bin's quota
            break
        selected.append(ordered[best].sha256)
        distances = np.abs(cells - cells[best]).mean(axis=1)
        dissimilarity = np.minimum(dissimilarity, distances / params.similarity_scale)
        if (burst := ordered[best].burst) is not None:
            value[members[burst]] *= params.same_burst_discount
        value[best] = -1.0
        remaining[ordered[best].bin_id] -= 1
        if not remaining[ordered[best].bin_id]:
            value[of_bin[ordered[best].bin_id]] = -1.0
    return selected


def interleave(best: Sequence[str], exploration: Sequence[str]) -> list[str]:
    """Both lists in their order, the exploration frames evenly among the others.

    >>> interleave(["a", "b", "c", "d"], ["x", "y"])
    ['a', 'x', 'b', 'y', 'c', 'd']
    """
    positions = [
        ((index + 1) * len(best) / (len(exploration) + 1), 1, sha256)
        for index, sha256 in enumerate(exploration)
    ]
    positions += [(float(index + 1), 0, sha256) for index, sha256 in enumerate(best)]
    return [sha256 for *_, sha256 in sorted(positions)]
