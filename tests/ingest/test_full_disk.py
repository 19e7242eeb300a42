"""An S3 server whose disk is full gives one clear error, no frame is lost, and the next run succeeds."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.support.inbox import pending_uploads
from ingest import DecoderPool, IngestParams, deduplicate, receive
from operations.stack import find_free_port, servers, start_s3
from tests.full_disk import on_a_small_disk
from tests.ingest.uploads import jpeg, scene, upload
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.errors import UserError
from trashnet.ledger import open_ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

PARAMS = IngestParams(threads=2, decoders=1, batch_size=2)
KEY, SECRET = "full-disk", "a-secret-of-the-tests"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A bucket on a server whose disk holds half a megabyte."""
    program = on_a_small_disk(tmp_path / "rclone", [servers.find_rclone()], size="512k")
    monkeypatch.setattr(servers, "find_rclone", lambda: program)
    server = start_s3(tmp_path / "disk", find_free_port(), KEY, SECRET)
    store = ObjectStore(server.url, KEY, SECRET, "bins", "us-east-1")
    store.ensure_bucket()
    yield store
    server.stop()


@pytest.mark.server
def test_a_store_with_a_full_disk_loses_no_frame(
    store: ObjectStore, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """Frames stay in the inbox, and none is entered without its object.

    When there is room again, all are accepted with their full bytes.
    """
    for number in range(3):
        upload(store, jpeg(scene(number, 320, 240)))
    ballast = 0
    with pytest.raises(UserError):
        while True:
            store.put(f"ballast/{ballast}", bytes(32_000))
            ballast += 1
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    with DecoderPool(PARAMS) as decoders:
        with pytest.raises(UserError, match="S3"):
            receive(store, ledger, pending_uploads(store), taxonomy, PARAMS, decoders=decoders)
        assert len(pending_uploads(store)) == 3
        for row in frames_in_state(ledger, "received", "accepted"):
            assert row.key is not None
            assert hashlib.sha256(store.get(row.key)).hexdigest() == row.sha256
        for number in range(ballast + 1):
            store.remove(f"ballast/{number}")
        receive(store, ledger, pending_uploads(store), taxonomy, PARAMS, decoders=decoders)
    assert deduplicate(store, ledger, PARAMS).accepted == 3
    for row in frames_in_state(ledger, "accepted"):
        assert hashlib.sha256(store.get(row.key or "")).hexdigest() == row.sha256
    assert not pending_uploads(store)
    ledger.close()
