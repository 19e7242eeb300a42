"""Seconds from a finished upload to its row in the ledger, by event: `python benchmarks/upload.py [--uploads
20]`.

A real S3 server that cannot notify, so that the event gateway watches it, and a real Prefect server with one
worker are started here; uploads come one at a time, at random moments. A run that has drained the inbox stays
for a while (`ingest.linger_seconds`), so only uploads after a longer pause wait for a run of their own. It
also prints where those spend their seconds: Prefect keeps the time of each event and of each state of a run.
"""

import argparse
import hashlib
import json
import random
import statistics
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import cv2
import httpx
import numpy as np

from benchmarks.support.event_stack import event_stack
from trashnet.store import ObjectStore

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
    uploaded, entered = list[float](), list[float]()
    waiting, random_, number = dict[str, float](), random.Random(0), 0
    with event_stack() as stack:
        stack.start_flows()
        due = time.time()
        while number < asked.uploads or waiting:
            now = time.time()
            if number < asked.uploads and now >= due:
                waiting[upload(stack.store, number)] = time.time()
                number, due = number + 1, now + random_.uniform(0, LONGEST_PAUSE)
            for sha in stack.ledger.known_uploads(waiting):
                uploaded.append(waiting.pop(sha))
                entered.append(time.time())
            if late := [sha for sha, began in waiting.items() if now - began > PATIENCE]:
                raise SystemExit(f"{len(late)} uploads are not in the ledger after {PATIENCE:.0f} s")
            time.sleep(0.1)
        stages = stage_seconds(f"{stack.prefect.url}/api", uploaded, entered)
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
