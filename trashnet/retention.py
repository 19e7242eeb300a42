"""Retention: how long is kept what no dataset version, no model and no decision needs any more.

Rows of the ledger are kept for ever, and so is everything that a dataset version names.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from trashnet.ledger import Ledger, Removal
from trashnet.ledger.retention import TRANSITIONS
from trashnet.params import Params
from trashnet.quarantine import QuarantineReason

TRANSITIONS_PER_TRANSACTION = 500

Days = Annotated[float, Field(ge=1)]
# No symlinks: one would lead nowhere once the file of the cache that it names is removed.
CacheType = Literal["reflink", "hardlink", "copy"]


class RetentionParams(Params):
    """Section ``retention`` of ``params.yaml``: after how many days what is removed; ``None`` for never."""

    quarantine_days: Days | None = 90
    quarantine_reason_days: dict[QuarantineReason, Days | None] = Field({QuarantineReason.DUPLICATE: 30})
    transition_days: Days | None = 365
    cache_days: Days | None = 30
    cache_type: tuple[CacheType, ...] = Field(("hardlink", "reflink", "copy"), min_length=1)

    def days_in_quarantine(self, reason: QuarantineReason) -> float | None:
        """How long objects that were refused for this reason are kept; ``None`` for ever."""
        return self.quarantine_reason_days.get(reason, self.quarantine_days)


def thin_out_transitions(
    ledger: Ledger, params: RetentionParams, now: datetime, *, dry_run: bool = False
) -> list[Removal]:
    """Remove what explains nothing of the histories of frames that settled long ago.

    :meth:`Ledger.remove_transitions` says which transitions these are. ``dry_run`` only counts them.
    """
    if params.transition_days is None:
        return []
    before, count = now - timedelta(days=params.transition_days), 0
    position, counted = ledger.thinned_until() if dry_run else 0, set[int]()
    while True:
        if dry_run:
            page = ledger.removable_transitions(position, before, TRANSITIONS_PER_TRANSACTION)
        else:
            page = ledger.remove_transitions(before, TRANSITIONS_PER_TRANSACTION)
        if page is None:
            return [Removal(TRANSITIONS, count)] if count else []
        count += len(set(page.ids) - counted)
        if dry_run:  # a frame's transitions are still there when the next page comes to the frame again
            counted |= set(page.ids)
            position = page.last


def describe_removals(removed: Iterable[Removal]) -> list[str]:
    """A line for each kind: what, how many, and how many MB; files and objects have bytes."""
    return [
        f"{one.what}: {one.count:,}" + (f" ({one.bytes / 1e6:,.1f} MB)" if one.bytes else "")
        for one in removed
    ]
