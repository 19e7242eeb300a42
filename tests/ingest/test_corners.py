"""The corners of ingest, where nothing may be lost or loop: odd keys, corrections, repeats, two runs."""

import hashlib
import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.support.fault_injection import Fuse, FusedLedger, FusedStore, Killed
from benchmarks.support.memory_store import MemoryStore
from ingest import (
    DecoderPool,
    IngestParams,
    IngestRound,
    admit_uploads,
    deduplicate,
    drain_inbox,
    receive,
    sweep_inbox,
)
from operations.stack import find_free_port, start_s3
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.servers import S3Server
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet import store as store_module
from trashnet.images import UnfitImage, clean_jpeg
from trashnet.ledger import Ledger, LockLostError, open_ledger
from trashnet.ledger.tables import locks
from trashnet.quarantine import QuarantineReason
from trashnet.store import ObjectStore, StoredObject
from trashnet.taxonomy import Taxonomy

PARAMS = IngestParams(decoders=1, threads=2)


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    """One decoding process for all tests."""
    with DecoderPool(PARAMS) as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()


def drain(store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool) -> list[IngestRound]:
    """Ingest all that is there, as the flow does; fails when it does not come to an end."""
    rounds = []
    for done in drain_inbox(
        lambda before: admit_uploads(store, ledger, PARAMS, before),
        lambda keys: receive(store, ledger, keys, taxonomy, PARAMS, decoders=decoders),
        lambda: deduplicate(store, ledger, PARAMS),
    ):
        rounds.append(done)
        assert len(rounds) < 10
    return rounds


