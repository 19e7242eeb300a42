"""Quotas: how many uploads, and how many bytes, of one bin are taken in on one day.

What is over a bin's quota stays in the inbox, as it is, and is taken in on a later day (UTC) or once the
quota is raised. The ledger counts what was taken in, see ``trashnet/ledger/bin_days.py``; the same bytes sent
again count once. Only complete uploads wait: a sidecar without its picture costs next to nothing, and may be
what a run that died has left.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from ingest.inbox import InboxListing, bin_of
from ingest.params import IngestParams
from trashnet.ledger import BinDay, Ledger
from trashnet.store import ObjectStore, StoredObject, is_usable_key

MAX_COUNTED_WAITING = 10_000  # of one bin: the rest of its folder is not listed
ADMITTED_AT_ONCE = 10_000  # uploads: what one round of ingest takes in


@dataclass(frozen=True, slots=True)
class Admission:
    """The uploads that ingest may take in now, by their sidecars' keys, and how many of each bin wait.

    There are at most :data:`ADMITTED_AT_ONCE`; the next ones come after ``position``, which is ``None`` at
    the end of the inbox. ``waiting`` counts from the inbox's beginning, of one bin up to
    :data:`MAX_COUNTED_WAITING`, so that one bin cannot make every listing long. ``unusable`` are keys that no
    request can name: they stay where they are.
    """

    keys: tuple[str, ...]
    waiting: Mapping[str, int]
    unusable: tuple[str, ...] = ()
    position: str | None = None


@dataclass
class Quotas:
    """What each bin may still send today; each admitted upload uses some of it up."""

    params: IngestParams
    sent: Mapping[str, BinDay]
    _uploads: Counter[str] = field(default_factory=Counter)
    _bytes: Counter[str] = field(default_factory=Counter)

    def admit(self, bin_id: str, size: int) -> bool:
        """Whether an upload of this many bytes is within the quota.

        A bin's first upload of a day always is, so that one larger than the quota does not wait for ever.
        """
        sent = self.sent.get(bin_id, BinDay())
        uploads, total = sent.uploads + self._uploads[bin_id], sent.bytes + self._bytes[bin_id]
        most_uploads, most_bytes = self.params.uploads_per_bin_and_day, self.params.bytes_per_bin_and_day
        if most_uploads is not None and uploads >= most_uploads:
            return False
        if most_bytes is not None and uploads and total + size > most_bytes:
            return False
        self._uploads[bin_id] += 1
        self._bytes[bin_id] += size
        return True

    def is_used_up(self, bin_id: str) -> bool:
        """Whether no further upload of this bin is within the quota, however small."""
        sent, most = self.sent.get(bin_id, BinDay()), self.params.uploads_per_bin_and_day
        return most is not None and sent.uploads + self._uploads[bin_id] >= most


def admit_uploads(
    store: ObjectStore,
    ledger: Ledger,
    params: IngestParams,
    before: Admission | None = None,
    *,
    now: datetime | None = None,
) -> Admission:
    """List the inbox and divide the uploads in it by their bins' quotas.

    At the end of the inbox it writes down how many wait.

    Args:
        store: Where the inbox is.
        ledger: What the bins have sent today.
        params: The quotas.
        before: The admission that this one continues; without it the inbox is listed from its beginning.
        now: Decides the day; by default it is the present.

    Raises:
        StoreDown: The store does not answer.
    """
    day = (now or datetime.now(UTC)).date()
    quotas = Quotas(params, ledger.bin_days(day))
    waiting, unusable = Counter(before.waiting if before else {}), list[str]()
    listing = InboxListing(store, before.position if before else None)
    keys = tuple(islice(_admitted(listing, quotas, waiting, unusable), ADMITTED_AT_ONCE))
    if listing.position is None:
        ledger.record_waiting(day, "uploads_waiting", waiting)
    return Admission(keys, waiting, tuple(unusable), listing.position)


def is_admissible(
    store: ObjectStore, ledger: Ledger, params: IngestParams, now: datetime | None = None
) -> bool:
    """Whether any upload may be taken in now; the listing ends at the first one."""
    quotas = Quotas(params, ledger.bin_days((now or datetime.now(UTC)).date()))
    admitted = _admitted(InboxListing(store), quotas, Counter(), [], count_waiting=False)
    return next(admitted, None) is not None


def _admitted(
    listing: InboxListing,
    quotas: Quotas,
    waiting: Counter[str],
    unusable: list[str],
    *,
    count_waiting: bool = True,
) -> Iterator[str]:
    """The sidecars' keys of admitted uploads; counts those that wait, and notes keys that are unusable."""
    picture: StoredObject | None = None  # the last one listed: X.jpg comes before X.json
    for stored in listing:
        if stored.key.endswith(".jpg"):
            picture = stored
        if not stored.key.endswith(".json"):
            continue
        if not is_usable_key(stored.key):
            unusable.append(stored.key)
            continue
        bin_id = bin_of(stored.key)
        is_complete = picture is not None and picture.key[:-4] == stored.key[:-5]
        if not is_complete or quotas.admit(bin_id, stored.size + (picture.size if picture else 0)):
            yield stored.key
            continue
        waiting[bin_id] += 1
        if waiting[bin_id] >= MAX_COUNTED_WAITING or (not count_waiting and quotas.is_used_up(bin_id)):
            listing.leave_folder(bin_id)
