"""Seconds from a finished upload to its row in the ledger, by event: `python benchmarks/upload.py [--uploads
20]`.

A real S3 server that cannot notify, so that the event gateway watches it, and a real Prefect server with one
worker are started here; uploads come one at a time, at random moments, so that each is a run of its own
unless two fall together. It also prints where the seconds go: Prefect keeps the time of each event and of
each state of a run.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import httpx
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
# What happens between an upload and its row: each stage ends with the moment that it is named after.
STAGES = ("event emitted", "run scheduled", "taken by the worker", "flow started", "in the ledger")


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


def stage_seconds(api: str, uploaded: list[float], entered: list[float]) -> list[list[float]]:
    """Seconds of each stage, for the uploads that a run of their own brought in; times are UNIX times."""
    with httpx.Client(base_url=api, trust_env=False) as client:

        def ask(path: str, **body: Any) -> Any:
            return client.post(path, json=body).raise_for_status().json()

        arrived = {"filter": {"event": {"name": ["trashnet.inbox.arrived"]}}, "limit": 50}
        events = sorted(_unix(event["occurred"]) for event in ask("/events/filter", **arrived)["events"])
        runs = []
        for run in ask("/flow_runs/filter", deployments={"name": {"any_": ["ingest"]}}):
            states = client.get("/flow_run_states/", params={"flow_run_id": run["id"]}).raise_for_status()
            times = {state["type"]: _unix(state["timestamp"]) for state in reversed(states.json())}
            if {"SCHEDULED", "PENDING", "RUNNING"} <= times.keys():
                runs.append((times["SCHEDULED"], times["PENDING"], times["RUNNING"]))
    stages = []
    for begin, end in zip(uploaded, entered, strict=True):
        emitted = [moment for moment in events if begin <= moment <= end]
        own = sorted(run for run in runs if emitted and emitted[0] <= run[0] and run[2] <= end)
        if own:  # else a run that was under way already took it
            moments = (begin, emitted[0], *own[0], end)
            stages.append([later - earlier for earlier, later in pairwise(moments)])
    return stages


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


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
        uploaded, entered = list[float](), list[float]()
        waiting, random_, number = dict[str, float](), random.Random(0), 0
        due = time.time()
        try:
            while number < asked.uploads or waiting:
                now = time.time()
                if number < asked.uploads and now >= due:
                    waiting[upload(store, number)] = time.time()
                    number, due = number + 1, now + random_.uniform(0, LONGEST_PAUSE)
                for sha in ledger.known_uploads(waiting):
                    uploaded.append(waiting.pop(sha))
                    entered.append(time.time())
                if late := [sha for sha, began in waiting.items() if now - began > PATIENCE]:
                    raise SystemExit(f"{len(late)} uploads are not in the ledger after {PATIENCE:.0f} s")
                time.sleep(0.1)
            stages = stage_seconds(f"{servers[1].url}/api", uploaded, entered)
        finally:
            ledger.close()
            for server in reversed(servers):
                server.stop()
    seconds = [end - begin for begin, end in zip(uploaded, entered, strict=True)]
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    print(
        f"upload to ledger, {len(seconds)} uploads: p50 {p50:.1f} s, p95 {p95:.1f} s, longest "
        f"{max(seconds):.1f} s"
    )
    print(f"where the seconds go ({len(stages)} uploads that had a run of their own):")
    for name, values in zip(STAGES, zip(*stages, strict=True), strict=False):
        print(f"  until {name:<20} median {statistics.median(values):4.1f} s, longest {max(values):4.1f} s")


if __name__ == "__main__":
    main()
