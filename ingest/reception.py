"""Drain the inbox: every upload ends as a row of the ledger and one object, in ``frames/`` or
``quarantine/<reason>/``.

A run may die at any step and is then run again. So the order is always the same: first the objects are
written to their final keys, then one transaction enters the rows, and the inbox is emptied last, the picture
before its sidecar. If a run dies before the rows, the next one writes the same objects again (they are named
by their contents). If it dies after them, the next one finds the rows, removes the objects that it wrote and
no row points to, and continues to empty the inbox. A sidecar that was left alone by that is known by its
picture's hash or, of a refused upload, by the digest of the sidecar itself.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from ingest.decoders import DecoderPool
from ingest.inbox import bin_of
from ingest.params import IngestParams
from ingest.validation import OrphanSidecar, UploadValidator, ValidatedUpload
from trashnet.ledger import Ledger, Upserted
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ReceptionCounts:
    """How many uploads were new frames, known to the ledger already, or refused.

    ``left``: those that are not complete yet, that another run took, or that the store cannot read.
    """

    received: int = 0
    repeated: int = 0
    quarantined: int = 0
    left: int = 0

    @property
    def taken(self) -> int:
        """How many uploads left the inbox."""
        return self.received + self.repeated + self.quarantined

    def __add__(self, other: "ReceptionCounts") -> "ReceptionCounts":
        return ReceptionCounts(
            self.received + other.received,
            self.repeated + other.repeated,
            self.quarantined + other.quarantined,
            self.left + other.left,
        )


def split_into_shards(keys: Sequence[str], size: int) -> list[list[str]]:
    """The keys in lists of at most ``size``, in order.

    >>> split_into_shards(["a", "b", "c"], 2)
    [['a', 'b'], ['c']]
    """
    return [list(keys[start : start + size]) for start in range(0, len(keys), size)]


def receive(
    store: ObjectStore,
    ledger: Ledger,
    keys: Sequence[str],
    taxonomy: Taxonomy,
    params: IngestParams,
    *,
    decoders: DecoderPool | None = None,
) -> ReceptionCounts:
    """Validate uploads and enter them in the ledger.

    In memory are ``params.batch_size`` rows and a picture per thread.

    Args:
        store: Where the uploads are.
        ledger: Where they are entered.
        keys: The keys of their sidecars.
        taxonomy: The labels that detections may have.
        params: What an upload may cost.
        decoders: Running decoding processes, made with the same ``params``; without them new ones are
            started, which takes half a second.

    Raises:
        StoreDown: The store does not answer. What was received until then stays, and the next call continues.
    """
    total = ReceptionCounts()
    with ExitStack() as stack:
        decoders = decoders or stack.enter_context(DecoderPool(params))
        threads = stack.enter_context(ThreadPoolExecutor(params.threads))
        validator = UploadValidator(store, taxonomy, params, decoders)
        emptying: Future[None] | None = None
        for batch in split_into_shards(keys, params.batch_size):
            validated = list(threads.map(validator.validate, batch))
            if emptying is not None:
                emptying.result()  # the inbox of the batch before was emptied while this one was validated
            uploads = [found for found in validated if isinstance(found, ValidatedUpload)]
            sent = [(bin_of(upload.row.inbox_key), upload.size) for upload in uploads]
            upserted = ledger.upsert_uploads([upload.row for upload in uploads], sent)
            emptying = threads.submit(_empty_inbox, store, uploads, upserted)
            orphans = [found for found in validated if isinstance(found, OrphanSidecar)]
            total += _count(uploads, upserted) + _remove_orphans(store, ledger, orphans)
            total += ReceptionCounts(left=validated.count(None))
        if emptying is not None:
            emptying.result()
    return total


def _empty_inbox(
    store: ObjectStore, uploads: Sequence[ValidatedUpload], upserted: Sequence[Upserted]
) -> None:
    """Remove entered uploads from the inbox, and the objects written for them if the ledger has others."""
    for upload, result in zip(uploads, upserted, strict=True):
        if not result.new and result.key not in upload.written_keys:
            if result.key is not None and store.stat(result.key) is None:
                store.copy(upload.written_keys[0], result.key)
            store.remove_all(upload.written_keys)
    # An upload that has come again meanwhile stays: the next round looks at what is there now.
    unchanged = [
        upload.inbox_keys
        for upload in uploads
        if not any(_has_changed(store, key, etag) for key, etag in upload.etags.items())
    ]
    # One request has no order, so the pictures go in one of their own, before their sidecars.
    store.remove_all([keys[0] for keys in unchanged])
    store.remove_all([key for keys in unchanged for key in keys[1:]])


def _has_changed(store: ObjectStore, key: str, etag: str | None) -> bool:
    found = store.stat(key)
    return found is not None and etag is not None and found.etag != etag


def _remove_orphans(store: ObjectStore, ledger: Ledger, orphans: Sequence[OrphanSidecar]) -> ReceptionCounts:
    """Remove sidecars whose pictures were entered by a run that died; the others wait for their pictures."""
    known = ledger.known_uploads({sha256 for orphan in orphans for sha256 in orphan.known_sha256s})
    entered = [orphan for orphan in orphans if orphan.known_sha256s & known]
    store.remove_all([key for orphan in entered for key in orphan.inbox_keys])
    return ReceptionCounts(repeated=len(entered), left=len(orphans) - len(entered))


def _count(uploads: Sequence[ValidatedUpload], upserted: Sequence[Upserted]) -> ReceptionCounts:
    new = [upload.row.state for upload, result in zip(uploads, upserted, strict=True) if result.new]
    refused = new.count("quarantined")
    return ReceptionCounts(received=len(new) - refused, repeated=len(uploads) - len(new), quarantined=refused)
