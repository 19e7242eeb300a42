"""Withdrawals: frames that must be forgotten, because a person asked for it or the law does.

A withdrawal is planned here first: in one transaction its frames become ``withdrawn``, so that no flow takes
them up any more. Then their bytes and tasks are removed, and it is marked as finished here last.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from trashnet.ledger.database import Database, batched
from trashnet.ledger.frames import add_frame, hash_bands, move_frame
from trashnet.ledger.rows import STATES, FrameRow, State
from trashnet.ledger.tables import frames, withdrawals, withdrawn_frames
from trashnet.quarantine import QuarantineReason

ACTIVE_STATES: tuple[State, ...] = tuple(state for state in STATES if state != "withdrawn")
COLUMNS = (
    frames.c.sha256,
    frames.c.uploaded_sha256,
    frames.c.state,
    frames.c.inbox_key,
    frames.c.key,
    frames.c.bin_id,
    frames.c.task_id,
    frames.c.turn,
)


@dataclass(frozen=True, slots=True)
class FrameToWithdraw:
    """What a withdrawal needs of a frame: where its bytes and its task are."""

    sha256: str
    uploaded_sha256: str
    state: State
    inbox_key: str
    key: str | None
    bin_id: str | None
    task_id: int | None
    turn: str | None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Who asked for a withdrawal, when and why; ``finished_at`` is ``None`` while something is left to do."""

    id: int
    reason: str
    asked_by: str
    asked_at: datetime
    finished_at: datetime | None = None


class WithdrawalQueries(Database):
    """What withdrawing asks and writes."""

    def find_frames(
        self,
        *,
        sha256s: Collection[str] = (),
        bin_id: str | None = None,
        before: datetime | None = None,
    ) -> list[FrameToWithdraw]:
        """Frames that are not withdrawn yet: these, or those of a bin, or those captured before a time.

        A SHA-256 may be of the bytes as stored or as sent. A frame that has no capture time counts by when it
        was received. Found with them are their re-encodes, what they re-encode, and refused uploads of
        the same inbox key.
        """
        with self.reading() as connection:
            found = dict[str, FrameToWithdraw]()
            for batch in batched(sorted(sha256s)):
                _collect(connection, found, select(*COLUMNS).where(frames.c.sha256.in_(batch)))
                _collect(connection, found, select(*COLUMNS).where(frames.c.uploaded_sha256.in_(batch)))
            if bin_id is not None:
                _collect(connection, found, select(*COLUMNS).where(frames.c.bin_id == bin_id))
            if before is not None:
                for state in ACTIVE_STATES:
                    captured = select(*COLUMNS).where(frames.c.state == state, frames.c.captured_at < before)
                    unknown = select(*COLUMNS).where(
                        frames.c.state == state,
                        frames.c.captured_at.is_(None),
                        frames.c.received_at < before,
                    )
                    _collect(connection, found, captured)
                    _collect(connection, found, unknown)
            _collect_relatives(connection, found)
        return [found[sha256] for sha256 in sorted(found)]

    def plan_withdrawal(
        self, withdrawn: Iterable[FrameToWithdraw], uploads: Iterable[FrameRow], reason: str, asked_by: str
    ) -> Withdrawal:
        """Move frames to ``withdrawn``, and enter uploads that wait in the inbox as such, together."""
        now = datetime.now(UTC)
        with self.transaction() as connection:
            values = {"reason": reason, "asked_by": asked_by, "asked_at": now}
            number = connection.execute(withdrawals.insert().values(values)).inserted_primary_key
            assert number is not None
            for frame in sorted(withdrawn, key=lambda frame: frame.sha256):
                if move_frame(connection, frame.sha256, ACTIVE_STATES, "withdrawn", note=reason):
                    _link(connection, frame.sha256, frame.state, number[0])
            for upload in uploads:
                if add_frame(connection, upload):
                    _link(connection, upload.sha256, "received", number[0])
        return Withdrawal(number[0], reason, asked_by, now)

    def unfinished_withdrawals(self) -> list[Withdrawal]:
        """Withdrawals that were planned and not finished, oldest first."""
        query = select(withdrawals).where(withdrawals.c.finished_at.is_(None)).order_by(withdrawals.c.id)
        with self.reading() as connection:
            return [Withdrawal(**row) for row in connection.execute(query).mappings()]

    def frames_of_withdrawal(self, number: int) -> list[FrameToWithdraw]:
        """The frames of one withdrawal, by SHA-256, each with the state that it had before."""
        columns = (withdrawn_frames.c.sha256, withdrawn_frames.c.state_before)
        mine = select(*columns).where(withdrawn_frames.c.withdrawal_id == number)
        found = []
        with self.reading() as connection:
            before: dict[str, State] = dict(connection.execute(mine).tuples().all())
            for batch in batched(sorted(before)):
                rows = connection.execute(select(*COLUMNS).where(frames.c.sha256.in_(batch))).all()
                found += [replace(FrameToWithdraw(*row), state=before[row[0]]) for row in rows]
        return sorted(found, key=lambda frame: frame.sha256)

    def finish_withdrawal(self, number: int) -> None:
        """Mark a withdrawal as finished.

        Its frames' rows keep no object, no task and nothing that was computed from their bytes.
        """
        nothing: dict[str, Any] = dict.fromkeys(("key", "task_id", "phash", "descriptor", "prediction"))
        nothing |= hash_bands(None) | {"detections": (), "quarantine_reason": QuarantineReason.WITHDRAWN}
        mine = select(withdrawn_frames.c.sha256).where(withdrawn_frames.c.withdrawal_id == number)
        done = update(withdrawals).where(withdrawals.c.id == number).values(finished_at=datetime.now(UTC))
        with self.transaction() as connection:
            for batch in batched(list(connection.execute(mine).scalars())):
                connection.execute(update(frames).where(frames.c.sha256.in_(batch)).values(nothing))
            connection.execute(done)

    def count_withdrawals(self) -> int:
        """How many withdrawals there were."""
        with self.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(withdrawals)).scalar() or 0)


