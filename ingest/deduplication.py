"""Tell new frames from re-encodes of frames the ledger has, one after the other in the order they were captured.

A perceptual hash alone would also throw out what differs in one small item on a still background, which is
what people are to label: so the mean colours of 8 x 8 cells must agree as well. Frames of one burst are a
group, not duplicates, unless nothing changed between them.

Dying is safe: a duplicate's object moves to quarantine before its row does. A row that is still ``received``
is settled again, and since the frame it resembles is still there, to the same verdict; an object that has
moved already is moved no second time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, or_, select

from ingest.object_keys import frame_key, quarantine_key
from ingest.params import IngestParams
from trashnet.ledger import Ledger
from trashnet.ledger.ledger import move
from trashnet.ledger.tables import BANDS, frames
from trashnet.store import ObjectStore

AT_ONCE = 256  # frames: one query for them, one transaction
NEW = ("accepted", "tasked", "labelled", "released")  # states of frames that were found to be new


@dataclass(frozen=True, slots=True)
class DeduplicationCounts:
    """How many frames were found to be new, and how many to be near duplicates."""

    accepted: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What is compared of a frame: a hash of 64 bits and the mean colours of its cells, int16 ``(192,)``."""

    sha256: str
    phash: int | None
    cells: NDArray[np.int16]


def deduplicate(store: ObjectStore, ledger: Ledger, params: IngestParams) -> DeduplicationCounts:
    """Move every received frame on to ``accepted`` or, with its object, to ``duplicate``; the result does not depend on who received what.

    Must not run twice at once. Raises :class:`trashnet.store.StoreDown`; the next call goes on where this one
    stopped.
    """
    accepted = duplicates = 0
    while verdicts := _verdicts(ledger, params):
        for sha256, resembled in verdicts.items():
            if resembled is not None:
                store.move(frame_key(sha256), quarantine_key("duplicate", sha256))
        with ledger.transaction() as connection:
            for sha256, resembled in verdicts.items():
                if resembled is None:
                    accepted += move(connection, sha256, "received", "accepted")
                else:
                    place = {
                        "key": quarantine_key("duplicate", sha256),
                        "duplicate_of": resembled,
                        "quarantine_reason": "duplicate",
                    }
                    duplicates += move(
                        connection, sha256, "received", "duplicate", note=f"re-encodes {resembled}", **place
                    )
    return DeduplicationCounts(accepted, duplicates)


def _verdicts(ledger: Ledger, params: IngestParams) -> dict[str, str | None]:
    """The next received frames, each with the one it duplicates or ``None``; empty when all are settled."""
    columns = (frames.c.sha256, frames.c.phash, frames.c.descriptor)
    oldest = (
        select(*columns)
        .where(frames.c.state == "received")
        .order_by(frames.c.captured_at, frames.c.sha256)
        .limit(AT_ONCE)
    )
    verdicts: dict[str, str | None] = {}
    with ledger.transaction() as connection:
        fresh: list[Look] = []
        for row in connection.execute(oldest).all():
            look = _look(*row)
            known = _sharing_bands(connection, look, params.reencode_hash_distance)
            verdicts[look.sha256] = resembled = _resembled(look, [*known, *fresh], params)
            if resembled is None:
                fresh.append(look)
    return verdicts


def _look(sha256: str, phash: str | None, descriptor: bytes | None) -> Look:
    return Look(
        sha256, int(phash, 16) if phash else None, np.frombuffer(descriptor or b"", np.uint8).astype(np.int16)
    )


def _resembled(look: Look, known: Iterable[Look], params: IngestParams) -> str | None:
    """The known frame that this one re-encodes: the nearest by hash, of equally near ones the least SHA-256."""
    if look.phash is None:
        return None
    near = []
    for other in known:
        bits = 65 if other.phash is None else (look.phash ^ other.phash).bit_count()
        if (
            bits <= params.reencode_hash_distance
            and np.abs(look.cells - other.cells).max(initial=0) <= params.reencode_colour_distance
        ):
            near.append((bits, other.sha256))
    return min(near)[1] if near else None


def _sharing_bands(connection: Connection, look: Look, distance: int) -> Sequence[Look]:
    """Frames found to be new whose hashes may be that near, by index.

    Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012, section 3): ``distance`` bits spoil at most so
    many of the bands.
    """
    if look.phash is None:
        return []
    digits = f"{look.phash:016x}"
    equal = [frames.c[f"band{i}"] == int(digits[4 * i : 4 * i + 4], 16) for i in range(BANDS)]
    sets: list[ColumnElement[bool]] = [and_(*some) for some in combinations(equal, BANDS - distance)]
    # The state is looked at here: a planner that is offered it might begin with it, and read every frame
    # there is.
    query = select(frames.c.sha256, frames.c.phash, frames.c.descriptor, frames.c.state).where(or_(*sets))
    return [_look(*row[:3]) for row in connection.execute(query).all() if row[3] in NEW]
