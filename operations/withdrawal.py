"""Withdrawal: frames are forgotten everywhere, because a person who is on them asks for it or the law does.

First the ledger takes the frames away from every flow, in one transaction. Then they leave the dataset, then
their tasks are deleted, then their bytes are removed, and the ledger is told last. Each step may be repeated:
a withdrawal that died is finished by the next one, and until then ``trashnet status`` names it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime

from dataset.withdrawal import Tombstone, withdraw_from_dataset
from export import list_candidates, remove_pictures
from flows.context import FlowContext
from ingest.object_keys import INBOX, QUARANTINE, frame_key, parse_inbox_key
from labeling import delete_tasks
from trashnet.errors import UserError
from trashnet.ledger import FrameRow, FrameToWithdraw, Ledger, Withdrawal
from trashnet.progress import track
from trashnet.quarantine import QuarantineReason
from trashnet.store import ObjectStore

SIDECAR, PICTURE = ".json", ".jpg"
TASK_STATES = ("accepted", "tasked", "labelled", "released")  # a frame in these may have a task
THREADS = 16  # that remove objects


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames: some by their SHA-256, those of a bin, or those captured before a time."""

    sha256s: tuple[str, ...] = ()
    bin_id: str | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a selection finds: frames of the ledger, and uploads in the inbox that it does not know yet."""

    frames: tuple[FrameToWithdraw, ...]
    uploads: tuple[FrameRow, ...]

    def summary(self) -> str:
        """How many of each, in words."""
        states = Counter(frame.state for frame in self.frames)
        by_state = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        grown = sum(frame.turn is not None for frame in self.frames)
        return (
            f"{len(self.frames):,} frames ({by_state or 'none'}; {grown:,} of them in the dataset) and "
            f"{len(self.uploads):,} uploads that wait in the inbox"
        )


@dataclass(frozen=True, slots=True)
class Learnt:
    """A candidate whose dataset held withdrawn frames, and how many of which split."""

    version: str
    dataset: str
    splits: Counter[str]


@dataclass(frozen=True, slots=True)
class WithdrawalReport:
    """What a withdrawal did, and which candidates had learnt from, or were judged on, what was withdrawn."""

    withdrawal: Withdrawal
    frames: int
    tombstones: tuple[Tombstone, ...]
    tasks: int
    objects: int
    pictures: int
    learnt: tuple[Learnt, ...]

    def text(self) -> str:
        """The report as lines."""
        grown = f"{len(self.tombstones):,} of them left the dataset"
        lines = [
            f"{self.frames:,} frames withdrawn ({self.withdrawal.reason}): {grown}, {self.tasks:,} tasks "
            f"deleted, {self.objects:,} objects and {self.pictures:,} pictures on candidates' pages removed"
        ]
        for candidate in self.learnt:
            splits = ", ".join(f"{count:,} {split}" for split, count in sorted(candidate.splits.items()))
            lines.append(
                f"candidate {candidate.version} of {candidate.dataset} knew {splits} frames of these"
            )
        if not self.learnt:
            lines.append("no candidate knew any of them")
        if self.tombstones:
            lines.append(
                "their bytes lie in older files of the dataset until `trashnet compact` rewrites those"
            )
        return "\n".join(lines)


def find(store: ObjectStore, ledger: Ledger, selection: Selection) -> Found:
    """What would be withdrawn. Nothing is changed.

    Raises :class:`UserError` if there is nothing, or nothing left, to withdraw.
    """
    sha256s, bin_id, before = selection.sha256s, selection.bin_id, selection.before
    frames = ledger.find_frames(sha256s=sha256s, bin_id=bin_id, before=before)
    named = {name for frame in frames for name in (frame.sha256, frame.uploaded_sha256)}
    unknown = [sha256 for sha256 in sha256s if sha256 not in named]
    uploads: dict[str, FrameRow] = {}
    if bin_id is not None:
        uploads = _waiting_uploads(store, f"{INBOX}{bin_id}/")
    elif before is not None:
        uploads = _waiting_uploads(store, INBOX, before=before.date())
    elif unknown:
        uploads = {sha: row for sha, row in _waiting_uploads(store, INBOX).items() if sha in unknown}
    known = ledger.known_uploads(uploads)
    found = Found(tuple(frames), tuple(row for sha, row in uploads.items() if sha not in known))
    if not found.frames and not found.uploads:
        raise UserError("there is no such frame that is not withdrawn yet, neither in the ledger nor waiting")
    return found


def withdraw(context: FlowContext, found: Found, *, reason: str, by: str) -> WithdrawalReport:
    """Withdraw what was found; the report.

    Raises :class:`UserError` without a reason, and if a step fails: :func:`finish_all` then goes on there.
    """
    if not reason.strip():
        raise UserError("a withdrawal says why: give a reason")
    planned = context.ledger.plan_withdrawal(found.frames, found.uploads, reason.strip(), by)
    return finish(context, planned)


def finish_all(context: FlowContext) -> Iterator[WithdrawalReport]:
    """Finish every withdrawal that died on its way."""
    for withdrawal in context.ledger.unfinished_withdrawals():
        yield finish(context, withdrawal)


def finish(context: FlowContext, withdrawal: Withdrawal) -> WithdrawalReport:
    """Do what is left of a withdrawal that was planned. It may be called again after a death anywhere."""
    frames = context.ledger.frames_of_withdrawal(withdrawal.id)
    sha256s = [frame.sha256 for frame in frames]
    tombstones = withdraw_from_dataset(context.clone, context.taxonomy, sha256s, withdrawal.reason)
    tasked = [frame.sha256 for frame in frames if frame.state in TASK_STATES]
    tasks = delete_tasks(context.label_studio, context.project, tasked) if tasked else 0
    objects = _remove_objects(context.store, frames)
    pictures = remove_pictures(context.store, sha256s) if tombstones else 0
    learnt = tuple(_learnt(context.store, tombstones))
    _refuse_open_turn(context.ledger, withdrawal, frames)
    context.ledger.finish_withdrawal(withdrawal.id)
    return WithdrawalReport(withdrawal, len(frames), tuple(tombstones), tasks, objects, pictures, learnt)


def _refuse_open_turn(ledger: Ledger, withdrawal: Withdrawal, frames: Sequence[FrameToWithdraw]) -> None:
    """Raise while another machine may still push a turn that it planned with these frames."""
    turn = ledger.unfinished_turn()
    grows = any(frame.state in ("labelled", "released") for frame in frames)
    if turn is not None and grows and turn.started_at <= withdrawal.asked_at:
        raise UserError(
            "the frames' bytes and tasks are removed, but the turn planned at "
            f"{turn.started_at:%Y-%m-%d %H:%M} is under way and may bring them into the dataset: "
            "run `trashnet withdraw --finish` after grow has finished it"
        )


def _waiting_uploads(store: ObjectStore, prefix: str, before: date | None = None) -> dict[str, FrameRow]:
    """The pictures under a prefix of the inbox, by the SHA-256 that names them, as rows of the ledger."""
    rows: dict[str, FrameRow] = {}
    for stored in store.list(prefix):
        key = parse_inbox_key(stored.key)
        if key is None or (before is not None and date.fromisoformat(key.stem.split("/")[2]) >= before):
            continue
        rows[key.sha256] = FrameRow(
            sha256=key.sha256,
            uploaded_sha256=key.sha256,
            state="withdrawn",
            inbox_key=key.sidecar,
            bin_id=key.bin_id,
            quarantine_reason=QuarantineReason.WITHDRAWN,
            note="withdrawn before it was ingested",
        )
    return rows


def _remove_objects(store: ObjectStore, frames: Sequence[FrameToWithdraw]) -> int:
    """Remove every object of these frames: stored, in quarantine, and in the inbox; how many there were."""
    names = {name for frame in frames for name in (frame.sha256, frame.uploaded_sha256)}
    keys = {key for name in names if store.stat(key := frame_key(name)) is not None}
    prefixes = {f"{INBOX}{frame.bin_id}/" for frame in frames if frame.bin_id}
    for prefix in (QUARANTINE, *sorted(prefixes)):
        for stored in store.list(prefix):
            stem = stored.key.rpartition("/")[2].partition(".")[0]
            if stem in names:
                keys.add(stored.key)
    own = [frame.inbox_key for frame in frames] + [frame.key for frame in frames if frame.key]
    for key in own:
        stem = key.removesuffix(SIDECAR).removesuffix(PICTURE)
        keys |= {twin for suffix in (PICTURE, SIDECAR) if stem and store.stat(twin := stem + suffix)}
    # Pictures first: a sidecar alone is recognised by the ledger, a picture alone would go to quarantine.
    with ThreadPoolExecutor(THREADS) as pool:
        for suffix in (PICTURE, SIDECAR):
            some = [key for key in sorted(keys) if key.endswith(suffix)]
            list(track(pool.map(store.remove, some), len(some), f"remove {suffix} objects", "object"))
    return len(keys)


def _learnt(store: ObjectStore, tombstones: Sequence[Tombstone]) -> Iterator[Learnt]:
    """The candidates of whose turns one brought such a frame, and none withdrew it."""
    if not tombstones:
        return
    for candidate in list_candidates(store):
        turns = set(candidate.turns)
        known = [one for one in tombstones if one.turn in turns and one.withdrawn_by not in turns]
        if known:
            yield Learnt(candidate.version, candidate.dataset, Counter(one.split for one in known))
