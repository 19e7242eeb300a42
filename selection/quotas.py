"""Quotas: how many of a turn's tasks one bin's frames may have, whatever scores and bursts it claims."""

from collections import Counter
from collections.abc import Collection, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from ingest import NO_BIN
from selection.params import SelectionParams
from trashnet.ledger import Ledger

MAX_COUNTED_WAITING = 10_000  # of one bin

Bin = str | None  # `None` for frames of no bin


@dataclass(frozen=True, slots=True)
class TaskQuotas:
    """What bins have of this turn's tasks, and may have: each at most ``most``."""

    most: int
    asked: Counter[Bin]
    waiting: Set[Bin]  # bins with accepted frames

    def left(self, bin_id: Bin) -> int:
        """How many tasks more this bin's frames may have."""
        return max(0, self.most - self.asked[bin_id])


def task_quotas(ledger: Ledger, params: SelectionParams, room: int) -> TaskQuotas:
    """The quotas of a turn that has ``room`` for so many tasks more.

    A bin may have ``params.bin_share`` of the turn's tasks: those that people are asked about or have
    answered since the dataset last grew, and the room. In a fleet so small that equal parts are greater it
    may have an equal part. Every bin that sent anything lately counts, whether or not its frames wait, so
    that one bin does not get the parts of those that are quiet now.
    """
    asked, waiting = ledger.count_asked_per_bin(), set(ledger.waiting_bins())
    bins = waiting | set(asked) | (ledger.bins_seen() - {NO_BIN})
    share = max(params.bin_share, 1 / max(len(bins), 1))
    return TaskQuotas(ceil((asked.total() + room) * share), asked, waiting)


def record_waiting_frames(ledger: Ledger, quotas: TaskQuotas, sampled: Collection[str]) -> None:
    """Write down how many frames of each bin wait once these frames are tasks, because its quota is used up.

    A bin's count ends at :data:`MAX_COUNTED_WAITING`.
    """
    taken = Counter(ledger.bins_of(list(sampled)).values())
    used_up = [bin_id for bin_id in quotas.waiting if quotas.left(bin_id) <= taken[bin_id]]
    limit = MAX_COUNTED_WAITING + max(taken.values(), default=0)
    accepted = ledger.count_accepted_per_bin(used_up, limit)
    waiting = {
        bin_id or NO_BIN: min(count - taken[bin_id], MAX_COUNTED_WAITING)
        for bin_id, count in accepted.items()
        if count > taken[bin_id]
    }
    ledger.record_waiting(datetime.now(UTC).date(), "frames_waiting", waiting)