def test_a_control_character_in_a_key_hides_no_upload(
    s3_server: S3Server, fresh_bucket: str, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """A real server lists such a key as XML that no parser reads; the listing has it all the same, and ingest
    quarantines it.
    """
    store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    store.ensure_bucket()
    odd = ["inbox/a\x01b.json", "inbox/bin01/x\x1f.json", "inbox/bin01/\x0b/y.json"]
    for key in odd:
        store.put(key, b"{}")
    uploaded = upload(store, jpeg(scene(1)))
    assert {stored.key for stored in store.list("inbox/")} == {
        *odd,
        uploaded,
        uploaded.replace(".json", ".jpg"),
    }
    drain(store, ledger, taxonomy, decoders)
    assert ledger.count_by_state() == {"accepted": 1, "quarantined": 3}
    assert list(store.list("inbox/")) == []


class GhostStore(MemoryStore):
    """Lists a key that it cannot read, and one that no request can name."""

    ghosts = ("inbox/bin01/ghost.json", "inbox/bin01/./x.json")

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """The objects that are there, and the ghosts."""
        listed = [*super().list(prefix, start_after), *(StoredObject(key, 2, NOON) for key in self.ghosts)]
        yield from sorted(listed, key=lambda stored: stored.key)


def test_what_is_listed_and_cannot_be_read_stops_nothing(
    ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """Neither draining nor the sweep loops or fails on it; uploads beside it are taken in."""
    store = GhostStore()
    upload(store, jpeg(scene(1)))
    rounds = drain(store, ledger, taxonomy, decoders)
    assert [done.received.taken for done in rounds] == [1, 0]
    assert ledger.count_by_state() == {"accepted": 1}
    assert admit_uploads(store, ledger, PARAMS).unusable == ("inbox/bin01/./x.json",)
    assert sweep_inbox(store, ledger, PARAMS, NOON + timedelta(days=9)) == 0


def test_a_part_file_beside_an_upload_leaves_it_complete(
    ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """X.jpg.part sorts between X.jpg and X.json: the sweep takes it alone."""
    store = MemoryStore()
    key = upload(store, jpeg(scene(1)))
    store.put(key.replace(".json", ".jpg.part"), b"half")
    assert sweep_inbox(store, ledger, PARAMS, NOON + timedelta(days=9)) == 1
    drain(store, ledger, taxonomy, decoders)
    assert ledger.count_by_state() == {"accepted": 1, "quarantined": 1}


class CorrectingStore(MemoryStore):
    """A bin uploads again, right this time, just after ingest has read what it refuses."""

    def __init__(self, right: bytes) -> None:
        super().__init__()
        self.right: bytes | None = right

    def get_with_etag(self, key: str, limit: int | None = None) -> tuple[bytes, str | None]:
        """Read a picture, then let the bin correct it."""
        found = super().get_with_etag(key, limit)
        if key.endswith(".jpg") and self.right is not None:
            right, self.right = self.right, None
            self.put(key, right)
        return found


@pytest.mark.parametrize("wrong", [b"\xff\xd8 not a picture", None])
def test_a_correction_during_a_refusal_is_taken_in(
    wrong: bytes | None, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """What was examined goes to quarantine; what came meanwhile stays in the inbox and is accepted."""
    right = jpeg(scene(1))
    name = hashlib.sha256(right).hexdigest()
    store = CorrectingStore(right)
    refused = wrong or jpeg(scene(2))
    upload(store, refused, name=name)
    drain(store, ledger, taxonomy, decoders)
    assert ledger.count_by_state() == {"accepted": 1, "quarantined": 1}
    assert list(store.list("inbox/")) == []
    [picture] = [stored.key for stored in store.list("quarantine/wrong-checksum/") if ".jpg" in stored.key]
    assert store.get(picture) == refused


def test_an_orphan_whose_picture_equals_a_cleaned_one_is_known(
    ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """It came with metadata, then as its cleaned bytes; that run died before it removed the sidecar."""
    store, with_metadata = MemoryStore(), jpeg(scene(1), comment=b"a note")
    upload(store, with_metadata)
    drain(store, ledger, taxonomy, decoders)
    clean = clean_jpeg(with_metadata).data
    assert clean != with_metadata
    key = upload(store, clean)
    store.remove(key.replace(".json", ".jpg"))  # the last effect before the death
    drain(store, ledger, taxonomy, decoders)
    assert list(store.list("inbox/")) == []


def test_uploading_a_lost_frame_again_heals_it(
    ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """Its object is back, its row is accepted, and its history tells both."""
    store, picture = MemoryStore(), jpeg(scene(1), comment=b"a note")
    upload(store, picture)
    drain(store, ledger, taxonomy, decoders)
    [stored] = list(store.list("frames/"))
    store.remove(stored.key)
    sha256 = stored.key[len("frames/") : -len(".jpg")]
    ledger.quarantine_missing([sha256])
    assert ledger.count_by_state() == {"quarantined": 1}
    upload(store, picture)
    drain(store, ledger, taxonomy, decoders)
    frame = ledger.frame(sha256)
    assert frame is not None
    assert (frame.state, frame.quarantine_reason) == ("accepted", None)
    assert store.get(stored.key) == clean_jpeg(picture).data


@pytest.mark.parametrize("comment", [b"", b"a note"])
def test_a_frame_that_a_busy_machine_refused_may_come_again(
    comment: bytes, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """A too costly picture is accepted when it decodes at last, whether or not cleaning changes its bytes."""
    picture = jpeg(scene(1), comment=comment) if comment else clean_jpeg(jpeg(scene(1))).data

    class BusyPool(DecoderPool):
        def decode(self, jpeg: bytes):  # type: ignore[no-untyped-def]
            raise UnfitImage(QuarantineReason.TOO_COSTLY, "the machine was busy")

    store = MemoryStore()
    upload(store, picture)
    drain(store, ledger, taxonomy, BusyPool(PARAMS))
    assert ledger.count_by_state() == {"quarantined": 1}
    upload(store, picture)
    drain(store, ledger, taxonomy, decoders)
    assert ledger.count_by_state() == {"accepted": 1}
    frame = ledger.frame_by_upload(hashlib.sha256(picture).hexdigest())
    assert frame is not None
    assert store.get(str(frame.key)) == clean_jpeg(picture).data


def test_two_deduplications_never_run_at_once(
    ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """The second waits until the first has ended, whoever started it."""
    store = MemoryStore()
    upload(store, jpeg(scene(1)))
    keys = [stored.key for stored in store.list("inbox/") if stored.key.endswith(".json")]
    receive(store, ledger, keys, taxonomy, PARAMS, decoders=decoders)
    other = open_ledger(ledger.url)
    with ledger.lock("deduplication"):
        second = threading.Thread(target=deduplicate, args=(store, other, PARAMS))
        second.start()
        second.join(1.5)
        assert second.is_alive()
        assert ledger.count_by_state() == {"received": 1}
    second.join(10)
    other.close()
    assert ledger.count_by_state() == {"accepted": 1}


def test_a_death_between_move_and_verdict_leaves_no_row_without_its_object(
    tmp_path: Path, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """Brightness 0, 5 and 10: neighbours re-encode each other (5 <= 6), the ends do not (10 > 6).

    A run that judges 5 and 10 is killed at each effect; then 0 arrives, captured first, and 5 repeats that.
    """
    dim = np.asarray(scene(1, 320, 240), np.int16)

    def put(store: ObjectStore, brightness: int, minute: int) -> None:
        pixels = np.clip(dim + brightness, 0, 255).astype(np.uint8)
        told = sidecar(captured_at=(NOON + timedelta(minutes=minute)).isoformat())
        upload(store, jpeg(Image.fromarray(pixels), quality=95), told)

    def receive_all(store: ObjectStore, ledger: Ledger) -> None:
        keys = admit_uploads(store, ledger, PARAMS).keys
        receive(store, ledger, keys, taxonomy, PARAMS, decoders=decoders)

    for at in range(40):
        open_ledger(url := f"sqlite:///{tmp_path}/{at}.sqlite").close()
        ledger, store = FusedLedger(url, fuse := Fuse()), MemoryStore()
        put(store, 5, 1)
        put(store, 10, 2)
        receive_all(store, ledger)
        fuse.at, fuse.effects = at, 0
        ended = False
        with suppress(Killed):
            deduplicate(FusedStore(store.objects, fuse), ledger, PARAMS)
            ended = True
        fuse.at = None
        with ledger.transaction() as connection:  # a process that died releases nothing: its lock has expired
            connection.execute(locks.delete())
        put(store, 0, 0)
        receive_all(store, ledger)
        deduplicate(store, ledger, PARAMS)
        rows = frames_in_state(ledger, "received", "accepted", "duplicate")
        assert len(rows) == 3
        for row in rows:
            assert store.stat(str(row.key)) is not None, f"killed at effect {at}: {row.state}, {row.key}"
        ledger.close()
        if ended:
            assert at > 5
            return
    pytest.fail("the run has more effects than this test kills")


@pytest.mark.server
def test_a_key_that_is_not_utf8_ends_no_listing_and_hides_no_upload(
    tmp_path: Path, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server lists such a file with U+FFFD, and after that key the file again, for ever.

    The listing ends, in pages of three and of a thousand, and all that can be read is taken in.
    """
    folder = tmp_path / "s3" / "bins" / "inbox" / "bin01"
    folder.mkdir(parents=True)
    for name in (b"a\x80.json", b"z\xff.json"):  # before and behind U+FFFD, which is EF BF BD
        (folder / os.fsdecode(name)).write_bytes(b"{}")
    server = start_s3(tmp_path / "s3", find_free_port(), "key-of-many", "secret-of-many")
    try:
        store = ObjectStore(server.url, "key-of-many", "secret-of-many", "bins", "us-east-1")
        uploaded = {upload(store, jpeg(scene(number))) for number in range(3)}
        uploaded.add(upload(store, jpeg(scene(4)), sidecar("zz"), bin_id="zz"))
        for page_size in (3, 1000):
            monkeypatch.setattr(store_module, "PAGE_SIZE", page_size)
            listed = [stored.key for stored in islice(store.list("inbox/"), 50)]
            assert len(listed) == 2 * 4 + 2
            assert uploaded <= set(listed)
        assert drain(store, ledger, taxonomy, decoders)[0].received.received == 4
        assert len(list(islice(store.list("inbox/"), 50))) == 2
    finally:
        server.stop()


def test_verdicts_of_a_run_that_lost_its_lock_are_not_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that slept too long finds that another took over."""
    monkeypatch.setattr("trashnet.ledger.locks.LOCK_SECONDS", 0.0)
    with ledger.lock("deduplication") as slept, ledger.lock("deduplication") as awake:
        with pytest.raises(LockLostError, match="another process's now"):
            ledger.record_verdicts({}, slept)
        assert ledger.record_verdicts({}, awake) == 0


@pytest.mark.parametrize(
    "filler",
    [
        b"\xff\xd0" * (4 << 20),
        b"\xff" * (8 << 20),
        b"\xff\xfe\x00\x02" * (2 << 20),
        b"\xff\xdb\x00\x02" * (2 << 20),
    ],
    ids=["restart markers", "fill bytes", "empty comments", "empty tables"],
)
def test_eight_megabytes_of_markers_cost_little_memory(filler: bytes) -> None:
    """The process that holds the credentials walks the markers: it keeps no object for each of millions."""
    data = jpeg(scene(1))
    flooded = data[:2] + filler + data[2:]
    tracemalloc.start()
    try:
        with suppress(UnfitImage):
            clean_jpeg(flooded)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(filler)
    finally:
        tracemalloc.stop()


def test_a_decoder_s_clock_starts_when_it_is_ready() -> None:
    """Loading libraries takes longer than a picture may: that is not the picture's fault."""
    with DecoderPool(PARAMS.model_copy(update={"decode_wall_seconds": 0.6})) as pool:
        assert pool.decode(clean_jpeg(jpeg(scene(1))).data).width == 96


def test_a_picture_that_failed_is_tried_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is, no other picture is decoded: a busy machine does not refuse good frames."""
    from ingest import decoders as module

    running, alone, lock = [], [], threading.Lock()
    original = module._DecoderProcess.decode

    def decode(self: object, data: bytes) -> object:
        with lock:
            running.append(data)
            if data == second_try[0]:
                alone.append(len(running))
        try:
            if data == costly and not second_try[0]:
                second_try[0] = data
                raise module.DecoderDied("too slow, the machine is busy")
            return original(self, data)  # type: ignore[arg-type]
        finally:
            with lock:
                running.remove(data)

    monkeypatch.setattr(module._DecoderProcess, "decode", decode)
    second_try: list[bytes] = [b""]
    costly, *others = [clean_jpeg(jpeg(scene(number))).data for number in range(12)]
    with DecoderPool(PARAMS.model_copy(update={"decoders": 3})) as pool:
        threads = [
            threading.Thread(target=pool.decode, args=(data,)) for data in [*others[:6], costly, *others[6:]]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert alone == [1]
