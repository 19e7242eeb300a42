"""Whether ingest has work."""

from ingest.reception import waiting
from trashnet.due import Due
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore


def ingest_due(store: ObjectStore, ledger: Ledger) -> Due:
    """Whether complete uploads lie in the inbox, or received frames wait for deduplication."""
    uploads, received = len(waiting(store)), ledger.count_in_state("received")
    return Due(uploads + received > 0, f"{uploads} uploads in the inbox, {received} frames not deduplicated")
