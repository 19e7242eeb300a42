"""Quarantine uploads that were never completed, and objects in the inbox that are no uploads."""

from datetime import datetime, timedelta
from itertools import groupby

from ingest.object_keys import INBOX, parse_inbox_key, quarantine_key, refusal_digest
from ingest.params import IngestParams
from trashnet.ledger import FrameRow, Ledger
from trashnet.quarantine import QuarantineReason
from trashnet.store import PLAIN_KEY, NoSuchObject, ObjectStore, StoredObject, is_usable_key

KINDS = {"jpg", "json"}
CURSOR = "inbox sweep"  # the key after which the next sweep goes on; empty for the inbox's beginning
LISTED_PER_SWEEP = 100_000  # objects: a larger inbox is swept in several calls


def sweep_inbox(store: ObjectStore, ledger: Ledger, params: IngestParams, now: datetime) -> int:
    """Quarantine pictures without sidecars, sidecars without pictures and stray objects.

    Only objects older than ``params.incomplete_hours`` are moved. Complete uploads stay for
    :func:`ingest.receive`. A call that has listed :data:`LISTED_PER_SWEEP` objects ends; the next one goes on
    from there.

    Returns:
        How many objects were moved.
    """
    oldest, swept, listed = now - timedelta(hours=params.incomplete_hours), 0, 0
    position = ledger.cursor(CURSOR) or None
    # All of X.jpg, X.jpg.part and X.json follow each other in the order of keys.
    for stem, group in groupby(store.list(INBOX, position), key=lambda stored: _stem(stored.key)):
        found = list(group)
        objects = [stored for stored in found if is_usable_key(stored.key)]
        listed += len(found)
        upload = {f"{stem}.jpg", f"{stem}.json"}
        is_complete = upload <= {stored.key for stored in objects}
        for stored in objects:
            if stored.modified <= oldest and not (is_complete and stored.key in upload):
                swept += _quarantine_object(store, ledger, stored)
        if listed >= LISTED_PER_SWEEP and PLAIN_KEY.fullmatch(found[-1].key):
            ledger.set_cursor(CURSOR, found[-1].key)
            return swept
    if position is not None:
        ledger.set_cursor(CURSOR, "")
    return swept


def _stem(key: str) -> str:
    """The key without the first suffix of its name and what follows."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _quarantine_object(store: ObjectStore, ledger: Ledger, stored: StoredObject) -> bool:
    """Copy the object, enter its row, empty the inbox: in this order, as ``ingest/reception.py`` explains.

    ``False`` for an object that is gone, or that the store lists and cannot read.
    """
    inbox_key, kind = parse_inbox_key(stored.key), stored.key.rpartition(".")[2]
    reason = QuarantineReason.INCOMPLETE if inbox_key else QuarantineReason.STRAY
    sha256 = refusal_digest(stored.key, f"{stored.size} {stored.modified}".encode())
    key = quarantine_key(reason, sha256, kind if kind in KINDS else "bin")
    try:
        store.copy(stored.key, key)
    except NoSuchObject:
        return False
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
    return True
