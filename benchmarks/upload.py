"""Seconds from a finished upload to its row in the ledger, by event: `python benchmarks/upload.py [--uploads
20]`.

A real S3 server that cannot notify, so that the event gateway watches it, and a real Prefect server with one
worker are started here; uploads come one at a time, at random moments, so that each is a run of its own
unless two fall together.
"""

import argparse
import hashlib
import json
import os
import random
import secrets
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from operations.setup import deploy_flows
from operations.stack import (
    find_free_port,
    prefect_environment,
    start_gateway,
    start_prefect,
    start_s3,
    start_worker,
)
from trashnet.ledger import open_ledger
from trashnet.settings import load_settings
from trashnet.store import ObjectStore, open_store

LONGEST_PAUSE = 15.0  # seconds between two uploads, 0 the shortest
PATIENCE = 180.0  # seconds until an upload counts as lost


def upload(store: ObjectStore, number: int) -> str:
    noise = np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC))[1].tobytes()
    sha = hashlib.sha256(jpeg).hexdigest()
    sidecar = {
        "bin_id": "bench",
        "captured_at": datetime.now(UTC).isoformat(),
        "release": None,
        "detections": [],
        "reason": "bench",
    }
    store.put(f"inbox/bench/2026-01-01/{sha}.jpg", jpeg)
    store.put(f"inbox/bench/2026-01-01/{sha}.json", json.dumps(sidecar).encode())
    return sha


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, port, key, secret = Path(name), find_free_port(), secrets.token_hex(8), secrets.token_hex(16)
        servers = [
            start_s3(folder / "s3", find_free_port(), key, secret),
            start_prefect(folder / "prefect", find_free_port()),
        ]
        ours = {
            "TRASHNET_S3_ENDPOINT": servers[0].url,
            "TRASHNET_S3_ACCESS_KEY": key,
            "TRASHNET_S3_SECRET_KEY": secret,
            "TRASHNET_LEDGER_URL": f"sqlite:///{folder}/ledger.sqlite",
            # Not needed until labels are requested, which fails here.
            "TRASHNET_LABEL_STUDIO_URL": "http://127.0.0.1:1",
            "TRASHNET_LABEL_STUDIO_TOKEN": "none",
            "TRASHNET_CLONE": str(folder / "clone"),
            "TRASHNET_GATEWAY_URL": f"http://127.0.0.1:{port}",
            "TRASHNET_GATEWAY_SECRET": secrets.token_hex(16),
        }
        os.environ |= ours | prefect_environment(folder / "prefect", servers[1].url)
        settings = load_settings()
        store, ledger = open_store(settings), open_ledger(settings.ledger_url)
        store.ensure_bucket()
        deploy_flows()
        servers.append(start_worker(folder / "prefect", servers[1].url, ours))
        servers.append(start_gateway(folder / "prefect", port, servers[1].url, ours))
        seconds, waiting, random_, number = [], dict[str, float](), random.Random(0), 0
        due = time.monotonic()
        try:
            while number < asked.uploads or waiting:
                now = time.monotonic()
                if number < asked.uploads and now >= due:
                    waiting[upload(store, number)] = time.monotonic()
                    number, due = number + 1, now + random_.uniform(0, LONGEST_PAUSE)
                for sha in ledger.known_uploads(waiting):
                    seconds.append(time.monotonic() - waiting.pop(sha))
                if late := [sha for sha, began in waiting.items() if now - began > PATIENCE]:
                    raise SystemExit(f"{len(late)} uploads are not in the ledger after {PATIENCE:.0f} s")
                time.sleep(0.1)
        finally:
            ledger.close()
            for server in reversed(servers):
                server.stop()
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    print(
        f"upload to ledger, {len(seconds)} uploads: p50 {p50:.1f} s, p95 {p95:.1f} s, longest "
        f"{max(seconds):.1f} s"
    )


if __name__ == "__main__":
    main()
