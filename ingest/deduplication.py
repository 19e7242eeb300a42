"""Tell new frames from re-encodes of frames the ledger has, one after the other in the order they were
captured.

A perceptual hash alone would also reject frames that differ in one small item on a still background, which
are the frames that people are to label: so the mean colours of 8 x 8 cells must agree as well. Frames of one
burst are a group, not duplicates, unless nothing changed between them.

A run may die anywhere: a verdict is noted in the ledger, then a duplicate's object moves to quarantine, then
its row becomes ``duplicate``. A noted verdict stays, whatever frames came since: else a run that died after
the move could be followed by one that finds the frame new, and accepts a row without its object. An object
that was already moved is not moved again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.object_keys import frame_key, quarantine_key
from ingest.params import IngestParams
from trashnet.ledger import Duplicate, Fingerprint, Ledger
from trashnet.quarantine import QuarantineReason
from trashnet.store import ObjectStore

LOCK_NAME = "deduplication"
BATCH_SIZE = 256  # frames that are compared with each other, and recorded in one transaction


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
            for sha256, duplicate in found.items():
                ledger.extend_lock(lock)
                store.move(frame_key(sha256), duplicate.key)
            if found:
                duplicates += ledger.record_duplicates(found, lock)
    return DeduplicationCounts(accepted, duplicates)


def _next_verdicts(ledger: Ledger, params: IngestParams) -> dict[str, Duplicate | None]:
    """The next received frames, each with what it duplicates or ``None``; empty when none is left."""
    received = ledger.next_received(BATCH_SIZE)
    phashes = [frame.phash for frame in received if frame.phash is not None]
    near = ledger.fingerprints_near(phashes, params.reencode_hash_distance)
    verdicts: dict[str, Duplicate | None] = {}
    new: list[Fingerprint] = []
    for frame in received:
        known = near[frame.phash] if frame.phash is not None else []
        original = frame.duplicate_of or _find_original(frame, [*known, *new], params)
        if original is None:
            new.append(frame)
            verdicts[frame.sha256] = None
        else:
            verdicts[frame.sha256] = Duplicate(
                original, quarantine_key(QuarantineReason.DUPLICATE, frame.sha256)
            )
    return verdicts


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
