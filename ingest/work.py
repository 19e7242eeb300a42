"""Whether ingest has work, and the rounds that drain the inbox."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingest.deduplication import DeduplicationCounts
from ingest.params import IngestParams
from ingest.quotas import is_admissible
from ingest.reception import ReceptionCounts
from trashnet.due import Due
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore


@dataclass(frozen=True, slots=True)
class IngestRound:
    """One round: how many uploads were taken from the inbox, and what became of them."""

    uploads: int
    received: ReceptionCounts
    deduplicated: DeduplicationCounts


def ingest_due(store: ObjectStore, ledger: Ledger, params: IngestParams) -> Due:
    """Whether uploads within their bins' quotas lie in the inbox, or received frames wait for deduplication.

    Uploads that wait over a quota are no work.
    """
    uploads, received = is_admissible(store, ledger, params), ledger.count_in_state("received")
    found = "uploads" if uploads else "no upload that may be taken in"
    return Due(uploads or received > 0, f"{found} in the inbox, {received} frames not deduplicated")


def drain_inbox(
    list_shards: Callable[[], Sequence[list[str]]],
    receive_shards: Callable[[Sequence[list[str]]], ReceptionCounts],
    deduplicate_received: Callable[[], DeduplicationCounts],
) -> Iterator[IngestRound]:
    """Ingest until nothing in the inbox but sidecars without pictures may be taken in; yields each round.

    What is over a bin's quota is not listed by ``list_shards``, and waits.

    Uploads that arrive meanwhile are part of the next round. The caller decides how each step runs: shards
    may be received side by side, frames are deduplicated one after the other.

    Args:
        list_shards: The keys of the sidecars that may be taken in (:func:`ingest.admit_uploads`), in shards.
        receive_shards: Validates the uploads of all shards and enters them in the ledger.
        deduplicate_received: Tells new frames from re-encodes.
    """
    while True:
        shards = list_shards()
        done = IngestRound(sum(map(len, shards)), receive_shards(shards), deduplicate_received())
        yield done
        # What is left waits, or cannot be read: a next round would change nothing.
        if not done.received.taken:
            return
