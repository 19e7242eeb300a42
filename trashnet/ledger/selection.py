"""Selection: frames to be scored, their scores, and the draws that sampling makes."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update

from trashnet.boxes import Box
from trashnet.ledger.database import Database, batched
from trashnet.ledger.frames import move_frame
from trashnet.ledger.rows import ASKED_STATES
from trashnet.ledger.tables import frames
from trashnet.quarantine import QuarantineReason

EXPLORATION = "exploration: chosen at random"  # how the explanation of a randomly drawn frame begins

Burst = tuple[str, str]  # a bin's id and the burst's own name


@dataclass(frozen=True, slots=True)
class UnscoredFrame:
    """A frame to be scored: its object's key, the release that its bin ran, and what that model detected."""

    sha256: str
    key: str
    release: str | None
    detections: tuple[Box, ...]


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
    """A scored frame: ``burst`` is ``None`` outside a burst.

    ``descriptor`` holds the mean RGB of 8 x 8 cells, 192 bytes.
    """

    sha256: str
    score: float
    burst: Burst | None
    descriptor: bytes


class SelectionQueries(Database):
    """What scoring and sampling ask and write."""

    def unscored(self, model: str, limit: int) -> list[UnscoredFrame]:
        """Accepted frames that no model, or another one than ``model``, has scored."""
        columns = frames.c
        query = (
            select(columns.sha256, columns.key, columns.release, columns.detections)
            .where(columns.state == "accepted")
            .order_by(columns.model)
            .limit(limit)
        )
        # Each condition is one range of the index on state and model.
        conditions = (columns.model.is_(None), columns.model < model, columns.model > model)
        with self.reading() as connection:
            for condition in conditions:
                if rows := connection.execute(query.where(condition)).all():
                    return [UnscoredFrame(row[0], row[1], row[2], row[3] or ()) for row in rows]
        return []

    def save_scores(self, scores: Iterable[FrameScore]) -> int:
        """Write the scores of frames that are still accepted, together; returns how many those are."""
        saved = 0
        with self.transaction() as connection:
            for score in scores:
                accepted = (frames.c.sha256 == score.sha256) & (frames.c.state == "accepted")
                values = {
                    "score": score.score,
                    "explanation": score.explanation,
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

    def best_scored(self, limit: int) -> list[ScoredFrame]:
        """Accepted frames with the highest scores, highest first; of equal ones the greater SHA-256 first."""
        columns = frames.c
        query = (
            select(columns.sha256, columns.score, columns.bin_id, columns.burst, columns.descriptor)
            .where(columns.state == "accepted", columns.score.is_not(None))
            .order_by(columns.score.desc(), columns.sha256.desc())
            .limit(limit)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return [
            ScoredFrame(
                sha256, score, (bin_id, burst) if bin_id and burst else None, descriptor or bytes(192)
            )
            for sha256, score, bin_id, burst, descriptor in rows
        ]

    def count_asked_per_burst(self, bursts: Collection[Burst]) -> Counter[Burst]:
        """How many frames of each of these bursts people are asked about, or were."""
        wanted = set(bursts)
        names = sorted({burst for _, burst in wanted})
        columns = (frames.c.bin_id, frames.c.burst, frames.c.state)
        counts: Counter[Burst] = Counter()
        with self.reading() as connection:
            for batch in batched(names):
                # By burst alone, which has an index: a planner that is offered states might begin with those.
                query = select(*columns, func.count()).where(frames.c.burst.in_(batch)).group_by(*columns)
                for bin_id, burst, state, count in connection.execute(query).all():
                    if state in ASKED_STATES and (bin_id, burst) in wanted:
                        counts[bin_id, burst] += count
        return counts

    def sample_accepted(self, count: int, seed: int) -> list[str]:
        """The SHA-256s of accepted frames drawn at random, the same for the same ledger and seed.

        SHA-256s are spread evenly, so the frames that follow points drawn by the seed are a fair sample. Each
        point costs one search in an index, however many frames there are.
        """
        drawn: list[str] = []
        with self.reading() as connection:
            for draw in range(count):
                point = hashlib.sha256(f"{seed}:{draw}".encode()).hexdigest()
                for lower in (point, ""):  # behind the last frame follows the first
                    after = (frames.c.state == "accepted") & (frames.c.sha256 > lower)
                    query = (
                        select(frames.c.sha256).where(after).order_by(frames.c.sha256).limit(len(drawn) + 1)
                    )
                    new = [sha256 for sha256 in connection.execute(query).scalars() if sha256 not in drawn]
                    if new:
                        drawn.append(new[0])
                        break
        return drawn

    def mark_exploration(self, sha256s: Sequence[str]) -> None:
        """Write into the explanation of these frames that they were drawn at random.

        Again changes nothing.
        """
        explanation = func.coalesce(frames.c.explanation, "")
        with self.transaction() as connection:
            for sha256 in sha256s:
                unmarked = (frames.c.sha256 == sha256) & ~explanation.startswith(EXPLORATION)
                values = {"explanation": EXPLORATION + "; " + explanation}
                connection.execute(update(frames).where(unmarked).values(values))
