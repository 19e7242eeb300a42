"""What the frames in Label Studio are waiting for."""

from dataclasses import dataclass

from trashnet.ledger import USABLE, Ledger


@dataclass(frozen=True)
class Queue:
    """``tasked`` frames: nobody has answered, all who did have skipped, an answer is to be mended, or a second person's is awaited."""

    untouched: int = 0
    skipped: int = 0
    refused: int = 0
    second: int = 0


def queue(ledger: Ledger) -> Queue:
    """Count them by the answers that have been collected; costs what is in the queue."""
    counts = {"untouched": 0, "skipped": 0, "refused": 0, "second": 0}
    for outcomes, frames in ledger.count_queue().items():
        if outcomes & set(USABLE):
            counts["second"] += frames
        elif "refused" in outcomes:
            counts["refused"] += frames
        else:
            counts["skipped" if "skipped" in outcomes else "untouched"] += frames
    return Queue(**counts)