def _collect(connection: Connection, found: dict[str, FrameToWithdraw], query: Select[Any]) -> None:
    # The state is checked here: a planner that is offered it might begin with it, and read every frame.
    rows = [FrameToWithdraw(*row) for row in connection.execute(query).all()]
    found |= {frame.sha256: frame for frame in rows if frame.state != "withdrawn"}


def _collect_relatives(connection: Connection, found: dict[str, FrameToWithdraw]) -> None:
    """Add what these frames re-encode, re-encodes of those, and refused uploads of their inbox keys."""
    for batch in batched(sorted(found)):
        query = select(frames.c.duplicate_of).where(frames.c.sha256.in_(batch))
        originals = sorted(filter(None, connection.execute(query).scalars()))
        _collect(connection, found, select(*COLUMNS).where(frames.c.sha256.in_(originals)))
    for batch in batched(sorted(found)):
        _collect(connection, found, select(*COLUMNS).where(frames.c.duplicate_of.in_(batch)))
    # There is no index by inbox key: refused uploads are few, and are read by their state.
    inbox_keys = {frame.inbox_key for frame in found.values()}
    refused = select(frames.c.sha256, frames.c.inbox_key).where(frames.c.state == "quarantined")
    mine = [sha256 for sha256, key in connection.execute(refused).all() if key and key in inbox_keys]
    for batch in batched(mine):
        _collect(connection, found, select(*COLUMNS).where(frames.c.sha256.in_(batch)))


def _link(connection: Connection, sha256: str, before: State, number: int) -> None:
    values = {"sha256": sha256, "state_before": before, "withdrawal_id": number}
    connection.execute(withdrawn_frames.insert().values(values))
