"""What the frames in Label Studio are waiting for."""

from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import select

from trashnet.ledger import Ledger
from trashnet.ledger.annotations import USABLE
from trashnet.ledger.tables import annotations, frames


@dataclass(frozen=True)
class Queue:
    """``tasked`` frames: nobody has answered, all who did have skipped, an answer is to be mended, or a second person's is awaited."""

    untouched: int = 0
    skipped: int = 0
    refused: int = 0
    second: int = 0


def queue(ledger: Ledger) -> Queue:
    """Count them by the answers that have been collected; costs what is in the queue."""
    query = (
        select(frames.c.sha256, annotations.c.outcome)
        .outerjoin(annotations, annotations.c.sha256 == frames.c.sha256)
        .where(frames.c.state == "tasked")
        .order_by(frames.c.sha256)
    )
    with ledger.reading() as connection:
        rows = [(str(row[0]), row[1]) for row in connection.execute(query)]
    counts = {"untouched": 0, "skipped": 0, "refused": 0, "second": 0}
    for _, group in groupby(rows, key=lambda row: row[0]):
        outcomes = {outcome for _, outcome in group}
        if outcomes & set(USABLE):
            counts["second"] += 1
        elif "refused" in outcomes:
            counts["refused"] += 1
        else:
            counts["skipped" if "skipped" in outcomes else "untouched"] += 1
    return Queue(**counts)
