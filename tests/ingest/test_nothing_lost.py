"""No frame is lost or entered twice: the ledger and the store reach the same final state, whichever process
dies and whichever events arrive.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.support.fault_injection import Fuse, FusedLedger, FusedStore, Killed
from benchmarks.support.inbox import pending_uploads
from benchmarks.support.memory_store import MemoryStore
from ingest import (
    DecoderPool,
    IngestParams,
    deduplicate,
    receive,
    split_into_shards,
    sweep_inbox,
)
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.servers import S3Server
from tests.trashnet.ledger.inspection import frames_in_state, history
from trashnet.ledger import Ledger, open_ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

PARAMS = IngestParams(threads=1, decoders=1, batch_size=3)
LATER = NOON + timedelta(days=30)
VOLATILE = {"received_at", "changed_at"}


@pytest.fixture(autouse=True)
def short_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock whose holder died is free after a moment instead of a minute."""
    monkeypatch.setattr("trashnet.ledger.locks.LOCK_SECONDS", 0.4)
    monkeypatch.setattr("trashnet.ledger.locks.POLL_SECONDS", 0.05)


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    """Decoding processes for all these runs."""
    with DecoderPool(PARAMS) as running:
        yield running


def fill(store: ObjectStore) -> None:
    """An inbox with everything: frames, a re-encode, a burst, repeats, other metadata, refused frames and
    sidecars, halves.
    """
    for number in range(5):
        upload(
            store,
            jpeg(scene(number)),
            sidecar(captured_at=(NOON + timedelta(minutes=number)).isoformat(), burst=f"b{number // 2}"),
        )
    upload(store, jpeg(scene(1), quality=60), sidecar(captured_at=(NOON + timedelta(hours=1)).isoformat()))
    upload(store, jpeg(scene(2)), sidecar("bin02"), bin_id="bin02")
    upload(
        store, jpeg(scene(3), comment=b"hello"), sidecar(captured_at=(NOON + timedelta(hours=2)).isoformat())
    )
    upload(store, jpeg(scene(4))[:500])
    upload(store, jpeg(scene(6)), b"{}")
    upload(store, jpeg(scene(7)), name="0" * 64)
    upload(store, b"<html>404</html>")
    store.put("inbox/bin01/2026-11-20/readme.txt", b"hello")
    store.put(f"inbox/bin01/2026-11-20/{'1' * 64}.jpg", b"no sidecar")
    store.put(f"inbox/bin01/2026-11-20/{'2' * 64}.json", b"no picture")


def run_ingest(store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool) -> None:
    """What the ingest flow does when an event arrives."""
    for shard in split_into_shards(pending_uploads(store), 4):
        receive(store, ledger, shard, taxonomy, PARAMS, decoders=decoders)
    deduplicate(store, ledger, PARAMS)
    sweep_inbox(store, ledger, PARAMS, LATER)


def final_state(store: ObjectStore, ledger: Ledger) -> tuple[dict[str, Any], dict[str, bytes]]:
    """All rows without the times of writing, and all objects."""
    states = ("received", "accepted", "duplicate", "quarantined")
    rows = {
        row.sha256: {k: v for k, v in asdict(row).items() if k not in VOLATILE}
        for row in frames_in_state(ledger, *states)
    }
    for sha256 in rows:
        assert len({step[1] for step in history(ledger, sha256)}) == len(history(ledger, sha256)), (
            "a transition was made twice"
        )
    return rows, {found.key: store.get(found.key) for found in store.list("")}


def test_shards_and_their_order_change_nothing(
    tmp_path: Path, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """Uploads one at a time, in reverse order, or all at once give the same frames in the same states."""
    ends = []
    for number, (size, step) in enumerate([(1, 1), (1, -1), (3, -1), (100, 1)]):
        fill(store := MemoryStore())
        ledger = open_ledger(f"sqlite:///{tmp_path}/shards{number}.sqlite")
        for shard in split_into_shards(pending_uploads(store), size)[::step]:
            receive(store, ledger, shard[::step], taxonomy, PARAMS, decoders=decoders)
        deduplicate(store, ledger, PARAMS)
        rows, objects = final_state(store, ledger)
        ends.append(
            (
                {sha256: row | {"uploaded_sha256": ""} for sha256, row in rows.items() if row["key"]},
                sorted(objects),
            )
        )
        ledger.close()
    assert all(end == ends[0] for end in ends)


SCENES = [
    (0, 90),
    (1, 90),
    (0, 70),
    (2, 90),
    (1, 60),
    (3, 90),
]  # which picture, at which quality, in the order of capture


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 2), st.booleans(), st.none() | st.integers(0, 25)), min_size=12, max_size=12
    )
)
def test_events_may_be_dropped_doubled_and_reordered(
    events: list[tuple[int, bool, int | None]],
    tmp_path_factory: pytest.TempPathFactory,
    taxonomy: Taxonomy,
    decoders: DecoderPool,
) -> None:
    """After every object none, one or two events arrive; some runs use an old list of keys, some are killed.

    A last, undisturbed run follows.
    """
    folder = tmp_path_factory.mktemp("events")
    calm, noisy, old = MemoryStore(), MemoryStore(), list[str]()
    ledgers = [open_ledger(f"sqlite:///{folder}/{name}.sqlite") for name in ("calm", "noisy")]
    for number, (picture, quality) in enumerate(SCENES):
        settings_ = sidecar(captured_at=(NOON + timedelta(minutes=number)).isoformat())
        data, arrived = jpeg(scene(picture), quality=quality), MemoryStore()
        upload(calm, data, settings_)
        upload(arrived, data, settings_)
        for (key, (content, _)), (times, late, killed) in zip(
            arrived.objects.items(), events[2 * number :][:2], strict=True
        ):
            noisy.put(key, content)
            for _ in range(times):
                keys, old = (old if late else pending_uploads(noisy)), pending_uploads(noisy)
                fused = FusedLedger(ledgers[1].url, fuse := Fuse(killed))
                with suppress(Killed):
                    receive(
                        store := FusedStore(noisy.objects, fuse),
                        fused,
                        keys,
                        taxonomy,
                        PARAMS,
                        decoders=decoders,
                    )
                    deduplicate(store, fused, PARAMS)
                fused.close()
    ends = []
    for store, ledger in ((calm, ledgers[0]), (noisy, ledgers[1])):
        run_ingest(store, ledger, taxonomy, decoders)
        ends.append(final_state(store, ledger))
        ledger.close()
    assert ends[0] == ends[1]


