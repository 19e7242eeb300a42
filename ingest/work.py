"""Whether ingest has work, and the rounds that drain the inbox."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingest.deduplication import DeduplicationCounts
from ingest.reception import ReceptionCounts, pending_uploads
from trashnet.due import Due
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore


@dataclass(frozen=True, slots=True)
class IngestRound:
    """One round: how many complete uploads lay in the inbox, and what became of them."""

    uploads: int
    received: ReceptionCounts
    deduplicated: DeduplicationCounts


def ingest_due(store: ObjectStore, ledger: Ledger) -> Due:
    """Whether complete uploads lie in the inbox, or received frames wait for deduplication."""
    uploads, received = len(pending_uploads(store)), ledger.count_in_state("received")
    return Due(uploads + received > 0, f"{uploads} uploads in the inbox, {received} frames not deduplicated")


def drain_inbox(
    list_shards: Callable[[], Sequence[list[str]]],
    receive_shards: Callable[[Sequence[list[str]]], ReceptionCounts],
    deduplicate_received: Callable[[], DeduplicationCounts],
) -> Iterator[IngestRound]:
    """Ingest until the inbox holds nothing but sidecars that wait for their pictures; yields each round.

    Uploads that arrive meanwhile are part of the next round. The caller decides how each step runs: shards
    may be received side by side, frames are deduplicated one after the other.

    Args:
        list_shards: The keys of the sidecars in the inbox, in shards.
        receive_shards: Validates the uploads of all shards and enters them in the ledger.
        deduplicate_received: Tells new frames from re-encodes.
    """
    while True:
        shards = list_shards()
        uploads = sum(map(len, shards))
        done = IngestRound(uploads, receive_shards(shards), deduplicate_received())
        yield done
        if uploads == done.received.left:
            return
