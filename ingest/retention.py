"""Remove from quarantine what has been there for long enough. The rows of the ledger stay, with a note.

Only objects in quarantine are ever removed, and none that has the name of a frame that is in use or
withdrawn. The ledger lets go of an object first. A run that dies before it has removed the object leaves one
whose row names no object any more, which the next run removes without counting it again.

An object that no row names was left by an upload that was refused and later accepted, or by a reception that
died and whose upload was then corrected. It gets a row of its own, as a stray object in the inbox does, and
is kept as long as others from then on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from ingest.object_keys import QUARANTINE, parse_quarantine_key, refusal_digest
from trashnet.ledger import REFUSED_STATES, ExpiredRefusal, FrameRow, Ledger, Removal
from trashnet.progress import track
from trashnet.quarantine import QuarantineReason
from trashnet.retention import RetentionParams
from trashnet.store import ObjectStore, StoredObject, is_usable_key

GROUPS_AT_ONCE = 200  # looked up in the ledger, and let go of in one transaction
SETTLING = timedelta(days=1)  # an object that no row names may still get one while it is younger
NO_ROW = "found in quarantine, where no row named it"


@dataclass(frozen=True, slots=True)
class _Refused:
    """The objects of one refused upload, with its row."""

    row: FrameRow
    objects: tuple[StoredObject, ...]
    reason: QuarantineReason

    @property
    def bytes(self) -> int:
        return sum(stored.size for stored in self.objects)


def remove_expired(
    store: ObjectStore, ledger: Ledger, params: RetentionParams, now: datetime, *, dry_run: bool = False
) -> list[Removal]:
    """Remove objects of refused uploads and of duplicates that are older than ``params`` says.

    ``dry_run`` changes nothing. Returns per reason what was, or would be, removed. Raises
    :class:`trashnet.store.StoreDown`; the next call goes on.
    """
    counts: dict[QuarantineReason, tuple[int, int]] = {}
    groups = groupby(_usable(store.list(QUARANTINE)), key=lambda stored: _stem(stored.key))
    tracked = track((tuple(group) for _, group in groups), None, "look through quarantine", "upload")
    for batch in _in_batches(tracked, GROUPS_AT_ONCE):
        expired: list[_Refused] = []
        released: list[_Refused] = []
        for refused in _with_rows(ledger, batch, now, dry_run=dry_run):
            if refused.row.key is None:
                released.append(refused)  # a run that died has noted it
            elif _is_expired(refused, params, now):
                expired.append(refused)
        if dry_run:
            done = expired
        else:
            gone = ledger.release_objects([_expired_refusal(one, params, now) for one in expired])
            done = [one for one in expired if one.row.sha256 in gone]
            store.remove_all(stored.key for one in [*done, *released] for stored in one.objects)
        for one in done:
            count, size = counts.get(one.reason, (0, 0))
            counts[one.reason] = count + len(one.objects), size + one.bytes
    return [Removal(_what(reason), *count) for reason, count in sorted(counts.items())]


def _usable(listed: Iterable[StoredObject]) -> Iterator[StoredObject]:
    return (stored for stored in listed if is_usable_key(stored.key))


def _stem(key: str) -> str:
    return key.rpartition(".")[0] or key


def _in_batches(
    groups: Iterable[tuple[StoredObject, ...]], size: int
) -> Iterator[list[tuple[StoredObject, ...]]]:
    batch = []
    for group in groups:
        batch.append(group)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _with_rows(
    ledger: Ledger, groups: Iterable[tuple[StoredObject, ...]], now: datetime, *, dry_run: bool
) -> Iterator[_Refused]:
    """The groups of objects that a refused frame's row names, or named; others get rows of their own."""
    named = [(group, parse_quarantine_key(group[0].key)) for group in groups]
    digests = [_digest(stored) for group in groups for stored in group]
    rows = ledger.frames_by_sha256([key.sha256 for _, key in named if key is not None] + digests)
    for group, key in named:
        row = rows.get(key.sha256) if key is not None else None
        if row is not None and row.state not in REFUSED_STATES:
            continue  # in use, about to be moved by deduplication, or a withdrawal's to remove
        reason = key.reason if key is not None else QuarantineReason.STRAY
        was_named = row is not None and row.key is None and row.quarantine_reason == reason
        if row is not None and (was_named or row.key in {stored.key for stored in group}):
            yield _Refused(row, group, reason)
            continue
        for stored in group:
            found = rows.get(_digest(stored))
            if found is None and not dry_run and stored.modified <= now - SETTLING:
                ledger.add(_stray_row(stored, reason))
            elif found is not None and found.state in REFUSED_STATES:
                yield _Refused(found, (stored,), reason)


def _digest(stored: StoredObject) -> str:
    return refusal_digest(stored.key, f"{stored.size} {stored.modified}".encode())


def _stray_row(stored: StoredObject, reason: QuarantineReason) -> FrameRow:
    digest = _digest(stored)
    return FrameRow(
        sha256=digest,
        uploaded_sha256=digest,
        state="quarantined",
        inbox_key=stored.key,
        key=stored.key,
        quarantine_reason=reason,
        note=NO_ROW,
    )


def _is_expired(refused: _Refused, params: RetentionParams, now: datetime) -> bool:
    days = params.days_in_quarantine(refused.reason)
    times = [refused.row.changed_at, *(stored.modified for stored in refused.objects)]
    return days is not None and all(time is None or time <= now - timedelta(days=days) for time in times)


def _expired_refusal(refused: _Refused, params: RetentionParams, now: datetime) -> ExpiredRefusal:
    days = params.days_in_quarantine(refused.reason) or 0
    return ExpiredRefusal(
        refused.row.sha256,
        tuple(stored.key for stored in refused.objects),
        refused.bytes,
        _what(refused.reason),
        now - timedelta(days=days),
        f"removed from quarantine after {days:g} days",
    )


def _what(reason: QuarantineReason) -> str:
    return f"{QUARANTINE}{reason}"
