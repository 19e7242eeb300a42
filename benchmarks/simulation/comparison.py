"""What the ledger and the store hold in the end, and what they must hold by the uploads alone."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import func, select

from benchmarks.simulation.fleet import Fleet, Kind, Upload
from benchmarks.simulation.world import moment
from benchmarks.support.memory_store import MemoryStore, Objects
from trashnet.ledger import FrameRow, Ledger
from trashnet.ledger.frames import COLUMNS, frame_row
from trashnet.ledger.tables import frames, transitions

VOLATILE = {"received_at", "changed_at"}
BATCH = 500
MAX_SHOWN = 10  # differences


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be known of an upload: ``original`` is the SHA-256, as uploaded, of what it re-encodes."""

    state: str
    reason: str | None
    bin_id: str
    captured_at: datetime | None
    original: str | None = None
    sidecar_kept: bool = False  # beside the picture, in quarantine


def expected_rows(fleet: Fleet) -> Iterator[tuple[str, Expected]]:
    """Each row that the fleet's uploads must lead to, by the SHA-256 in its column ``uploaded_sha256``.

    It is computed from the uploads alone: no event, no run and no verb of the product has a part in it.
    """
    for upload in fleet:
        if upload.kind in {Kind.REPEATED, Kind.OTHER_BIN}:
            continue  # these bytes are known
        yield _expected(fleet, upload)


def _expected(fleet: Fleet, upload: Upload) -> tuple[str, Expected]:
    sha256, bin_id, captured_at = hashlib.sha256(upload.jpeg).hexdigest(), upload.bin_id, upload.captured_at
    match upload.kind:
        case Kind.REENCODE:
            original = hashlib.sha256(fleet.upload(upload.original).jpeg).hexdigest()
            return sha256, Expected("duplicate", "duplicate", bin_id, captured_at, original)
        case Kind.BROKEN:
            return sha256, Expected("quarantined", "broken-image", bin_id, captured_at, sidecar_kept=True)
        case Kind.MISNAMED:
            identity = f"{upload.stem}.json".encode() + b"\0" + (upload.sidecar or b"")
            return _digest(identity), Expected(
                "quarantined", "wrong-checksum", bin_id, None, sidecar_kept=True
            )
        case Kind.HALF:
            identity = f"{upload.stem}.jpg\0{len(upload.jpeg)} {moment(fleet, upload.number)}".encode()
            return _digest(identity), Expected("quarantined", "incomplete", bin_id, None)
        case _:
            return sha256, Expected("accepted", None, bin_id, captured_at)


def _digest(identity: bytes) -> str:
    return hashlib.sha256(identity).hexdigest()


def differences(fleet: Fleet, ledger: Ledger, objects: Objects) -> list[str]:
    """In which ways ledger and store are not what the uploads lead to; at most some of them."""
    found: list[str] = []
    rows_expected, objects_expected, rows = 0, 0, expected_rows(fleet)
    store = MemoryStore(objects)
    while batch := dict(islice(rows, BATCH)):
        originals = {expected.original for expected in batch.values() if expected.original}
        known = _by_upload(ledger, [*batch, *originals])
        for sha256, expected in batch.items():
            found += _differences(sha256, expected, known, store)
        rows_expected += len(batch)
        objects_expected += len(batch) + sum(expected.sidecar_kept for expected in batch.values())
        if len(found) >= MAX_SHOWN:
            return found[:MAX_SHOWN]
    with ledger.reading() as connection:
        count = connection.execute(select(func.count()).select_from(frames)).scalar()
        steps = select(transitions.c.sha256, transitions.c.to_state)
        again = select(func.count()).select_from(
            steps.group_by(*steps.selected_columns).having(func.count() > 1).subquery()
        )
        repeated = connection.execute(again).scalar()
    if count != rows_expected:
        found.append(f"{count:,} rows instead of {rows_expected:,}")
    if repeated:
        found.append(f"{repeated:,} transitions were made twice")
    if len(objects) != objects_expected:
        found.append(f"{len(objects):,} objects instead of {objects_expected:,}")
    found += [f"{key} was left in the inbox" for key in objects.keys_under("inbox/")]
    return found[:MAX_SHOWN]


def _by_upload(ledger: Ledger, sha256s: list[str]) -> dict[str, FrameRow]:
    query = select(*(frames.c[name] for name in COLUMNS)).where(frames.c.uploaded_sha256.in_(sha256s))
    with ledger.reading() as connection:
        rows = [frame_row(row) for row in connection.execute(query).mappings()]
    return {row.uploaded_sha256: row for row in rows}


def _differences(
    sha256: str, expected: Expected, known: dict[str, FrameRow], store: MemoryStore
) -> Iterator[str]:
    row = known.get(sha256)
    if row is None:
        yield f"{sha256}: no row instead of {expected}"
        return
    original = known[row.duplicate_of].uploaded_sha256 if row.duplicate_of in known else None
    if row.duplicate_of is not None:
        by_stored = {other.sha256: other.uploaded_sha256 for other in known.values()}
        original = by_stored.get(row.duplicate_of, "another")
    is_told = Expected(
        row.state, row.quarantine_reason, row.bin_id or "", row.captured_at, original, expected.sidecar_kept
    )
    if is_told != expected:
        yield f"{sha256}: {is_told} instead of {expected}"
    folder = "frames" if expected.state == "accepted" else f"quarantine/{expected.reason}"
    if row.key != f"{folder}/{row.sha256}.jpg":
        yield f"{sha256}: its object is {row.key}"
    stored = store.objects.get(row.key or "")
    if stored is None:
        yield f"{sha256}: {row.key} is not in the store"
    elif expected.state in {"accepted", "duplicate"} and _digest(stored[0]) != row.sha256:
        yield f"{sha256}: {row.key} holds other bytes"
    if expected.sidecar_kept and f"{folder}/{row.sha256}.json" not in store.objects:
        yield f"{sha256}: its sidecar is not in quarantine"


def final_state(ledger: Ledger, objects: Objects) -> tuple[dict[str, Any], dict[str, bytes]]:
    """All rows without the times of writing, and all objects: for worlds that fit into memory twice."""
    query = select(*(frames.c[name] for name in COLUMNS))
    with ledger.reading() as connection:
        rows = [frame_row(row) for row in connection.execute(query).mappings()]
    told = {
        row.sha256: {name: value for name, value in asdict(row).items() if name not in VOLATILE}
        for row in rows
    }
    return told, {key: content[0] for key, content in objects.items()}
