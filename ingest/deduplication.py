"""Tell new frames from re-encodes of frames the ledger has, one after the other in the order they were
captured.

A perceptual hash alone would also reject frames that differ in one small item on a still background, which
are the frames that people are to label: so the mean colours of 8 x 8 cells must agree as well. Frames of one
burst are a group, not duplicates, unless nothing changed between them. A frame is compared with frames of its
own bin, and with so many of them that its cost does not depend on how many there are.

A run may die anywhere: a verdict is noted in the ledger, then a duplicate's object moves to quarantine, then
its row becomes ``duplicate``. A noted verdict stays, whatever frames came since: else a run that died after
the move could be followed by one that finds the frame new, and accepts a row without its object. An object
that was already moved is not moved again.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ingest.object_keys import frame_key, quarantine_key
from ingest.params import IngestParams
from trashnet.ledger import BAND_MASKS, Duplicate, Fingerprint, Ledger
from trashnet.quarantine import QuarantineReason
from trashnet.store import ObjectStore

LOCK_NAME = "deduplication"
BATCH_SIZE = 256  # frames that are compared with each other, and recorded in one transaction
EXTEND_SECONDS = 10.0  # while objects move, the lock is extended this often
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeduplicationCounts:
    """How many frames were found to be new, and how many to be near duplicates."""

    accepted: int = 0
    duplicates: int = 0


def deduplicate(store: ObjectStore, ledger: Ledger, params: IngestParams) -> DeduplicationCounts:
    """Move every received frame on to ``accepted`` or, with its object, to ``duplicate``.

    The result does not depend on which worker received which frame. A second call, from whatever machine,
    waits until the first has ended: a lock in the ledger sees to that. Raises
    :class:`trashnet.store.StoreDown`; the next call continues where this one stopped.
    """
    accepted = duplicates = 0
    with ledger.lock(LOCK_NAME) as lock:
        while verdicts := _next_verdicts(ledger, params):
            # Before an object moves: a run after our death must not find another verdict on that frame.
            accepted += ledger.record_verdicts(verdicts, lock)
            found = {sha256: duplicate for sha256, duplicate in verdicts.items() if duplicate is not None}
            extended_at = time.monotonic()
            for sha256, duplicate in found.items():
                if time.monotonic() - extended_at > EXTEND_SECONDS:
                    ledger.extend_lock(lock)
                    extended_at = time.monotonic()
                store.move(frame_key(sha256), duplicate.key)
            if found:
                duplicates += ledger.record_duplicates(found, lock)
    return DeduplicationCounts(accepted, duplicates)


def _next_verdicts(ledger: Ledger, params: IngestParams) -> dict[str, Duplicate | None]:
    """The next received frames, each with what it duplicates or ``None``; empty when none is left."""
    received = ledger.next_received(BATCH_SIZE)
    known = ledger.fingerprints_near(received, params.reencode_candidates)
    verdicts: dict[str, Duplicate | None] = {}
    new: list[Fingerprint] = []
    for frame, near in zip(received, known, strict=True):
        candidates = _nearest(frame, [*near, *new], params.reencode_candidates)
        original = frame.duplicate_of or _find_original(frame, candidates, params)
        if original is None:
            new.append(frame)
            verdicts[frame.sha256] = None
        else:
            verdicts[frame.sha256] = Duplicate(
                original, quarantine_key(QuarantineReason.DUPLICATE, frame.sha256)
            )
    return verdicts


def _nearest(frame: Fingerprint, others: Sequence[Fingerprint], count: int) -> list[Fingerprint]:
    """Of these frames those that the ledger would find near, whether or not they are in it already.

    So a verdict does not depend on which frames came in one batch.
    """
    if frame.phash is None:
        return []
    nearest: dict[str, Fingerprint] = {}
    same_bin = sorted((other for other in others if other.bin_id == frame.bin_id), key=_capture_order)
    for mask in BAND_MASKS:
        sharing = [
            other for other in same_bin if other.phash is not None and (frame.phash ^ other.phash) & mask == 0
        ]
        here = bisect_left(sharing, _capture_order(frame), key=_capture_order)
        near = sharing[max(0, here - count) : here + count]
        nearest |= {other.sha256: other for other in near}
    return list(nearest.values())


def _capture_order(frame: Fingerprint) -> tuple[datetime, str]:
    return frame.captured_at or NEVER, frame.sha256


def _find_original(frame: Fingerprint, known: Iterable[Fingerprint], params: IngestParams) -> str | None:
    """The known frame that this one re-encodes: the nearest by hash, then the least SHA-256."""
    if frame.phash is None:
        return None
    near = []
    for other in known:
        if other.phash is None:
            continue
        distance = (frame.phash ^ other.phash).bit_count()
        if distance <= params.reencode_hash_distance:
            colour_distance = np.abs(_cells(frame) - _cells(other)).max(initial=0)
            if colour_distance <= params.reencode_colour_distance:
                near.append((distance, other.sha256))
    return min(near)[1] if near else None


def _cells(frame: Fingerprint) -> NDArray[np.int16]:
    """The mean colours of a frame's 8 x 8 cells, ``(192,)``: RGB in [0, 255], row by row."""
    return np.frombuffer(frame.descriptor, np.uint8).astype(np.int16)
