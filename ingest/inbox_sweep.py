"""Quarantine uploads that were never completed, and objects in the inbox that are no uploads."""

from datetime import datetime, timedelta
from itertools import groupby

from ingest.object_keys import INBOX, parse_inbox_key, quarantine_key, refusal_digest
from ingest.params import IngestParams
from trashnet.ledger import FrameRow, Ledger
from trashnet.quarantine import QuarantineReason
from trashnet.store import ObjectStore, StoredObject

KINDS = {"jpg", "json"}


def sweep_inbox(store: ObjectStore, ledger: Ledger, params: IngestParams, now: datetime) -> int:
    """Quarantine pictures without sidecars, sidecars without pictures and stray objects.

    Only objects older than ``params.incomplete_hours`` are moved. Complete uploads stay for
    :func:`ingest.receive`.

    Returns:
        How many objects were moved.
    """
    oldest, swept = now - timedelta(hours=params.incomplete_hours), 0
    # X.jpg and X.json follow each other in the order of keys.
    for _, group in groupby(store.list(INBOX), key=lambda stored: stored.key.rpartition(".")[0]):
        objects = list(group)
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
    """Copy the object, enter its row, empty the inbox: in this order, as ``ingest/reception.py`` explains."""
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
        sha256=sha256,
        uploaded_sha256=sha256,
        state="quarantined",
        inbox_key=stored.key,
        key=key,
        bin_id=inbox_key.bin_id if inbox_key else None,
        quarantine_reason=reason,
        note=what,
    )
    ledger.upsert_uploads([row])
    store.remove(stored.key)
