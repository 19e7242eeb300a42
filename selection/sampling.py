"""Sampling: the best-scored frames that differ from each other, and random ones, which no score chose."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from selection.params import SelectionParams
from trashnet.ledger import Burst, Ledger, ScoredFrame


def sample_frames(ledger: Ledger, params: SelectionParams, seed: int, count: int) -> list[str]:
    """The SHA-256s of at most ``count`` scored frames, best first; the same for the same ledger and seed.

    A share of them (``params.exploration_share``) is drawn at random and placed evenly among the others, so
    that such frames are labelled even if a turn's time runs out. Those and only those are marked in the
    ledger, in their explanation.
    """
    exploration = ledger.sample_accepted(round(count * params.exploration_share), seed)
    drawn = set(exploration)
    scored = [
        frame for frame in ledger.best_scored(count * params.candidates_per_task) if frame.sha256 not in drawn
    ]
    asked = ledger.count_asked_per_burst({frame.burst for frame in scored if frame.burst is not None})
    best = select_diverse(scored, asked, count - len(exploration), params)
    ledger.mark_exploration(exploration)
    return interleave(best, exploration)


def select_diverse(
    frames: Sequence[ScoredFrame], asked: Counter[Burst], count: int, params: SelectionParams
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

    Returns:
        SHA-256s, greatest gain first.
    """
    if not frames:
        return []
    ordered = sorted(frames, key=lambda frame: frame.sha256)
    # (N, 192): mean RGB of 8 x 8 cells, in [0, 255]
    cells = np.stack([np.frombuffer(frame.descriptor, np.uint8).astype(np.float32) for frame in ordered])
    members: dict[Burst, list[int]] = {}
    for index, frame in enumerate(ordered):
        if frame.burst is not None:
            members.setdefault(frame.burst, []).append(index)
    value = np.array(
        [
            (frame.score + params.diversity_bonus)
            * params.same_burst_discount ** (asked[frame.burst] if frame.burst else 0)
            for frame in ordered
        ]
    )
    dissimilarity = np.ones(len(ordered))
    selected: list[str] = []
    for _ in range(min(count, len(ordered))):
        best = int(np.argmax(value * dissimilarity))
        if value[best] < 0:  # every frame is selected
            break
        selected.append(ordered[best].sha256)
        distances = np.abs(cells - cells[best]).mean(axis=1)
        dissimilarity = np.minimum(dissimilarity, distances / params.similarity_scale)
        if (burst := ordered[best].burst) is not None:
            value[members[burst]] *= params.same_burst_discount
        value[best] = -1.0
        dissimilarity[best] = 1.0
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
