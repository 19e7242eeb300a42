"""Choose the frames of a turn: the most valuable that are not alike, and a blind share against what the scores can't see."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, update

from selection.params import SelectionParams
from trashnet.ledger import Ledger
from trashnet.ledger.tables import frames

AUDIT = "audit: chosen blindly"
ASKED = ("tasked", "labelled", "released")  # states of frames that people see or saw
AT_ONCE = 400  # bursts in one query


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scored frame; ``cells`` are the mean colours of its 8 x 8 cells, ``burst`` its bin and burst or ``None``."""

    sha256: str
    score: float
    burst: tuple[str, str] | None
    cells: NDArray[np.float32]


def choose(ledger: Ledger, params: SelectionParams, seed: int) -> list[str]:
    """The SHA-256s of at most ``params.budget`` scored frames, most valuable first; the same for the same ledger and seed.

    Every so many-th is chosen blindly (``params.exploration_share``), so that they are labelled even if a
    turn's time runs out. Those and only those are marked in the ledger, in their explanation.
    """
    blind = audited(ledger, round(params.budget * params.exploration_share), seed)
    candidates = [
        one
        for one in _most_valuable(ledger, params.budget * params.candidates_per_task)
        if one.sha256 not in set(blind)
    ]
    best = diverse(candidates, _asked(ledger, candidates), params.budget - len(blind), params)
    with ledger.transaction() as connection:
        for sha256 in blind:
            unmarked = (frames.c.sha256 == sha256) & ~func.coalesce(frames.c.explanation, "").startswith(
                AUDIT
            )
            connection.execute(
                update(frames)
                .where(unmarked)
                .values(explanation=AUDIT + "; " + func.coalesce(frames.c.explanation, ""))
            )
    return spread(best, blind)


def diverse(
    candidates: Sequence[Candidate], asked: Counter[tuple[str, str]], count: int, params: SelectionParams
) -> list[str]:
    """Greedily the frame with the greatest gain, ``count`` times; of equal ones that with the least SHA-256.

    The gain is ``(score + base) * same_burst ** n * (1 - alikeness)``, where ``n`` frames of its burst were
    chosen or ``asked`` about before, and alikeness to the nearest frame chosen falls linearly to 0 at a mean
    difference of ``alike_levels``. Without scores this is farthest-first traversal, the 2-approximation of
    k-center (Gonzalez 1985), as in core-set selection (Sener and Savarese, ICLR 2018).
    """
    if not candidates:
        return []
    ordered = sorted(candidates, key=lambda one: one.sha256)
    cells = np.stack([one.cells for one in ordered])
    members: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(ordered):
        if one.burst is not None:
            members.setdefault(one.burst, []).append(place)
    worth = np.array(
        [
            (one.score + params.diversity_bonus)
            * params.same_burst_discount ** (asked[one.burst] if one.burst else 0)
            for one in ordered
        ]
    )
    distinct = np.ones(len(ordered))
    chosen: list[str] = []
    for _ in range(min(count, len(ordered))):
        best = int(np.argmax(worth * distinct))
        if worth[best] < 0:  # all that is left is taken
            break
        chosen.append(ordered[best].sha256)
        distinct = np.minimum(distinct, np.abs(cells - cells[best]).mean(axis=1) / params.similarity_scale)
        if (burst := ordered[best].burst) is not None:
            worth[members[burst]] *= params.same_burst_discount
        worth[best] = -1.0
        distinct[best] = 1.0
    return chosen


def spread(best: Sequence[str], blind: Sequence[str]) -> list[str]:
    """Both lists in their order, the blind ones evenly among the others."""
    places = [((place + 1) * len(best) / (len(blind) + 1), 1, sha256) for place, sha256 in enumerate(blind)]
    places += [(float(place + 1), 0, sha256) for place, sha256 in enumerate(best)]
    return [sha256 for *_, sha256 in sorted(places)]


def audited(ledger: Ledger, count: int, seed: int) -> list[str]:
    """Accepted frames at random: SHA-256s are spread evenly, so those that follow points drawn by the seed are a fair sample.

    Each point costs one look into an index, however many frames there are.
    """
    found: list[str] = []
    with ledger.transaction() as connection:
        for draw in range(count):
            point = hashlib.sha256(f"{seed}:{draw}".encode()).hexdigest()
            for since in (point, ""):  # behind the last one the first follows
                after = (frames.c.state == "accepted") & (frames.c.sha256 > since)
                query = select(frames.c.sha256).where(after).order_by(frames.c.sha256).limit(len(found) + 1)
                new = [sha256 for sha256 in connection.execute(query).scalars() if sha256 not in found]
                if new:
                    found.append(new[0])
                    break
    return found


def _most_valuable(ledger: Ledger, limit: int) -> list[Candidate]:
    columns = frames.c
    scored = (columns.state == "accepted") & columns.score.is_not(None)
    query = select(columns.sha256, columns.score, columns.bin_id, columns.burst, columns.descriptor).where(
        scored
    )
    with ledger.transaction() as connection:
        rows = connection.execute(
            query.order_by(columns.score.desc(), columns.sha256.desc()).limit(limit)
        ).all()
    return [
        Candidate(row[0], row[1], (row[2], row[3]) if row[2] and row[3] else None, _cells(row[4]))
        for row in rows
    ]


def _asked(ledger: Ledger, candidates: Collection[Candidate]) -> Counter[tuple[str, str]]:
    """How many frames of the candidates' bursts people see or saw already."""
    bursts = sorted({one.burst[1] for one in candidates if one.burst is not None})
    counts: Counter[tuple[str, str]] = Counter()
    columns = (frames.c.bin_id, frames.c.burst, frames.c.state)
    with ledger.transaction() as connection:
        for start in range(0, len(bursts), AT_ONCE):
            # By burst alone, which has an index: a planner that is offered states might begin with those.
            query = (
                select(*columns, func.count())
                .where(frames.c.burst.in_(bursts[start : start + AT_ONCE]))
                .group_by(*columns)
            )
            for bin_id, burst, state, count in connection.execute(query).all():
                counts[bin_id, burst] += count if state in ASKED else 0
    return counts


def _cells(descriptor: bytes | None) -> NDArray[np.float32]:
    return np.frombuffer(descriptor or bytes(192), np.uint8).astype(np.float32)
