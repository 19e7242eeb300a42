"""Which frames are re-encodes of which, and what that costs a camera whose picture never changes."""

import io
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.support.memory_store import MemoryStore
from ingest import DeduplicationCounts, IngestParams, deduplicate
from ingest import deduplication as deduplication_module
from ingest.decoder_process import describe
from ingest.object_keys import frame_key
from synthetic import draw_scene
from tests.ingest.uploads import NOON, jpeg, scene
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.images import perceptual_hash
from trashnet.ledger import FrameRow, Ledger, open_ledger
from trashnet.quarantine import QuarantineReason
from trashnet.taxonomy import Taxonomy

PARAMS = IngestParams(reencode_candidates=2)


def receive_frame(
    store: MemoryStore,
    ledger: Ledger,
    number: int,
    *,
    seconds: int,
    grey: int,
    phash: int = 7,
    bin_id: str = "a",
) -> None:
    """A frame of one colour, received and not yet judged; seconds count from noon."""
    sha256 = f"{number:064x}"
    store.put(frame_key(sha256), b"")
    row = FrameRow(
        sha256=sha256,
        uploaded_sha256=sha256,
        state="received",
        inbox_key=f"inbox/{bin_id}/{number}.json",
        key=frame_key(sha256),
        bin_id=bin_id,
        captured_at=NOON + timedelta(seconds=seconds),
        phash=f"{phash:016x}",
        descriptor=bytes([grey]) * 192,
    )
    assert ledger.add(row)


def test_a_re_encode_is_sought_among_frames_of_the_same_bin(ledger: Ledger) -> None:
    """Frames 0 and 1 are one scene of bin a; bin b, which looks the same, has a scene of its own."""
    store = MemoryStore()
    receive_frame(store, ledger, 0, seconds=0, grey=100)
    receive_frame(store, ledger, 1, seconds=9, grey=100)
    receive_frame(store, ledger, 2, seconds=5, grey=100, bin_id="b")
    assert deduplicate(store, ledger, PARAMS) == DeduplicationCounts(accepted=2, duplicates=1)
    [duplicate] = frames_in_state(ledger, "duplicate")
    assert (int(duplicate.sha256, 16), int(str(duplicate.duplicate_of), 16)) == (1, 0)


def test_a_frame_that_arrives_late_is_compared_with_those_captured_after_it(ledger: Ledger) -> None:
    """The bin's spool sends the first capture last: it is the duplicate, because the other is known."""
    store = MemoryStore()
    receive_frame(store, ledger, 1, seconds=60, grey=100)
    deduplicate(store, ledger, PARAMS)
    receive_frame(store, ledger, 0, seconds=0, grey=100)
    assert deduplicate(store, ledger, PARAMS) == DeduplicationCounts(duplicates=1)


def test_a_still_camera_costs_the_same_for_its_last_frame_as_for_its_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame differs from the others by colour, so all are accepted and all have one hash.

    Each is compared with 2 before and 2 after it of each band, and here all bands name the same ones.
    """
    store, rows_read = MemoryStore(), list[int]()
    for number in range(60):
        receive_frame(store, ledger, number, seconds=number, grey=10 * (number % 25))

    near = ledger.fingerprints_near

    def counted(received: Any, limit: int) -> Any:
        found = near(received, limit)
        rows_read.extend(map(len, found))
        return found

    monkeypatch.setattr(ledger, "fingerprints_near", counted)
    deduplicate(store, ledger, PARAMS)
    for number in range(60, 120):
        receive_frame(store, ledger, number, seconds=number, grey=10 * (number % 25))
    deduplicate(store, ledger, PARAMS)
    assert rows_read[:60] == [0] * 60
    assert set(rows_read[60:]) == {2}
    assert ledger.count_by_state() == {"accepted": 120}


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(
        st.tuples(
            st.integers(0, 20), st.sampled_from([50, 54, 60, 90]), st.sampled_from([7, 6, 15, 1 << 40])
        ),
        min_size=2,
        max_size=25,
    )
)
def test_a_verdict_does_not_depend_on_which_frames_come_in_one_batch(
    frames: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Judged one by one, three at a time or all at once: the same frames are accepted."""
    ends = list[list[str]]()
    for size in (1, 3, 256):
        ledger = open_ledger("sqlite://")
        store = MemoryStore()
        for number, (seconds, grey, phash) in enumerate(frames):
            receive_frame(store, ledger, number, seconds=seconds, grey=grey, phash=phash)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deduplication_module, "BATCH_SIZE", size)
            deduplicate(store, ledger, PARAMS)
        ends.append(sorted(row.sha256 for row in frames_in_state(ledger, "accepted")))
        ledger.close()
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize("side", [120, 383, 384, 640, 1600])
def test_a_large_picture_has_the_hash_and_colours_of_the_whole_one(side: int, taxonomy: Taxonomy) -> None:
    """It is decoded at a part of its size: within 2 bits of 64 and 6 levels of 255."""
    for seed in range(5):
        scene, _, _ = draw_scene(np.random.default_rng([8, seed]), [5, 12, 7], 320, taxonomy)
        data = jpeg(Image.fromarray(scene).resize((side * 4 // 3, side), Image.Resampling.BICUBIC))
        image = Image.open(io.BytesIO(data))
        seen = describe(data, 16, 50_000_000)
        assert (seen["width"], seen["height"]) == (side * 4 // 3, side)
        assert (int(seen["phash"], 16) ^ perceptual_hash(image)).bit_count() <= 2
        cells = np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.int16).ravel()
        seen_cells = np.frombuffer(bytes.fromhex(seen["descriptor"]), np.uint8)
        assert np.abs(cells - seen_cells).max() <= 6


@pytest.mark.parametrize("part", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_picture_that_breaks_off_is_found_broken(part: float, progressive: bool) -> None:
    """All coded data is read, at whatever size it is decoded."""
    whole = jpeg(scene(3, 1600, 1200), progressive=progressive)
    assert "fault" not in describe(whole, 16, 50_000_000)
    cut = whole[: int(len(whole) * part)]
    assert describe(cut, 16, 50_000_000)["fault"] == QuarantineReason.BROKEN
