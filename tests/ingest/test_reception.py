import hashlib
from datetime import timedelta

from benchmarks.support.inbox import pending_uploads
from ingest import (
    DeduplicationCounts,
    IngestParams,
    ReceptionCounts,
    deduplicate,
    receive,
    split_into_shards,
)
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.boxes import Box
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """All keys under a prefix."""
    return [found.key for found in store.list(prefix)]


def test_an_upload_becomes_a_frame(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """The frame is stored under the hash of its clean bytes, its row holds the sidecar's values, and the
    inbox is empty.
    """
    exif = scene(1).getexif()
    exif[0x010E] = "taken at 52.1, 4.3"
    data = jpeg(scene(1), exif=exif)
    upload(store, data, sidecar(burst="b1"))
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(received=1)
    (key,) = keys(store)
    stored = store.get(key)
    assert key == f"frames/{hashlib.sha256(stored).hexdigest()}.jpg"
    assert b"52.1" in data
    assert b"52.1" not in stored
    (row,) = frames_in_state(ledger, "received")
    assert (row.key, row.uploaded_sha256) == (key, hashlib.sha256(data).hexdigest())
    assert (row.bin_id, row.burst, row.captured_at, row.reason) == ("bin01", "b1", NOON, "uncertain")
    assert (row.width, row.height, len(row.phash or ""), len(row.descriptor or b"")) == (96, 72, 16, 192)
    assert row.detections == (Box("Drink can", 10, 10, 30, 20, 0.5),)


def test_a_reencoded_frame_is_a_duplicate(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """The same picture at another quality goes to quarantine and names the frame it repeats.

    Other pictures are accepted.
    """
    for number in range(12):
        upload(
            store, jpeg(scene(number)), sidecar(captured_at=(NOON + timedelta(minutes=number)).isoformat())
        )
    upload(store, jpeg(scene(3), quality=70), sidecar(captured_at=(NOON + timedelta(hours=1)).isoformat()))
    assert sum(
        (
            receive(store, ledger, shard, taxonomy, params)
            for shard in split_into_shards(pending_uploads(store), 5)
        ),
        ReceptionCounts(),
    ) == ReceptionCounts(13)
    assert deduplicate(store, ledger, params) == DeduplicationCounts(12, 1)
    (again,) = frames_in_state(ledger, "duplicate")
    assert again.duplicate_of == hashlib.sha256(store.get(f"frames/{again.duplicate_of}.jpg")).hexdigest()
    assert again.key == f"quarantine/duplicate/{again.sha256}.jpg"
    assert keys(store, "quarantine/") == [again.key]
    assert len(keys(store, "frames/")) == 12


def test_an_upload_that_comes_again_changes_nothing(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """A frame that the ledger knows is not entered again.

    If its stored object was lost, the second upload restores it.
    """
    upload(store, jpeg(scene(1)))
    receive(store, ledger, pending_uploads(store), taxonomy, params)
    deduplicate(store, ledger, params)
    (row,) = frames_in_state(ledger, "accepted")
    store.remove(str(row.key))
    upload(store, jpeg(scene(1)), bin_id="bin02", content=sidecar("bin02"))
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(repeated=1)
    assert frames_in_state(ledger, "accepted") == [row]
    assert keys(store) == [row.key]
