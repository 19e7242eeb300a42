"""Frames per second when a fleet sends many at once: `python benchmarks/burst.py [--frames 2000]`.

They lie in the inbox of the embedded stack's S3 server before its flows start, as after a day without a
network. The same frames are got and put by a bare loop first: what no ingest can do without.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.inbox import PARAMS, upload
from benchmarks.support.event_stack import event_stack
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore

PATIENCE = 120.0  # seconds without one more frame, after which they will not come
JUDGED = ("accepted", "duplicate")


def bare(store: ObjectStore) -> float:
    """Seconds to get and put every picture with as many threads as ingest has."""
    keys = [stored.key for stored in store.list("inbox/") if stored.key.endswith(".jpg")]
    start = time.perf_counter()
    with ThreadPoolExecutor(PARAMS.threads) as threads:
        list(threads.map(lambda key: store.put(f"bare/{key}", store.get(key)), keys))
    seconds = time.perf_counter() - start
    store.remove_all([f"bare/{key}" for key in keys])
    return seconds


def wait_for_frames(ledger: Ledger, count: int) -> tuple[float, float]:
    """When the first frame was judged, and when the last of so many."""
    first, judged, changed = 0.0, 0, time.perf_counter()
    while judged < count:
        time.sleep(0.5)
        states, now = ledger.count_by_state(), time.perf_counter()
        found = sum(states.get(state, 0) for state in JUDGED)
        first = first or (now if states else 0.0)
        if found > judged:
            judged, changed = found, now
        if now - changed > PATIENCE:
            raise SystemExit(f"only {judged:,} of {count:,} frames were judged: {states}")
    return first, changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    frames = parser.parse_args().frames
    with event_stack() as stack:
        size = upload(stack.store, 0, frames) / frames
        without = bare(stack.store)
        began = time.perf_counter()
        stack.start_flows()
        first, last = wait_for_frames(stack.ledger, frames)
        left = sum(1 for _ in stack.store.list("inbox/"))
        states = stack.ledger.count_by_state()
    print(
        f"{frames:,} frames of {size / 1000:.0f} KB, {PARAMS.threads} threads: {states}, {left} left behind"
    )
    print(f"  bare get and put  {frames / without:6.0f} frames/s")
    print(f"  from the first in the ledger to the last judged {frames / (last - first):6.0f} frames/s,")
    print(
        f"  {without / (last - first):.2f} of the bare loop; {last - began:.0f} s with the start of the flows"
    )


if __name__ == "__main__":
    main()
