"""Ingest against the bare get and put it can't do without."""

import hashlib
import io
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.support.inbox import pending_uploads
from ingest import IngestParams, deduplicate, receive
from operations.stack import find_free_port, start_s3
from trashnet.ledger import open_ledger
from trashnet.params import load_params
from trashnet.store import ObjectStore
from trashnet.taxonomy import load_taxonomy

ROOT = Path(__file__).parent.parent
FRAMES = 1000
PARAMS = load_params("ingest", IngestParams, ROOT / "params.yaml")
TAXONOMY = load_taxonomy(ROOT / "taxonomy.yaml")
START = datetime(2026, 11, 1, tzinfo=UTC)


def picture(number: int) -> bytes:
    """A frame of 640 x 480 and about 60 KB: coarse blocks, so that hashes are far apart, under a camera's
    noise.
    """
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(blocks, np.int16) + rng.normal(0, 7, (480, 640, 1)).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def upload(store: ObjectStore, first: int, count: int) -> int:
    """Frames and sidecars as bins send them; the frames' bytes in all."""

    def one(number: int) -> int:
        data, captured = picture(number), START + timedelta(seconds=10 * number)
        bin_id = f"bin{number % 20:02d}"
        stem = f"inbox/{bin_id}/{captured:%Y-%m-%d}/{hashlib.sha256(data).hexdigest()}"
        box = {"label": "Drink can", "score": 0.5, "box": [10, 10, 80, 60]}
        content = {
            "bin_id": bin_id,
            "captured_at": captured.isoformat(),
            "release": None,
            "detections": [box],
            "burst": str(number // 60),
        }
        store.put(f"{stem}.jpg", data)
        store.put(f"{stem}.json", json.dumps(content).encode())
        return len(data)

    with ThreadPoolExecutor(PARAMS.threads) as threads:
        return sum(threads.map(one, range(first, first + count)))


def bare(store: ObjectStore) -> float:
    """Seconds to get and put every frame with the same threads: what no ingest can do without."""
    keys = [key.replace(".json", ".jpg") for key in pending_uploads(store)]
    start = time.perf_counter()
    with ThreadPoolExecutor(PARAMS.threads) as threads:
        list(threads.map(lambda key: store.put(f"bare/{key}", store.get(key)), keys))
    return time.perf_counter() - start


@contextmanager
def bench_store(folder: Path) -> Iterator[ObjectStore]:
    """A real S3 server with an empty bucket."""
    access, secret = secrets.token_hex(8), secrets.token_hex(16)
    server = start_s3(folder / "s3", find_free_port(), access, secret)
    try:
        store = ObjectStore(server.url, access, secret, "bench", "us-east-1")
        store.ensure_bucket()
        yield store
    finally:
        server.stop()


def throughput(folder: Path) -> None:
    """Frames per second from inbox to ledger."""
    with bench_store(folder) as store:
        ledger = open_ledger(f"sqlite:///{folder}/throughput.sqlite")
        size = upload(store, 0, FRAMES) / FRAMES
        without = bare(store)
        keys = pending_uploads(store)
        start = time.perf_counter()
        done = receive(store, ledger, keys, TAXONOMY, PARAMS)
        received = time.perf_counter() - start
        assert done.received == FRAMES, done
        start = time.perf_counter()
        deduplicated = deduplicate(store, ledger, PARAMS)
        settling = time.perf_counter() - start
        assert deduplicated.accepted == FRAMES, deduplicated
        ledger.close()
    print(f"{FRAMES} frames of {size / 1000:.0f} KB, {PARAMS.threads} threads")
    print(f"  bare get and put {FRAMES / without:7.0f} frames/s")
    print(
        f"  receive          {FRAMES / received:7.0f} frames/s  {received / without:.1f}x the bare loop's "
        "time"
    )
    print(f"  deduplicate           {FRAMES / settling:7.0f} frames/s")


def main() -> None:
    """Measure on a real S3 server in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="bench-ingest-"))
    try:
        throughput(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
