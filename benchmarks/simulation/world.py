"""One deployment in simulated time: real ledger, real verbs of the rooms, real debouncing of events.

Bins upload; each upload is announced by an event, and events may be lost, doubled, late and out of order.
What the event gateway emits for them starts ingest runs, one at a time; those may be lost and doubled as
well. A run may die anywhere, and so may the sweep that comes every quarter of an hour.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from benchmarks.simulation.clock import SimulatedLoop
from benchmarks.simulation.fleet import FIRST_UPLOAD, Fleet, Upload
from benchmarks.support.fault_injection import Fuse, FusedLedger, FusedStore, Killed
from benchmarks.support.memory_store import MemoryStore, Objects
from flows.debouncer import Debouncer, NotYetError
from flows.events import INBOX
from ingest import (
    LOOK_SECONDS,
    Admission,
    DecoderPool,
    InboxWatch,
    IngestParams,
    ReceptionCounts,
    admit_uploads,
    deduplicate,
    drain_inbox,
    has_uploads,
    ingest_due,
    receive,
    split_into_shards,
    sweep_inbox,
)
from trashnet.ledger import locks, open_ledger
from trashnet.taxonomy import Taxonomy

T = TypeVar("T")
RUN_START_SECONDS = 5.0  # from an event to the first step of the run that it starts
LINGERING_SECONDS, COMING_SECONDS = 3600.0, 60.0  # as flows.ingest_frames and flows.events have them
SWEEP_SECONDS = 900.0
AFTERWARDS = timedelta(hours=26)  # after the last upload: what is incomplete goes to quarantine after a day


@dataclass(frozen=True)
class Faults:
    """Which part of events is lost or doubled, how late they are at most, and how soon a run dies.

    ``effects``: on store and ledger, after which a run dies on average; ``None`` for never.
    """

    lost: float = 0.05
    doubled: float = 0.05
    late_seconds: float = 60.0
    effects: int | None = 2000


UNDISTURBED = Faults(0.0, 0.0, 0.0, None)


@contextmanager
def short_locks() -> Iterator[None]:
    """The lock of a run that died is free after a moment of real time, as it is after a minute of simulated
    time.
    """
    seconds, poll = locks.LOCK_SECONDS, locks.POLL_SECONDS
    locks.LOCK_SECONDS, locks.POLL_SECONDS = 0.1, 0.02
    try:
        yield
    finally:
        locks.LOCK_SECONDS, locks.POLL_SECONDS = seconds, poll


@dataclass
class World:
    """A fleet, what becomes of its uploads, and what was counted and timed on the way.

    ``step_seconds``: how long a step of a run lasts in simulated time, while bins go on uploading;
    ``on_upload``: called after each upload with its number; ``spent``: real seconds by step.
    """

    fleet: Fleet
    faults: Faults
    url: str
    taxonomy: Taxonomy
    params: IngestParams
    decoders: DecoderPool
    step_seconds: float = 10.0
    on_upload: Callable[[int], None] = lambda _number: None
    counts: Counter[str] = field(default_factory=Counter)
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        """Nothing has happened yet."""
        self.random = random.Random(f"{self.fleet.seed} {self.faults}")
        self.loop = SimulatedLoop(FIRST_UPLOAD)
        self.objects = Objects()
        open_ledger(self.url).close()
        self._run, self._sweep = (Process(self.url, self.objects, self.loop) for _ in range(2))
        self.ledger = self._run.ledger
        self._uploads = iter(self.fleet)
        self._next: Upload | None = next(self._uploads, None)
        self._due = 0  # runs that were started and have not begun
        self._running = asyncio.Lock()  # the deployment's concurrency limit
        self._emitted_at, self._runs_then = float("-inf"), 0

    def live(self) -> None:
        """Everything, from the first upload to a day after the last one."""
        with short_locks():
            try:
                self.loop.run_until_complete(self._live())
            finally:
                self.loop.close()
                for process in (self._run, self._sweep):
                    process.begin(None)  # whoever looks at what is left does not die of it
                    process.ledger.close()

    async def _live(self) -> None:
        self._debouncer = Debouncer(self._emit)
        sweeper = asyncio.create_task(self._sweep_regularly())
        while self._next is not None:
            await asyncio.sleep(max(self.fleet.seconds(self._next.number) - self.loop.time(), 0))
            self._upload_due()
        await asyncio.sleep(AFTERWARDS.total_seconds())
        sweeper.cancel()
        await self._debouncer.close()
        async with self._running:
            self.faults = UNDISTURBED  # the last sweep: what is left is left for good
            if self._sweep_up():
                await self._drain()

    # The bins.

    def _upload_due(self) -> None:
        """Make the uploads whose time has come, and announce them."""
        while self._next is not None and self.fleet.seconds(self._next.number) <= self.loop.time():
            upload, self._next = self._next, next(self._uploads, None)
            bins = MemoryStore(self.objects, now=lambda: moment(self.fleet, upload.number))  # noqa: B023
            bins.put(f"{upload.stem}.jpg", upload.jpeg)
            if upload.sidecar is not None:
                bins.put(f"{upload.stem}.json", upload.sidecar)
                for _ in range(self._copies("events")):
                    late = self.random.uniform(0, self.faults.late_seconds)
                    self.loop.call_later(late, self._debouncer.notify, INBOX)
            self.counts["uploads"] += 1
            self.on_upload(upload.number)

    def _copies(self, what: str) -> int:
        """How many of one event arrive."""
        self.counts[what] += 1
        draw = self.random.random()
        if draw < self.faults.lost:
            self.counts[f"{what} lost"] += 1
            return 0
        if draw < self.faults.lost + self.faults.doubled:
            self.counts[f"{what} doubled"] += 1
            return 2
        return 1

    # The event gateway, Prefect and its schedule.

    async def _emit(self, _event: str, _count: int) -> None:
        """What :class:`flows.event_gateway.PrefectEmitter` does, which asks Prefect what is known here."""
        if self._due:
            self.counts["emissions covered"] += 1
            return
        is_coming = (
            self.loop.time() - self._emitted_at < COMING_SECONDS and self.counts["runs"] <= self._runs_then
        )
        if self._running.locked() or is_coming:
            raise NotYetError
        if not has_uploads(MemoryStore(self.objects)):
            return
        self._emitted_at, self._runs_then = self.loop.time(), self.counts["runs"]
        for _ in range(self._copies("emissions")):
            self._due += 1
            self.loop.create_task(self._start_run())

    async def _start_run(self) -> None:
        await asyncio.sleep(RUN_START_SECONDS)
        async with self._running:
            self._due -= 1
            await self._drain()

    async def _sweep_regularly(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._sweep_up() and not self._due and not self._running.locked():
                self._due += 1
                self.loop.create_task(self._start_run())

    # What they start.

    def _sweep_up(self) -> bool:
        """The steps of the sweep that concern ingest; whether it has work."""
        self.counts["sweeps"] += 1
        store, ledger = self._sweep.begin(self._effects())
        try:
            self._timed("sweep", lambda: sweep_inbox(store, ledger, self.params, self.loop.now()))
            return bool(self._timed("due", lambda: ingest_due(store, ledger, self.params)))
        except Killed:
            self.counts["deaths"] += 1
            return False

    async def _drain(self) -> None:
        """An ingest run, as :func:`flows.ingest_frames.ingest` is one."""
        self.counts["runs"] += 1
        store, ledger = self._run.begin(self._effects())
        began, watch = self.loop.time(), InboxWatch(store)

        def wait_for_more() -> bool:
            if self.loop.time() - began >= LINGERING_SECONDS:
                return False
            until = self.loop.time() + self.params.linger_seconds
            while not watch.look():
                if self.loop.time() + LOOK_SECONDS > until:
                    return False
                self._pass_time(LOOK_SECONDS)
            return True

        try:
            watch.look()
            for done in drain_inbox(
                lambda before: self._admit(store, ledger, before),
                lambda keys: self._receive(store, ledger, keys),
                lambda: self._timed("deduplicate", lambda: deduplicate(store, ledger, self.params)),
                wait_for_more,
            ):
                self.counts["rounds"] += 1
                self.counts["accepted"] += done.deduplicated.accepted
                await asyncio.sleep(self.step_seconds)
        except Killed:
            self.counts["deaths"] += 1

    def _effects(self) -> int | None:
        """After how many effects the next process dies."""
        mean = self.faults.effects
        return None if mean is None else int(self.random.expovariate(1 / mean))

    def _admit(self, store: FusedStore, ledger: FusedLedger, before: Admission | None) -> Admission:
        admission = self._timed("list", lambda: admit_uploads(store, ledger, self.params, before))
        self._pass_time(self.step_seconds)
        return admission

    def _receive(self, store: FusedStore, ledger: FusedLedger, keys: Sequence[str]) -> ReceptionCounts:
        total = ReceptionCounts()
        for shard in split_into_shards(keys, self.params.shard_size):
            step = partial(receive, store, ledger, shard, self.taxonomy, self.params, decoders=self.decoders)
            total += self._timed("receive", step)
        return total

    def _pass_time(self, seconds: float) -> None:
        """A step of a run takes time, and the bins do not wait for it."""
        self.loop.seconds += seconds
        self._upload_due()

    def _timed(self, name: str, step: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            return step()
        finally:
            self.spent[name] += time.perf_counter() - start


class Process:
    """The store and the ledger as one process sees them, which may die."""

    def __init__(self, url: str, objects: Objects, loop: SimulatedLoop) -> None:
        self.store = FusedStore(objects, Fuse(), now=loop.now)
        self.ledger = FusedLedger(url, Fuse())

    def begin(self, effects: int | None) -> tuple[FusedStore, FusedLedger]:
        """A new process, which dies after so many effects (``None``: never)."""
        self.store.fuse = self.ledger.fuse = Fuse(effects)
        return self.store, self.ledger


def moment(fleet: Fleet, number: int) -> datetime:
    """When an upload is made."""
    return FIRST_UPLOAD + timedelta(seconds=fleet.seconds(number))
