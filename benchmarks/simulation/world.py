"""One deployment in simulated time: real ledger, real verbs of the rooms, real debouncing of events.

Bins upload; each upload is announced by an event, and events may be lost, doubled, late and out of order.
What
the event gateway emits for them starts ingest runs, one at a time; those may be lost and doubled as well, and
a run may die anywhere. A sweep comes every quarter of an hour.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from benchmarks.simulation.clock import SimulatedLoop
from benchmarks.simulation.fleet import FIRST_UPLOAD, Fleet, Upload
from benchmarks.support.fault_injection import Fuse, FusedLedger, FusedStore, Killed
from benchmarks.support.memory_store import MemoryStore, Objects
from flows.debouncer import Debouncer
from flows.events import INBOX
from ingest import (
    DecoderPool,
    IngestParams,
    ReceptionCounts,
    admit_uploads,
    deduplicate,
    drain_inbox,
    ingest_due,
    receive,
    split_into_shards,
    sweep_inbox,
)
from trashnet.ledger import locks, open_ledger
from trashnet.taxonomy import Taxonomy

RUN_START_SECONDS = 5.0  # from an event to the first step of the run that it starts
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
    spent: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Nothing has happened yet."""
        self.random = random.Random(f"{self.fleet.seed} {self.faults}")
        self.loop = SimulatedLoop(FIRST_UPLOAD)
        self.objects = Objects()
        self.store = FusedStore(self.objects, Fuse(), now=self.loop.now)
        open_ledger(self.url).close()
        self.ledger = FusedLedger(self.url, Fuse())
        self._uploads = iter(self.fleet)
        self._next: Upload | None = next(self._uploads, None)
        self._due = 0  # runs that were started and have not begun
        self._running = asyncio.Lock()

    def live(self) -> None:
        """Everything, from the first upload to a day after the last one."""
        with short_locks():
            try:
                self.loop.run_until_complete(self._live())
            finally:
                self.loop.close()
                self.ledger.close()

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
            self._sweep()

    def _upload_due(self) -> None:
        """Make the uploads whose time has come, and announce them."""
        while self._next is not None and self.fleet.seconds(self._next.number) <= self.loop.time():
            upload, self._next = self._next, next(self._uploads, None)
            bins = MemoryStore(self.objects, now=lambda: moment(self.fleet, upload.number))  # noqa: B023
            bins.put(f"{upload.stem}.jpg", upload.jpeg)
            if upload.sidecar is not None:
                bins.put(f"{upload.stem}.json", upload.sidecar)
                for _ in range(self._copies("events")):
                    self.loop.call_later(
                        self.random.uniform(0, self.faults.late_seconds), self._debouncer.notify, INBOX
                    )
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

    async def _emit(self, _event: str, _count: int) -> None:
        """What :class:`flows.event_gateway.PrefectEmitter` does: no event while a run is due."""
        if self._due:
            self.counts["emissions covered"] += 1
            return
        for _ in range(self._copies("emissions")):
            self._due += 1
            self.loop.create_task(self._run())

    async def _run(self) -> None:
        await asyncio.sleep(RUN_START_SECONDS)
        async with self._running:  # the deployment's concurrency limit
            self._due -= 1
            self._drain()

    async def _sweep_regularly(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if not self._due and not self._running.locked():
                self._sweep()

    def _sweep(self) -> None:
        self.counts["sweeps"] += 1
        with self._mortal():
            self._timed("sweep", lambda: sweep_inbox(self.store, self.ledger, self.params, self.loop.now()))
            if not self._timed("due", lambda: ingest_due(self.store, self.ledger, self.params)):
                return
        self._drain()

    @contextmanager
    def _mortal(self) -> Iterator[None]:
        """Within this block the process may die, with nothing more of it reaching the world."""
        effects = self.faults.effects
        fuse = Fuse(None if effects is None else int(self.random.expovariate(1 / effects)))
        self.store.fuse = self.ledger.fuse = fuse
        try:
            yield
        except Killed:
            self.counts["deaths"] += 1

    def _drain(self) -> None:
        """An ingest run."""
        self.counts["runs"] += 1
        with self._mortal():
            for done in drain_inbox(
                lambda: self._timed("list", self._list_shards),
                self._receive_shards,
                lambda: self._timed("deduplicate", lambda: deduplicate(self.store, self.ledger, self.params)),
            ):
                self.counts["rounds"] += 1
                self.counts["accepted"] += done.deduplicated.accepted

    def _list_shards(self) -> list[list[str]]:
        keys = admit_uploads(self.store, self.ledger, self.params).keys
        self._pass_time()
        return split_into_shards(keys, self.params.shard_size)

    def _receive_shards(self, shards: Sequence[list[str]]) -> ReceptionCounts:
        total = ReceptionCounts()
        for shard in shards:
            total += self._timed(
                "receive",
                lambda keys: receive(
                    self.store, self.ledger, keys, self.taxonomy, self.params, decoders=self.decoders
                ),
                shard,
            )
            self._pass_time()
        return total

    def _pass_time(self) -> None:
        """A step of a run takes time, and the bins do not wait for it."""
        self.loop.seconds += self.step_seconds
        self._upload_due()

    def _timed(self, name, step, *arguments):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        try:
            return step(*arguments)
        finally:
            self.spent[name] += time.perf_counter() - start


def moment(fleet: Fleet, number: int) -> datetime:
    """When an upload is made."""
    return FIRST_UPLOAD + timedelta(seconds=fleet.seconds(number))
