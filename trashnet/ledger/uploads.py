"""Uploads: the rows of a batch of them are made, or found, in one transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.exc import IntegrityError

from trashnet.ledger.bin_days import count_uploads
from trashnet.ledger.database import Database, batched
from trashnet.ledger.frames import add_frame, add_new_frames, column_values, record_transition
from trashnet.ledger.rows import FrameRow
from trashnet.ledger.tables import frames, transitions
from trashnet.quarantine import QuarantineReason

# Uploading again heals these: the object was gone from the store, or the machine was too busy to decode it.
HEALED = (QuarantineReason.LOST, QuarantineReason.TOO_COSTLY)
SIDECAR_COLUMNS = (
    "inbox_key",
    "bin_id",
    "burst",
    "captured_at",
    "release",
    "reason",
    "upload_reason",
    "detections",
    "note",
)


@dataclass(frozen=True, slots=True)
class Upserted:
    """Whether a row is new, and the key of that frame's object, whether the row is new or not.

    ``new_bytes``: whether the ledger did not know the uploaded bytes either; they are new although the row is
    not where a known picture came with other metadata.
    """

    new: bool
    key: str | None
    new_bytes: bool = True


class UploadQueries(Database):
    """What reception asks and writes."""

    def upsert_uploads(
        self, rows: Sequence[FrameRow], sent: Sequence[tuple[str, int]] = ()
    ) -> list[Upserted]:
        """Enter all rows or none; one result per row, in order.

        Of several uploads of one picture the earliest capture decides the columns of the sidecar, whichever
        worker came first. An upload that differs from a known frame in its metadata alone gets a row of its
        own in state ``duplicate``, which remembers that these bytes were received.

        ``sent``, if given, says for each row which bin sent how many bytes: they are counted on that bin's
        day, unless the same bytes came before.
        """
        if not rows:
            return []
        # Always in the same order: two workers with the same frames may wait for each other, but never both.
        ordered = sorted(enumerate(rows), key=lambda pair: pair[1].sha256)
        upserted = [Upserted(True, row.key) for row in rows]
        with self.transaction() as connection:
            new = _new_rows(connection, [row for _, row in ordered])
            try:
                if new:
                    with connection.begin_nested():
                        add_new_frames(connection, new)
            except IntegrityError:  # another process has entered one meanwhile
                new = []
            entered = set(map(id, new))
            for index, row in ordered:
                if id(row) not in entered:
                    upserted[index] = _upsert(connection, row)
            if sent:
                count_uploads(connection, datetime.now(UTC).date(), _sum_per_bin(sent, upserted))
        return upserted

    def known_uploads(self, sha256s: Iterable[str]) -> set[str]:
        """Those of these SHA-256s that the ledger has, as uploaded or, cleaned, as stored bytes."""
        known = set[str]()
        with self.reading() as connection:
            for batch in batched(list(sha256s)):
                for column in (frames.c.uploaded_sha256, frames.c.sha256):
                    known |= set(connection.execute(select(column).where(column.in_(batch))).scalars())
        return known


def _new_rows(connection: Connection, rows: Sequence[FrameRow]) -> list[FrameRow]:
    """Those of these rows of which the ledger has neither SHA-256, each picture once."""
    columns, new = (frames.c.sha256, frames.c.uploaded_sha256), list[FrameRow]()
    known: tuple[set[str], ...] = tuple(set() for _ in columns)
    for column, found in zip(columns, known, strict=True):
        for batch in batched([getattr(row, column.name) for row in rows]):
            found |= set(connection.execute(select(column).where(column.in_(batch))).scalars())
    for row in rows:
        if row.sha256 not in known[0] and row.uploaded_sha256 not in known[1]:
            new.append(row)
            known[0].add(row.sha256)
            known[1].add(row.uploaded_sha256)
    return new


def _upsert(connection: Connection, row: FrameRow) -> Upserted:
    if add_frame(connection, row):
        return Upserted(True, row.key)
    columns = frames.c
    same = or_(columns.sha256 == row.sha256, columns.uploaded_sha256 == row.uploaded_sha256)
    query = select(
        columns.sha256,
        columns.uploaded_sha256,
        columns.state,
        columns.key,
        columns.captured_at,
        columns.inbox_key,
        columns.quarantine_reason,
    )
    # A frame stored as the same bytes comes before one that was uploaded as the same bytes.
    known = connection.execute(query.where(same).order_by(columns.sha256 != row.sha256)).mappings().first()
    if known is None:
        raise RuntimeError(f"frame {row.sha256} is neither new nor known")
    if row.state == "received" and known["quarantine_reason"] in HEALED and known["state"] == "quarantined":
        _replace_refused(connection, known["sha256"], row, known["quarantine_reason"])
        return Upserted(True, row.key)
    is_earlier = _capture_order(row.captured_at, row.inbox_key) < _capture_order(
        known["captured_at"], known["inbox_key"]
    )
    is_withdrawn = known["state"] == "withdrawn"
    if is_withdrawn:  # its bytes must not come back: the caller removes them, since no key is theirs
        note = "uploaded again and refused"
        record_transition(connection, known["sha256"], "withdrawn", "withdrawn", datetime.now(UTC), note)
    if known["state"] == row.state == "received" and is_earlier:
        values = {name: getattr(row, name) for name in SIDECAR_COLUMNS}
        connection.execute(update(frames).where(columns.sha256 == known["sha256"]).values(values))
    new_bytes = False
    if row.state == "received" and row.uploaded_sha256 not in (known["sha256"], known["uploaded_sha256"]):
        new_bytes = add_frame(
            connection,
            FrameRow(
                sha256=row.uploaded_sha256,
                uploaded_sha256=row.uploaded_sha256,
                state="withdrawn" if is_withdrawn else "duplicate",
                inbox_key=row.inbox_key,
                bin_id=row.bin_id,
                duplicate_of=known["sha256"],
                quarantine_reason=QuarantineReason.WITHDRAWN if is_withdrawn else None,
                note="the same picture with other metadata; no object of its own",
            ),
        )
    return Upserted(False, None if is_withdrawn else known["key"], new_bytes)


def _replace_refused(connection: Connection, refused: str, row: FrameRow, reason: str) -> None:
    """Enter a frame in place of its row that was refused, or lost, and keep that row's history."""
    now, note = datetime.now(UTC), f"uploaded again; it was {reason}"
    if refused == row.sha256:
        values = column_values(row, now)
        del values["uploaded_sha256"]  # it may be in another row's column already
        connection.execute(update(frames).where(frames.c.sha256 == refused).values(values))
    else:
        freed = update(frames).where(frames.c.sha256 == refused)
        connection.execute(freed.values(uploaded_sha256=f"replaced {now.timestamp()} {refused}"[:64]))
        connection.execute(frames.insert().values(column_values(row, now)))
        history = update(transitions).where(transitions.c.sha256 == refused)
        connection.execute(history.values(sha256=row.sha256))
        connection.execute(frames.delete().where(frames.c.sha256 == refused))
    record_transition(connection, row.sha256, "quarantined", row.state, now, note)


def _sum_per_bin(
    sent: Sequence[tuple[str, int]], upserted: Sequence[Upserted]
) -> Mapping[str, tuple[int, int]]:
    """Per bin its uploads and their bytes, without those that came before."""
    sums: dict[str, tuple[int, int]] = {}
    for (bin_id, size), result in zip(sent, upserted, strict=True):
        if result.new_bytes:
            uploads, total = sums.get(bin_id, (0, 0))
            sums[bin_id] = uploads + 1, total + size
    return sums


def _capture_order(captured_at: object, inbox_key: str) -> tuple[str, str]:
    return str(captured_at), inbox_key
