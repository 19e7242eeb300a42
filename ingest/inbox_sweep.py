"""What lies in the inbox and will never be complete goes to quarantine, with a row that says so."""

from datetime import datetime, timedelta
from itertools import groupby

from ingest.object_keys import INBOX, quarantine_key, refusal_digest
from ingest.params import IngestParams
from ingest.sidecar import parse_inbox_key
from trashnet.ledger import FrameRow, Ledger
from trashnet.quarantine import QuarantineReason
from trashnet.store import ObjectStore, StoredObject

KINDS = {"jpg", "json"}


def sweep_inbox(store: ObjectStore, ledger: Ledger, params: IngestParams, now: datetime) -> int:
    """Move pictures without sidecars, sidecars without pictures and strays older than
    ``params.incomplete_hours``; how many were moved.

    Sidecars whose pictures are there are left: :func:`ingest.receive` deals with them.
    """
    oldest, swept = now - timedelta(hours=params.incomplete_hours), 0
    # X.jpg and X.json follow each other in the order of keys.
    for _, lying in groupby(store.list(INBOX), key=lambda stored: stored.key.rpartition(".")[0]):
        objects = list(lying)
        if any(stored.key.endswith(".json") for stored in objects) and any(
            stored.key.endswith(".jpg") for stored in objects
        ):
            continue
        for stored in objects:
            if stored.modified <= oldest:
                _quarantine_object(store, ledger, stored)
                swept += 1
    return swept


def _quarantine_object(store: ObjectStore, ledger: Ledger, stored: StoredObject) -> None:
    """Objects first, then the row, then the inbox: as in ``ingest/reception.py``."""
    inbox_key, kind = parse_inbox_key(stored.key), stored.key.rpartition(".")[2]
    reason = QuarantineReason.INCOMPLETE if inbox_key else QuarantineReason.STRAY
    sha256 = refusal_digest(stored.key, f"{stored.size} {stored.modified}".encode())
    key = quarantine_key(reason, sha256, kind if kind in KINDS else "bin")
    store.copy(stored.key, key)
    what = (
        f"its {'sidecar' if kind == 'jpg' else 'picture'} never came"
        if inbox_key
        else "not the name of a frame or a sidecar"
    )
    row = FrameRow(
        sha256=sha256, uploaded_sha256=sha256, state="quarantined", inbox_key=stored.key, key=key,
        bin_id=inbox_key.bin_id if inbox_key else None, quarantine_reason=reason, note=what,
    )  # fmt: skip
    ledger.upsert_uploads([row])
    store.remove(stored.key)
