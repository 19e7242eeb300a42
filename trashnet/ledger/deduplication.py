"""Deduplication: received frames in the order of their capture, and frames whose perceptual hashes are
near.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from trashnet.ledger.database import Database
from trashnet.ledger.frames import hash_bands, move_frame
from trashnet.ledger.locks import Lock, check_lock
from trashnet.ledger.rows import UNIQUE_STATES
from trashnet.ledger.tables import HASH_BANDS, frames
from trashnet.quarantine import QuarantineReason

MAX_HASH_DISTANCE = HASH_BANDS - 1  # bits: hashes farther apart may share no band, and the index misses them


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What two frames are compared by: a hash of 64 bits (``None`` if too plain) and the mean RGB of 8 x 8
    cells, 192 bytes.

    ``duplicate_of`` is the verdict on a received frame whose object may have been moved already.
    """

    sha256: str
    phash: int | None
    descriptor: bytes
    duplicate_of: str | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A verdict of deduplication: the SHA-256 of the frame that is re-encoded, and the key its re-encode was
    moved to.
    """

    duplicate_of: str
    key: str


class DeduplicationQueries(Database):
    """What deduplication asks and writes."""

    def next_received(self, limit: int) -> list[Fingerprint]:
        """Received frames, oldest capture first, then by SHA-256."""
        query = (
            select(frames.c.sha256, frames.c.phash, frames.c.descriptor, frames.c.duplicate_of)
            .where(frames.c.state == "received")
            .order_by(frames.c.captured_at, frames.c.sha256)
            .limit(limit)
        )
        with self.reading() as connection:
            return [_fingerprint(*row) for row in connection.execute(query).all()]

    def fingerprints_near(self, phashes: Iterable[int], distance: int) -> dict[int, list[Fingerprint]]:
        """Per hash the accepted (or later) frames whose hashes differ in at most ``distance`` of 64 bits.

        They are found through an index, by multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012,
        section 3): ``distance`` bits change at most so many of the bands. Raises :class:`ValueError` for a
        distance above :data:`MAX_HASH_DISTANCE`.
        """
        if not 0 <= distance <= MAX_HASH_DISTANCE:
            raise ValueError(
                f"distance {distance}: the index finds hashes at most {MAX_HASH_DISTANCE} bits apart"
            )
        with self.reading() as connection:
            return {phash: _near(connection, phash, distance) for phash in set(phashes)}

    def record_verdicts(self, verdicts: Mapping[str, Duplicate | None], lock: Lock) -> int:
        """Move new frames (``None``) on to ``accepted``, and note what the others duplicate, together.

        A noted verdict is final: a duplicate's object may move from then on. ``lock`` keeps other
        deduplications out; it is extended. Returns how many frames became accepted. Raises
        :class:`trashnet.ledger.LockLostError`; then nothing is written.
        """
        accepted = 0
        with self.transaction() as connection:
            check_lock(connection, lock)
            for sha256, duplicate in verdicts.items():
                if duplicate is None:
                    accepted += move_frame(connection, sha256, "received", "accepted")
                else:
                    received = (frames.c.sha256 == sha256) & (frames.c.state == "received")
                    noted = update(frames).where(received).values(duplicate_of=duplicate.duplicate_of)
                    connection.execute(noted)
        return accepted

    def record_duplicates(self, duplicates: Mapping[str, Duplicate], lock: Lock) -> int:
        """Move received frames whose objects were moved on to ``duplicate``, together; how many that were.

        The lock is extended. Raises :class:`trashnet.ledger.LockLostError`; then nothing is written.
        """
        moved = 0
        with self.transaction() as connection:
            check_lock(connection, lock)
            for sha256, duplicate in duplicates.items():
                values = {
                    "key": duplicate.key,
                    "duplicate_of": duplicate.duplicate_of,
                    "quarantine_reason": QuarantineReason.DUPLICATE,
                }
                note = f"re-encodes {duplicate.duplicate_of}"
                moved += move_frame(connection, sha256, "received", "duplicate", note=note, **values)
        return moved


def _near(connection: Connection, phash: int, distance: int) -> list[Fingerprint]:
    equal = [frames.c[name] == value for name, value in hash_bands(f"{phash:016x}").items()]
    sets: list[ColumnElement[bool]] = [and_(*bands) for bands in combinations(equal, HASH_BANDS - distance)]
    # The state is checked here: a planner that is offered it might begin with it, and read every frame.
    columns = (frames.c.sha256, frames.c.phash, frames.c.descriptor, frames.c.state)
    rows = connection.execute(select(*columns).where(or_(*sets))).all()
    candidates = [_fingerprint(*row[:3]) for row in rows if row[3] in UNIQUE_STATES]
    return [
        other
        for other in candidates
        if other.phash is not None and (phash ^ other.phash).bit_count() <= distance
    ]


def _fingerprint(
    sha256: str, phash: str | None, descriptor: bytes | None, duplicate_of: str | None = None
) -> Fingerprint:
    return Fingerprint(sha256, int(phash, 16) if phash else None, descriptor or b"", duplicate_of)