class FusedS3(ObjectStore):
    """The real store, whose writes may be the last thing a process does."""

    fuse = Fuse()

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write, unless dead."""
        self.fuse.burn()
        super().put(key, data, content_type)

    def copy(self, source: str, target: str) -> None:
        """Copy, unless dead."""
        self.fuse.burn()
        super().copy(source, target)

    def remove(self, key: str) -> None:
        """Remove, unless dead."""
        self.fuse.burn()
        super().remove(key)

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove what one request removes, unless dead."""
        self.fuse.burn()
        super().remove_all(keys)


def run_on(
    server: S3Server, bucket: str, url: str, at: int | None, taxonomy: Taxonomy, decoders: DecoderPool
) -> tuple[Any, int]:
    """Ingest three uploads on a real store, die before effect ``at`` (``None``: never), and run again.

    Returns:
        The final state, and the number of effects of the first run.
    """
    store = FusedS3(server.url, server.access_key, server.secret_key, bucket, "us-east-1")
    store.ensure_bucket()
    upload(store, jpeg(scene(1)))
    upload(store, jpeg(scene(1), quality=60), sidecar(captured_at=(NOON + timedelta(hours=1)).isoformat()))
    upload(store, jpeg(scene(2)), b"{}")
    open_ledger(url).close()
    store.fuse = fuse = Fuse(at)
    fused = FusedLedger(url, fuse)
    with suppress(Killed):
        run_ingest(store, fused, taxonomy, decoders)
    assert (fuse.effects == at) or at is None
    effects, fuse.at = fuse.effects, None
    run_ingest(store, fused, taxonomy, decoders)
    result = final_state(store, fused)
    fused.close()
    return result, effects


def test_a_process_may_die_at_any_effect_on_a_real_store(
    tmp_path: Path, s3_server: S3Server, fresh_bucket: str, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """On a real S3 server a run with a frame, its re-encoded copy and a refused upload is killed before each
    effect, and run again.
    """
    expected, effects = run_on(
        s3_server, f"{fresh_bucket}-calm", f"sqlite:///{tmp_path}/calm.sqlite", None, taxonomy, decoders
    )
    assert effects > 15
    for at in range(effects):
        result, _ = run_on(
            s3_server, f"{fresh_bucket}-{at}", f"sqlite:///{tmp_path}/{at}.sqlite", at, taxonomy, decoders
        )
        assert result == expected, f"killed at effect {at}"


def undisturbed(
    folder: Path, taxonomy: Taxonomy, decoders: DecoderPool
) -> tuple[tuple[dict[str, Any], dict[str, bytes]], int]:
    """The final state of a run that nothing disturbs, and its number of effects."""
    fuse, objects = Fuse(), MemoryStore()
    fill(objects)
    open_ledger(url := f"sqlite:///{folder}/calm.sqlite").close()
    ledger = FusedLedger(url, fuse)
    run_ingest(store := FusedStore(objects.objects, fuse), ledger, taxonomy, decoders)
    effects = fuse.effects
    result = final_state(store, ledger)
    ledger.close()
    return result, effects


def test_the_undisturbed_run_reaches_the_expected_state(
    tmp_path: Path, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """The other tests compare with this state: 5 frames accepted, 2 duplicates, 7 uploads in quarantine, and
    an empty inbox.
    """
    (rows, objects), _ = undisturbed(tmp_path, taxonomy, decoders)
    states = [row["state"] for row in rows.values()]
    assert [states.count(state) for state in ("received", "accepted", "duplicate", "quarantined")] == [
        0,
        5,
        2,
        7,
    ]
    reasons = sorted(row["quarantine_reason"] for row in rows.values() if row["state"] == "quarantined")
    assert reasons == [
        "bad-sidecar",
        "broken-image",
        "incomplete",
        "incomplete",
        "not-an-image",
        "stray",
        "wrong-checksum",
    ]
    assert not [key for key in objects if key.startswith("inbox/")]
    assert len([key for key in objects if key.startswith("frames/")]) == 5
    assert {row["key"] for row in rows.values() if row["key"]} <= set(objects)


def test_a_process_may_die_at_any_effect(tmp_path: Path, taxonomy: Taxonomy, decoders: DecoderPool) -> None:
    """A run is killed before each of its effects and run again; the rows and objects are the same."""
    expected, effects = undisturbed(tmp_path, taxonomy, decoders)
    assert effects > 60
    for at in range(effects):
        store, url = MemoryStore(), f"sqlite:///{tmp_path}/killed{at}.sqlite"
        fill(store)
        ledger = open_ledger(url)
        fused = FusedLedger(url, fuse := Fuse(at))
        with pytest.raises(Killed):
            run_ingest(FusedStore(store.objects, fuse), fused, taxonomy, decoders)
        fused.close()
        run_ingest(store, ledger, taxonomy, decoders)
        assert final_state(store, ledger) == expected, f"killed at effect {at}"
        ledger.close()
