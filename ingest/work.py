"""Whether ingest has work, and the rounds that drain the inbox."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingest.deduplication import DeduplicationCounts
from ingest.params import IngestParams
from ingest.quotas import Admission, is_admissible
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
    admit: Callable[[Admission | None], Admission],
    receive_admitted: Callable[[Sequence[str]], ReceptionCounts],
    deduplicate_received: Callable[[], DeduplicationCounts],
    wait_for_more: Callable[[], bool] = lambda: False,
) -> Iterator[IngestRound]:
    """Ingest until nothing in the inbox but sidecars without pictures may be taken in; yields each round.

    A round is a stretch of the inbox. What is over a bin's quota is not admitted, and waits. From the inbox's
    end it begins again, as long as anything was taken in.

    The caller decides how each step runs: uploads may be received side by side, frames are deduplicated one
    after the other.

    Args:
        admit: The uploads that may be taken in, after those of the admission before
            (:func:`ingest.admit_uploads`).
        receive_admitted: Validates these uploads, by their sidecars' keys, and enters them in the ledger.
        deduplicate_received: Tells new frames from re-encodes.
        wait_for_more: Called when the inbox is drained; returns whether there may be more by now.
    """
    admission, taken = None, 0
    while True:
        admission = admit(admission)
        done = IngestRound(len(admission.keys), receive_admitted(admission.keys), deduplicate_received())
        yield done
        taken += done.received.taken
        if admission.position is not None:
            continue
        # What is left waits, or cannot be read: going on would change nothing.
        if not taken and not wait_for_more():
            return
        admission, taken = None, 0
