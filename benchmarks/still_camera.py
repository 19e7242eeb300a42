"""What deduplication costs a still camera: `python benchmarks/still_camera.py [frames ...]`.

All its frames have one perceptual hash and differ by their colours, so that each is accepted, and is a
candidate for every later one. A plain comparison with all of them is timed beside it.
"""

import hashlib
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from benchmarks.support.memory_store import MemoryStore
from ingest import IngestParams, deduplicate
from trashnet.ledger import FrameRow, State, open_ledger

SIZES = [int(n) for n in sys.argv[1:]] or [1_000, 20_000]
NEW = 500
START = datetime(2026, 1, 1, tzinfo=UTC)


def frame(number: int, state: State) -> FrameRow:
    """A frame of that camera, a second after the one before."""
    sha256 = hashlib.sha256(b"%d" % number).hexdigest()
    return FrameRow(
        sha256=sha256,
        uploaded_sha256=sha256,
        state=state,
        inbox_key="inbox/still/x.json",
        key=f"frames/{sha256}.jpg",
        bin_id="still",
        captured_at=START + timedelta(seconds=number),
        phash="0123456789abcdef",
        descriptor=np.random.default_rng(number).integers(0, 256, 192, np.uint8).tobytes(),
    )


def compare_with_all(frames: list[FrameRow], count: int) -> float:
    """Seconds a frame that a comparison with every frame before takes, without a ledger."""
    cells = np.array([np.frombuffer(row.descriptor or b"", np.uint8) for row in frames], np.int16)
    start = time.process_time()
    for row in frames[-count:]:
        (np.abs(cells - np.frombuffer(row.descriptor or b"", np.uint8)).max(axis=1) <= 6).any()
    return (time.process_time() - start) / count


def main() -> None:
    """Fill a ledger with frames of the camera, and time the next ones."""
    known: list[FrameRow] = []
    with tempfile.TemporaryDirectory(prefix="bench-still-") as folder:
        ledger = open_ledger(f"sqlite:///{folder}/ledger.sqlite")
        for size in SIZES:
            while len(known) < size:
                batch = [
                    frame(number, "accepted") for number in range(len(known), min(size, len(known) + 5000))
                ]
                ledger.upsert_uploads(batch)
                known += batch
            new = [frame(number, "received") for number in range(len(known), len(known) + NEW)]
            ledger.upsert_uploads(new)
            known += new
            start = time.process_time()
            done = deduplicate(MemoryStore(), ledger, IngestParams())
            seconds = (time.process_time() - start) / NEW
            assert done.accepted == NEW, done
            plain = compare_with_all(known, 20)
            ours, all_of_them = 1000 * seconds, 1000 * plain
            print(f"{size:>9,} frames: {ours:5.2f} ms a frame, compared with all {all_of_them:6.2f} ms")
        ledger.close()


if __name__ == "__main__":
    main()
