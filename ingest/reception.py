"""Drain the inbox: every upload ends as a row of the ledger and one object, in ``frames/`` or in
``quarantine/<reason>/``.

Any step may die and be run again. So the order is always: first the objects are written where they will stay,
then one transaction makes the rows that vouch for them, and the inbox is emptied last, the picture before its
sidecar. Dying before the rows, the next run writes the same objects again (they are named by their contents);
dying after, it finds the rows, takes back whatever it wrote that they do not point to, and goes on emptying.
A sidecar left alone by that is known by its picture's hash, or, of a refused upload, by its own.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from ingest.decoders import Decoders
from ingest.object_keys import INBOX
from ingest.params import IngestParams
from ingest.validation import OrphanSidecar, Upload, UploadValidator
from trashnet.ledger import Ledger, Upserted
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ReceptionCounts:
    """What became of the uploads: new frames, those the ledger knew already, refused ones, and those not
    complete yet.
    """

    received: int = 0
    repeated: int = 0
    quarantined: int = 0
    left: int = 0

    def __add__(self, other: "ReceptionCounts") -> "ReceptionCounts":
        return ReceptionCounts(
            self.received + other.received,
            self.repeated + other.repeated,
            self.quarantined + other.quarantined,
            self.left + other.left,
        )


def pending_uploads(store: ObjectStore) -> list[str]:
    """The keys of the sidecars in the inbox, sorted: uploads that are complete."""
    return [found.key for found in store.list(INBOX) if found.key.endswith(".json")]


def shards(keys: Sequence[str], size: int) -> list[list[str]]:
    """Cut the keys into lists of at most ``size``, for as many workers."""
    return [list(keys[start : start + size]) for start in range(0, len(keys), size)]


def receive(
    store: ObjectStore,
    ledger: Ledger,
    keys: Sequence[str],
    taxonomy: Taxonomy,
    params: IngestParams,
    *,
    decoders: Decoders | None = None,
) -> ReceptionCounts:
    """Check the uploads of these sidecars and enter them in the ledger.

    In memory are ``params.batch_size`` rows and a picture per thread.

    ``decoders`` saves the start of new decoding processes (half a second) where a caller has running ones,
    made with the same ``params``. Raises :class:`trashnet.store.StoreDown`; what was done until then stays
    done, and the next call goes on.
    """
    total = ReceptionCounts()
    with ExitStack() as stack:
        decoders = decoders or stack.enter_context(Decoders(params))
        threads = stack.enter_context(ThreadPoolExecutor(params.threads))
        validator = UploadValidator(store, taxonomy, params, decoders)
        emptying: list[Future[None]] = []
        for batch in shards(keys, params.batch_size):
            validated = list(threads.map(validator.validate, batch))
            _finish(emptying)  # of the batch before: it went on while this one was looked at
            uploads = [found for found in validated if isinstance(found, Upload)]
            entered = ledger.upsert_uploads([upload.row for upload in uploads])
            emptying = [
                threads.submit(_empty, store, upload, done)
                for upload, done in zip(uploads, entered, strict=True)
            ]
            orphans = [found for found in validated if isinstance(found, OrphanSidecar)]
            total += _count(uploads, entered) + _clear(store, ledger, orphans)
        _finish(emptying)
    return total


def _finish(running: Sequence[Future[None]]) -> None:
    for future in running:
        future.result()


def _empty(store: ObjectStore, upload: Upload, entered: Upserted) -> None:
    """Remove an upload from the inbox, now that the ledger vouches for it, and what was written for it but is
    kept elsewhere.
    """
    if not entered.new and entered.key not in upload.written:
        if entered.key is not None and store.stat(entered.key) is None:
            store.copy(upload.written[0], entered.key)
        for key in upload.written:
            store.remove(key)
    for key in upload.inbox:
        store.remove(key)


def _clear(store: ObjectStore, ledger: Ledger, orphans: Sequence[OrphanSidecar]) -> ReceptionCounts:
    """Remove sidecars whose pictures were dealt with in a run that died; the others wait for theirs."""
    known = ledger.known_uploads({name for orphan in orphans for name in orphan.known_as})
    done = [orphan for orphan in orphans if orphan.known_as & known]
    for orphan in done:
        for key in orphan.inbox:
            store.remove(key)
    return ReceptionCounts(repeated=len(done), left=len(orphans) - len(done))


def _count(uploads: Sequence[Upload], entered: Sequence[Upserted]) -> ReceptionCounts:
    new = [upload.row.state for upload, done in zip(uploads, entered, strict=True) if done.new]
    refused = new.count("quarantined")
    return ReceptionCounts(received=len(new) - refused, repeated=len(uploads) - len(new), quarantined=refused)
