"""What the frames in Label Studio are waiting for, and whether annotators need more."""

from dataclasses import dataclass

from trashnet.due import Due
from trashnet.ledger import USABLE, Ledger

MAX_COUNTED = 1000  # accepted frames: a fleet sends more than people label, so they become ever more


@dataclass(frozen=True)
class TaskQueue:
    """How many ``tasked`` frames wait for what.

    ``untouched``: nobody has answered; ``skipped``: everybody who did has skipped; ``refused``: an annotation
    needs fixing; ``second``: another person's annotation is awaited."""

    untouched: int = 0
    skipped: int = 0
    refused: int = 0
    second: int = 0


def count_queue(ledger: Ledger) -> TaskQueue:
    """Count tasked frames by the annotations that were collected; costs what is in the queue."""
    counts = {"untouched": 0, "skipped": 0, "refused": 0, "second": 0}
    for outcomes, frames in ledger.count_queue().items():
        if outcomes & set(USABLE):
            counts["second"] += frames
        elif "refused" in outcomes:
            counts["refused"] += frames
        else:
            counts["skipped" if "skipped" in outcomes else "untouched"] += frames
    return TaskQueue(**counts)


def room_for_tasks(ledger: Ledger, budget: int) -> int:
    """How many tasks more annotators are given: ``budget``, less the tasks that nobody has answered."""
    return max(budget - count_queue(ledger).untouched, 0)


def request_due(ledger: Ledger) -> Due:
    """Whether there are frames that people could be asked about."""
    accepted = ledger.count_in_state("accepted", MAX_COUNTED)
    more = " or more" if accepted == MAX_COUNTED else ""
    return Due(accepted > 0, f"{accepted}{more} accepted frames")


def collection_due(ledger: Ledger) -> Due:
    """Whether there are tasks that somebody may have answered."""
    tasked = ledger.count_in_state("tasked")
    return Due(tasked > 0, f"{tasked} tasks that may be answered")
