"""Quotas: how many uploads, and how many bytes, of one bin are taken in on one day.

What is over a bin's quota stays in the inbox, as it is, and is taken in on a later day (UTC) or once the
quota is raised. The ledger counts what was taken in, see ``trashnet/ledger/bin_days.py``; the same bytes sent
again count once. Only complete uploads wait: a sidecar without its picture costs next to nothing, and may be
what a run that died has left.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ingest.object_keys import INBOX, MAX_NAME_LENGTH, NAME
from ingest.params import IngestParams
from trashnet.ledger import BinDay, Ledger
from trashnet.store import ObjectStore, StoredObject, is_usable_key

NO_BIN = "-"  # what lies under no bin's name is counted together under this one
MAX_COUNTED_WAITING = 10_000  # of one bin: the rest of its folder is not listed
AFTER_FOLDER = chr(ord("/") + 1)  # a folder's name with this behind it sorts after all keys of the folder
BIN_NAME = re.compile(NAME)


@dataclass(frozen=True, slots=True)
class Admission:
    """The uploads that ingest may take in now, by their sidecars' keys, and how many of each bin wait.

    A bin's count ends at :data:`MAX_COUNTED_WAITING`, so that one bin cannot make every listing long.
    ``unusable`` are keys that no request can name: they stay where they are.
    """

    keys: tuple[str, ...]
    waiting: Mapping[str, int]
    unusable: tuple[str, ...] = ()


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


def bin_of(key: str) -> str:
    """The bin whose folder of the inbox a key lies in; :data:`NO_BIN` for a folder that is no bin's.

    >>> bin_of("inbox/bin01/2026-11-20/x.json"), bin_of("inbox/x.json")
    ('bin01', '-')
    """
    folder, slash, _ = key.removeprefix(INBOX).partition("/")
    return folder if slash and len(folder) <= MAX_NAME_LENGTH and BIN_NAME.fullmatch(folder) else NO_BIN


def admit_uploads(
    store: ObjectStore, ledger: Ledger, params: IngestParams, now: datetime | None = None
) -> Admission:
    """List the inbox and divide the uploads in it by their bins' quotas; writes down how many wait.

    ``now`` decides the day; by default it is the present. Raises :class:`trashnet.store.StoreDown`.
    """
    day = (now or datetime.now(UTC)).date()
    quotas = Quotas(params, ledger.bin_days(day))
    waiting: Counter[str] = Counter()
    unusable: list[str] = []
    keys = tuple(_admitted(store, quotas, waiting, unusable))
    ledger.record_waiting(day, "uploads_waiting", waiting)
    return Admission(keys, waiting, tuple(unusable))


def is_admissible(
    store: ObjectStore, ledger: Ledger, params: IngestParams, now: datetime | None = None
) -> bool:
    """Whether any upload may be taken in now; the listing ends at the first one."""
    quotas = Quotas(params, ledger.bin_days((now or datetime.now(UTC)).date()))
    return next(_admitted(store, quotas, Counter(), []), None) is not None


def _admitted(
    store: ObjectStore, quotas: Quotas, waiting: Counter[str], unusable: list[str]
) -> Iterator[str]:
    """The sidecars' keys of admitted uploads; counts those that wait, and notes keys that are unusable."""
    start_after: str | None = None
    while True:
        picture: StoredObject | None = None  # the last one listed: X.jpg comes before X.json
        for stored in store.list(INBOX, start_after):
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
            if waiting[bin_id] == MAX_COUNTED_WAITING and bin_id != NO_BIN:
                start_after = f"{INBOX}{bin_id}{AFTER_FOLDER}"
                break
        else:
            return
