"""Deduplication: received frames in the order of their capture, and frames whose perceptual hashes are
near.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, and_, bindparam, select, tuple_, union_all, update

from trashnet.ledger.database import Database
from trashnet.ledger.frames import hash_bands, move_frame, move_frames
from trashnet.ledger.locks import Lock, check_lock
from trashnet.ledger.tables import HASH_BANDS, frames
from trashnet.quarantine import QuarantineReason

MAX_HASH_DISTANCE = HASH_BANDS - 1  # bits: hashes farther apart may share no band, and the index misses them
COLUMNS = (
    frames.c.sha256,
    frames.c.bin_id,
    frames.c.captured_at,
    frames.c.phash,
    frames.c.descriptor,
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What two frames are compared by: a hash of 64 bits (``None`` if too plain) and the mean RGB of 8 x 8
    cells, 192 bytes; and by which bin it was captured when.

    ``duplicate_of`` is the verdict on a received frame whose object may have been moved already.
    """

    sha256: str
    bin_id: str | None
    captured_at: datetime | None
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
            select(*COLUMNS, frames.c.duplicate_of)
            .where(frames.c.state == "received")
            .order_by(frames.c.captured_at, frames.c.sha256)
            .limit(limit)
        )
        with self.reading() as connection:
            return [_fingerprint(*row) for row in connection.execute(query).all()]

    def fingerprints_near(self, received: Iterable[Fingerprint], count: int) -> list[list[Fingerprint]]:
        """For each frame those accepted (or later) that it may re-encode.

        Of the same bin the ``count`` captured last before it and the ``count`` captured first after it, for
        each band of the hash that they share: hashes that differ in at most :data:`MAX_HASH_DISTANCE` bits
        share one (multi-index hashing: Norouzi, Punjani and Fleet, CVPR 2012, section 3). They are the
        entries of an index beside each other, so a still camera's millionth frame costs what its first does.
        """
        with self.reading() as connection:
            return [_near(connection, frame, count) for frame in received]

    def record_verdicts(self, verdicts: Mapping[str, Duplicate | None], lock: Lock) -> int:
        """Move new frames (``None``) on to ``accepted``, and note what the others duplicate, together.

        A noted verdict is final: a duplicate's object may move from then on. ``lock`` keeps other
        deduplications out; it is extended. Returns how many frames became accepted. Raises
        :class:`trashnet.ledger.LockLostError`; then nothing is written.
        """
        new = {sha256: dict[str, Any]() for sha256, duplicate in verdicts.items() if duplicate is None}
        with self.transaction() as connection:
            check_lock(connection, lock)
            for sha256, duplicate in verdicts.items():
                if duplicate is not None:
                    received = (frames.c.sha256 == sha256) & (frames.c.state == "received")
                    noted = update(frames).where(received).values(duplicate_of=duplicate.duplicate_of)
                    connection.execute(noted)
            return move_frames(connection, new, "received", "accepted")

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


def _near(connection: Connection, frame: Fingerprint, count: int) -> list[Fingerprint]:
    if frame.phash is None:
        return []
    values = {"bin": frame.bin_id, "at": frame.captured_at, "sha": frame.sha256, "count": count}
    values |= hash_bands(f"{frame.phash:016x}")
    found = [_fingerprint(*row) for row in connection.execute(NEIGHBOURS, values).all()]
    return list({other.sha256: other for other in found}.values())  # most share several bands


def _neighbours() -> CompoundSelect[Any]:
    """Frames beside one, in each band's index, before and after it."""
    columns = frames.c
    order = (columns.captured_at, columns.sha256)
    here = tuple_(
        bindparam("at", type_=columns.captured_at.type), bindparam("sha", type_=columns.sha256.type)
    )
    parts = []
    for band in hash_bands(None):
        same = and_(columns.bin_id == bindparam("bin"), columns[band] == bindparam(band))
        before = select(*COLUMNS).where(same, tuple_(*order) < here).order_by(*(at.desc() for at in order))
        after = select(*COLUMNS).where(same, tuple_(*order) > here).order_by(*order)
        parts += [select(part.limit(bindparam("count")).subquery()) for part in (before, after)]
    return union_all(*parts)


NEIGHBOURS = _neighbours()


def _fingerprint(
    sha256: str,
    bin_id: str | None,
    captured_at: datetime | None,
    phash: str | None,
    descriptor: bytes | None,
    duplicate_of: str | None = None,
) -> Fingerprint:
    hash_ = int(phash, 16) if phash else None
    return Fingerprint(sha256, bin_id, captured_at, hash_, descriptor or b"", duplicate_of)
