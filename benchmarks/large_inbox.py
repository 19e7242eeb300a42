"""What a look at a large inbox costs: `python benchmarks/large_inbox.py [uploads]`.

The objects are in memory, so what is compared is how many are listed. A store sends a thousand in a response.
"""

import sys
from collections.abc import Callable

from benchmarks.support.inbox import pending_uploads
from benchmarks.support.memory_store import MODIFIED, CountingStore
from ingest import InboxWatch, IngestParams, admit_uploads, has_uploads, sweep_inbox
from trashnet.ledger import open_ledger
from trashnet.store import PAGE_SIZE

UPLOADS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
BINS = 100


def main() -> None:
    """Fill an inbox, and look at it in each way."""
    store, ledger, params = CountingStore(), open_ledger("sqlite://"), IngestParams()
    for number in range(UPLOADS):
        stem = f"inbox/bin{number % BINS:03d}/2026-11-20/{number:064x}"
        store.put(f"{stem}.jpg", b"x")
        store.put(f"{stem}.json", b"{}")
    watch = InboxWatch(store)
    looks: dict[str, Callable[[], object]] = {
        "the whole inbox": lambda: pending_uploads(store),
        "a look of the event gateway": watch.look,
        "whether there is anything": lambda: has_uploads(store),
        "what one round takes in": lambda: admit_uploads(store, ledger, params),
        "a sweep": lambda: sweep_inbox(store, ledger, params, MODIFIED),
    }
    print(f"an inbox of {UPLOADS:,} uploads of {BINS} bins:")
    for name, look in looks.items():
        store.listed = 0
        look()
        print(f"  {name:<28} {store.listed:>9,} objects listed in {-(-store.listed // PAGE_SIZE):,} requests")
    ledger.close()


if __name__ == "__main__":
    main()
