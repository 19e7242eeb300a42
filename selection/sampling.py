"""Sampling: the best-scored frames that differ from each other, and random ones, which no score chose."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor

import numpy as np

from selection.params import SelectionParams
from selection.quotas import Bin, TaskQuotas, record_waiting_frames, task_quotas
from trashnet.choice import EXPLORATION, HELD_OUT, SCORE, SelectedBy
from trashnet.ledger import Burst, Ledger, ScoredFrame


def sample_frames(ledger: Ledger, params: SelectionParams, seed: int, count: int) -> list[str]:
    """The SHA-256s of at most ``count`` accepted frames, best first; the same for the same ledger and seed.

    No bin gets more than its quota, see :func:`selection.quotas.task_quotas`. A share of all tasks
    (:func:`exploration_due`) is drawn at random and placed evenly among the others, so that such frames are
    labelled even if a turn's time runs out. Where frames that bins uploaded for another reason do not fill
    the room, more of those uploaded at random do: no score ever chooses one of these. How each frame was
    selected is written down in the ledger, and how many frames wait over their bin's quota.
    """
    quotas = task_quotas(ledger, params, count)
    left = Counter({bin_id: quotas.left(bin_id) for bin_id in quotas.waiting})
    exploration = draw_exploration(ledger, params, left, exploration_due(ledger, params, count), seed)
    drawn = set(exploration)
    scored = [frame for frame in candidates(ledger, quotas, params, count) if frame.sha256 not in drawn]
    asked = ledger.count_asked_per_burst({frame.burst for frame in scored if frame.burst is not None})
    queued = ledger.queued_descriptors()
    best = select_diverse(scored, asked, count - len(exploration), params, left, queued)
    left.subtract(ledger.bins_of(best).values())
    # With the same seed the same draws come first: behind them follow those that fill the room.
    more = count - len(best) - len(exploration)
    exploration += _draw_uploads(ledger, left, more, seed, drawn | set(best))
    bins = ledger.bins_of(exploration)
    selected: dict[str, SelectedBy] = dict.fromkeys(best, SCORE)
    for sha256 in exploration:
        selected[sha256] = HELD_OUT if is_held_out(bins[sha256], params) else EXPLORATION
    ledger.record_selection(selected)
    record_waiting_frames(ledger, quotas, [*best, *exploration])
    return interleave(best, exploration)


def exploration_due(ledger: Ledger, params: SelectionParams, count: int) -> int:
    """How many of the next ``count`` tasks are drawn at random: the debt of all tasks made before included.

    After ``n`` tasks ``floor(n * exploration_share)`` are due. This is counted by the tasks that were made: a
    share of 0.1 of a room of 5 tasks is none now and one the next time; a share that is changed counts from
    now on.
    """
    made, share = ledger.tasks_made(), Fraction(str(params.exploration_share))
    return floor((made + count) * share) - floor(made * share)


def is_held_out(bin_id: Bin, params: SelectionParams) -> bool:
    """Whether no training may see this bin's frames: it is listed, or a hash of its name says so.

    The hash is the same on every machine and in every turn.
    """
    if bin_id is None:
        return False
    number = int.from_bytes(hashlib.sha256(f"held out {bin_id}".encode()).digest()[:8], "big")
    return bin_id in params.held_out_bins or number < params.held_out_share * 2**64


def candidates(ledger: Ledger, quotas: TaskQuotas, params: SelectionParams, count: int) -> list[ScoredFrame]:
    """The best-scored frames, ``params.candidates_per_task`` for each of ``count`` tasks, best first.

    All bins whose quota is not used up have equal parts in them, but at least their quota: so no bin can fill
    them alone. Frames uploaded at random have no score, and those of bins that are held out do not count.
    Costs what is returned, and a search per bin.
    """
    bins = [bin_id for bin_id in quotas.waiting if quotas.left(bin_id) and not is_held_out(bin_id, params)]
    most = count * params.candidates_per_task
    per_bin = max(ceil(most / max(len(bins), 1)), min(quotas.most, count))
    return ledger.best_scored(bins, per_bin)[:most]


def draw_exploration(
    ledger: Ledger, params: SelectionParams, left: Counter[Bin], count: int, seed: int
) -> list[str]:
    """At most ``count`` accepted frames drawn at random, without those over their bin's quota.

    They are drawn from those that bins uploaded at random and, as far as these do not suffice, from all; but
    of bins that are held out from the former alone. What they use of the quotas is taken from ``left``.
    """
    drawn = _draw_uploads(ledger, left, count, seed, set())
    others = ledger.sample_accepted(2 * count, seed) if len(drawn) < count else []
    bins = ledger.bins_of(others)
    allowed = [sha256 for sha256 in others if not is_held_out(bins[sha256], params)]
    return drawn + _within_quotas(ledger, left, count - len(drawn), allowed, set(drawn))


def _draw_uploads(
    ledger: Ledger, left: Counter[Bin], count: int, seed: int, taken: Collection[str]
) -> list[str]:
    """At most ``count`` frames that bins uploaded at random, drawn at random, without those ``taken``."""
    if count <= 0:
        return []
    # Twice as many are drawn, so that others take the places of those over their bin's quota.
    drawn = ledger.sample_exploration_uploads(2 * count + len(taken), seed)
    return _within_quotas(ledger, left, count, drawn, taken)


def _within_quotas(
    ledger: Ledger, left: Counter[Bin], count: int, drawn: Sequence[str], taken: Collection[str]
) -> list[str]:
    bins = ledger.bins_of(drawn)
    within: list[str] = []
    for sha256 in drawn:
        if len(within) < count and sha256 not in taken and left[bins[sha256]] > 0:
            left[bins[sha256]] -= 1
            within.append(sha256)
    return within


def select_diverse(
    frames: Sequence[ScoredFrame],
    asked: Counter[Burst],
    count: int,
    params: SelectionParams,
    left: Mapping[Bin, int] | None = None,
    queued: Sequence[bytes] = (),
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
        queued: Descriptors, 192 bytes each, of frames that wait as tasks: they count as selected.

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
    for descriptor in queued:
        distances = np.abs(cells - np.frombuffer(descriptor, np.uint8).astype(np.float32)).mean(axis=1)
        dissimilarity = np.minimum(dissimilarity, distances / params.similarity_scale)
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
