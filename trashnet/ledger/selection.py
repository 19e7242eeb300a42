"""Selection: frames to be scored, their scores, and the draws that sampling makes."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    bindparam,
    case,
    column,
    func,
    select,
    text,
    update,
    values,
)

from trashnet import choice
from trashnet.boxes import Box
from trashnet.choice import SelectedBy
from trashnet.ledger import tables
from trashnet.ledger.database import MAX_IN_VALUES, Database, batched
from trashnet.ledger.frames import move_frame
from trashnet.ledger.tables import frames
from trashnet.quarantine import QuarantineReason

EXPLORATION = "exploration: chosen at random"  # how the explanation of a randomly drawn frame begins

ACCEPTED, ASKED = text(tables.ACCEPTED), text(tables.ASKED)  # as partial indexes need them
TO_SCORE = [
    frames.c[name] for name in ("sha256", "key", "release", "detections", "width", "height", "model")
]  # what an `UnscoredFrame` is made of

Burst = tuple[str, str]  # a bin's id and the burst's own name


@dataclass(frozen=True, slots=True)
class UnscoredFrame:
    """A frame to be scored: its object's key, the release that its bin ran, and what that model detected.

    ``width`` and ``height`` are in pixels, ``None`` if they are not known; ``model`` is the one that scored
    it before, if one has.
    """

    sha256: str
    key: str
    release: str | None
    detections: tuple[Box, ...]
    width: int | None
    height: int | None
    model: str | None

    @property
    def pixels(self) -> int | None:
        """Width times height."""
        return self.width * self.height if self.width and self.height else None


@dataclass(frozen=True, slots=True)
class FrameScore:
    """The acquisition score of a frame, why, the teacher's boxes (``None`` without a teacher), and which
    model scored.
    """

    sha256: str
    score: float
    explanation: str
    prediction: tuple[Box, ...] | None
    model: str


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """A scored frame: ``burst`` is ``None`` outside a burst, ``model`` is the one that scored it.

    ``descriptor`` holds the mean RGB of 8 x 8 cells, 192 bytes.
    """

    sha256: str
    score: float
    burst: Burst | None
    descriptor: bytes
    bin_id: str | None = None
    model: str | None = None


class SelectionQueries(Database):
    """What scoring and sampling ask and write."""

    def unscored(self, limit: int, or_scored_by: str | None = None) -> list[UnscoredFrame]:
        """Accepted frames that have no score, then those whose score is ``or_scored_by``'s."""
        query = select(*TO_SCORE).where(ACCEPTED).limit(limit)
        with self.reading() as connection:
            for condition in _without_score(or_scored_by):
                if rows := connection.execute(query.where(condition)).all():
                    return [_unscored(*row) for row in rows]
        return []

    def count_unscored(self, limit: int, or_scored_by: str | None = None) -> int:
        """How many frames :meth:`unscored` finds one after the other; counts no further than ``limit``."""
        count = 0
        with self.reading() as connection:
            for condition in _without_score(or_scored_by):
                found = select(frames.c.state).where(ACCEPTED, condition).limit(limit)
                counted = select(func.count()).select_from(found.subquery())
                count += int(connection.execute(counted).scalar() or 0)
        return min(count, limit)

    def accepted_frames(self, sha256s: Sequence[str]) -> list[UnscoredFrame]:
        """Those of these frames that are accepted, in the order given."""
        found: dict[str, UnscoredFrame] = {}
        with self.reading() as connection:
            for batch in batched(sha256s):
                query = select(frames.c.state, *TO_SCORE).where(frames.c.sha256.in_(batch))
                for state, *row in connection.execute(query).all():
                    if state == "accepted":
                        found[row[0]] = _unscored(*row)
        return [found[sha256] for sha256 in sha256s if sha256 in found]

    def save_scores(self, scores: Iterable[FrameScore]) -> int:
        """Write the scores of frames that are still accepted, together; returns how many those are.

        The explanation of a frame that was drawn at random goes on saying so. A frame that its bin uploaded
        at random gets no number: chosen for its score it would be lost as a fair sample, and so would the
        frames that are left.
        """
        drawn, saved = frames.c.explanation.startswith(EXPLORATION), 0
        at_random = frames.c.upload_reason == choice.EXPLORATION
        with self.transaction() as connection:
            for score in scores:
                accepted = (frames.c.sha256 == score.sha256) & (frames.c.state == "accepted")
                values = {
                    "score": case((at_random, None), else_=score.score),
                    "explanation": case(
                        (drawn, f"{EXPLORATION}; {score.explanation}"), else_=score.explanation
                    ),
                    "prediction": score.prediction,
                    "model": score.model,
                }
                saved += connection.execute(update(frames).where(accepted).values(values)).rowcount
        return saved

    def quarantine_missing(self, sha256s: Collection[str]) -> None:
        """Quarantine accepted frames whose objects are gone from the store, together."""
        with self.transaction() as connection:
            for sha256 in sha256s:
                key = connection.execute(select(frames.c.key).where(frames.c.sha256 == sha256)).scalar()
                move_frame(
                    connection,
                    sha256,
                    "accepted",
                    "quarantined",
                    note=f"{key} is gone",
                    quarantine_reason=QuarantineReason.LOST,
                    key=None,
                )

    def waiting_bins(self) -> list[str | None]:
        """The bins that have accepted frames; ``None`` for frames of no bin. Costs a search per bin."""
        first = select(func.min(frames.c.bin_id).label("bin_id")).where(ACCEPTED)
        found = first.cte("found", recursive=True)
        following = select(func.min(frames.c.bin_id)).where(ACCEPTED, frames.c.bin_id > found.c.bin_id)
        found = found.union_all(select(following.scalar_subquery()).where(found.c.bin_id.is_not(None)))
        named = select(found.c.bin_id).where(found.c.bin_id.is_not(None))
        nameless = select(frames.c.bin_id).where(ACCEPTED, frames.c.bin_id.is_(None)).limit(1)
        with self.reading() as connection:
            bins: list[str | None] = list(connection.execute(nameless).scalars())
            return bins + list(connection.execute(named).scalars())

    def best_scored(self, bins: Iterable[str | None], limit: int) -> list[ScoredFrame]:
        """Accepted frames of these bins with the highest scores, highest first, of each at most ``limit``.

        Of equal ones the greater SHA-256 comes first. Costs one search per bin, and what it finds.
        """
        columns = frames.c
        query = (
            select(
                columns.sha256,
                columns.score,
                columns.bin_id,
                columns.burst,
                columns.descriptor,
                columns.model,
            )
            .where(ACCEPTED, columns.score.is_not(None))
            .order_by(columns.score.desc(), columns.sha256.desc())
            .limit(limit)
        )
        named, nameless = (
            query.where(columns.bin_id == bindparam("bin")),
            query.where(columns.bin_id.is_(None)),
        )
        rows: list[Any] = []
        with self.reading() as connection:
            for bin_id in bins:
                asked = nameless if bin_id is None else named
                rows += connection.execute(asked, {} if bin_id is None else {"bin": bin_id}).all()
        return [
            ScoredFrame(
                sha256,
                score,
                (bin_id, burst) if bin_id and burst else None,
                descriptor or bytes(192),
                bin_id,
                model,
            )
            for sha256, score, bin_id, burst, descriptor, model in sorted(
                rows, key=lambda row: (row[1], row[0]), reverse=True
            )
        ]

    def count_asked_per_bin(self) -> Counter[str | None]:
        """How many frames of each bin people are asked about, or answered since the dataset last grew.

        It is read from indexes alone.
        """
        tasked = frames.c.state == "tasked"
        not_grown = (frames.c.state == "labelled") & frames.c.turn.is_(None)
        counts: Counter[str | None] = Counter()
        with self.reading() as connection:
            for condition in (tasked, not_grown):  # each is one range of an index
                query = select(frames.c.bin_id, func.count()).where(condition).group_by(frames.c.bin_id)
                for bin_id, count in connection.execute(query).all():
                    counts[bin_id] += count
        return counts

    def count_accepted_per_bin(self, bins: Iterable[str | None], limit: int) -> dict[str | None, int]:
        """How many accepted frames each of these bins has; no more than ``limit`` are counted."""
        accepted = select(frames.c.sha256).where(ACCEPTED).limit(limit)
        counts = {}
        with self.reading() as connection:
            for bin_id in bins:
                of_bin = accepted.where(frames.c.bin_id == bin_id).subquery()
                counts[bin_id] = int(
                    connection.execute(select(func.count()).select_from(of_bin)).scalar() or 0
                )
        return counts

    def bins_of(self, sha256s: Sequence[str]) -> dict[str, str | None]:
        """The bins that took these frames."""
        found: dict[str, str | None] = {}
        with self.reading() as connection:
            for batch in batched(sha256s):
                query = select(frames.c.sha256, frames.c.bin_id).where(frames.c.sha256.in_(batch))
                found |= dict(connection.execute(query).tuples().all())
        return found

    def count_asked_per_burst(self, bursts: Collection[Burst]) -> Counter[Burst]:
        """How many frames of each of these bursts people are asked about, or were."""
        pairs = sorted((burst, bin_id) for bin_id, burst in set(bursts))  # as they lie in the index
        columns = [column(name, String) for name in ("burst", "bin_id")]
        counts: Counter[Burst] = Counter()
        with self.reading() as connection:
            for batch in batched(pairs, MAX_IN_VALUES // 2):
                # One search per burst, whatever the planner: the same names are other bins' bursts as well.
                wanted = values(*columns, name="wanted").data(batch).cte()
                same = (frames.c.burst == wanted.c.burst) & (frames.c.bin_id == wanted.c.bin_id)
                asked = select(func.count()).where(same, ASKED).scalar_subquery()
                for burst, bin_id, count in connection.execute(select(wanted, asked)).all():
                    counts[bin_id, burst] = count
        return counts

    def sample_accepted(self, count: int, seed: int) -> list[str]:
        """The SHA-256s of accepted frames drawn at random, the same for the same ledger and seed.

        SHA-256s are spread evenly, so the frames that follow points drawn by the seed are a fair sample. Each
        point costs one search in an index, however many frames there are.
        """
        with self.reading() as connection:
            return _sample(connection, select(frames.c.sha256).where(ACCEPTED), count, seed)

    def sample_exploration_uploads(self, count: int, seed: int) -> list[str]:
        """Likewise, of accepted frames that their bins uploaded at random."""
        at_random = frames.c.upload_reason == choice.EXPLORATION
        with self.reading() as connection:
            return _sample(connection, select(frames.c.sha256).where(ACCEPTED, at_random), count, seed)

    def queued_descriptors(self) -> list[bytes]:
        """The descriptors, 192 bytes each, of frames that wait as tasks; costs what is in the queue."""
        query = select(frames.c.descriptor).where(frames.c.state == "tasked")
        with self.reading() as connection:
            return [found for found in connection.execute(query).scalars() if found is not None]

    def record_selection(self, selected: Mapping[str, SelectedBy]) -> None:
        """Write down how these frames, by SHA-256, were selected; what was there before counts no more.

        The explanation of those drawn at random says so, once.
        """
        explanation = func.coalesce(frames.c.explanation, "")
        with self.transaction() as connection:
            for sha256, by in selected.items():
                same = frames.c.sha256 == sha256
                connection.execute(update(frames).where(same).values(selected_by=by))
                if by != choice.SCORE:
                    unmarked = same & ~explanation.startswith(EXPLORATION)
                    changed = {"explanation": EXPLORATION + "; " + explanation}
                    connection.execute(update(frames).where(unmarked).values(changed))


def _sample(connection: Connection, among: Select[Any], count: int, seed: int) -> list[str]:
    drawn: list[str] = []
    for draw in range(count):
        point = hashlib.sha256(f"{seed}:{draw}".encode()).hexdigest()
        for lower in (point, ""):  # behind the last frame follows the first
            after = among.where(frames.c.sha256 > lower)
            query = after.order_by(frames.c.sha256).limit(len(drawn) + 1)
            new = [sha256 for sha256 in connection.execute(query).scalars() if sha256 not in drawn]
            if new:
                drawn.append(new[0])
                break
    return drawn


def _unscored(sha256: str, key: str, release: str | None, detections: Any, *rest: Any) -> UnscoredFrame:
    return UnscoredFrame(sha256, key, release, detections or (), *rest)


def _without_score(or_scored_by: str | None) -> list[ColumnElement[bool]]:
    """Each condition is one range of the index on the model."""
    others = [] if or_scored_by is None else [frames.c.model == or_scored_by]
    return [frames.c.model.is_(None), *others]
