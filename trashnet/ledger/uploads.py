"""Make the rows of a batch of uploads, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.exc import IntegrityError

from trashnet.ledger import FrameRow, Ledger
from trashnet.ledger.ledger import add, add_new
from trashnet.ledger.tables import frames

TOLD = (
    "inbox_key",
    "bin_id",
    "burst",
    "captured_at",
    "release",
    "reason",
    "detections",
    "note",
)  # columns that the sidecar decides


@dataclass(frozen=True, slots=True)
class Entered:
    """Whether a row is new, and where the object of that frame lies, be the row new or not."""

    new: bool
    key: str | None


def enter(ledger: Ledger, rows: Sequence[FrameRow]) -> list[Entered]:
    """Enter all rows or none; one result per row, in order."""
    if not rows:
        return []
    # Always in the same order: two workers that meet at the same frames may wait for each other, but never
    # both.
    ordered = sorted(enumerate(rows), key=lambda pair: pair[1].sha256)
    with ledger.transaction() as connection:
        try:
            with connection.begin_nested():
                add_new(connection, [row for _, row in ordered])
        except IntegrityError:  # one is known, or two are the same
            found = {place: _enter(connection, row) for place, row in ordered}
            return [found[place] for place in range(len(rows))]
    return [Entered(True, row.key) for row in rows]


def _enter(connection: Connection, row: FrameRow) -> Entered:
    if add(connection, row):
        return Entered(True, row.key)
    columns = frames.c
    same = or_(columns.sha256 == row.sha256, columns.uploaded_sha256 == row.uploaded_sha256)
    # Stored as the same bytes comes before uploaded as the same bytes.
    query = select(
        columns.sha256,
        columns.uploaded_sha256,
        columns.state,
        columns.key,
        columns.captured_at,
        columns.inbox_key,
    )
    found = connection.execute(query.where(same).order_by(columns.sha256 != row.sha256)).mappings().first()
    if found is None:
        raise RuntimeError(f"frame {row.sha256} is neither new nor known")
    if found["state"] == row.state == "received" and _place(row.captured_at, row.inbox_key) < _place(
        found["captured_at"], found["inbox_key"]
    ):
        # Of several uploads of one picture the earliest tells about it, whichever worker came first.
        told = {name: getattr(row, name) for name in TOLD}
        connection.execute(update(frames).where(columns.sha256 == found["sha256"]).values(told))
    if row.state == "received" and row.uploaded_sha256 not in (found["sha256"], found["uploaded_sha256"]):
        # Other metadata around the same pixels: a row of its own remembers that these bytes were dealt with.
        add(
            connection,
            FrameRow(
                sha256=row.uploaded_sha256,
                uploaded_sha256=row.uploaded_sha256,
                state="duplicate",
                inbox_key=row.inbox_key,
                bin_id=row.bin_id,
                duplicate_of=found["sha256"],
                note="the same picture with other metadata; no object of its own",
            ),
        )
    return Entered(False, found["key"])


def _place(captured_at: object, inbox_key: str) -> tuple[str, str]:
    return str(captured_at), inbox_key
