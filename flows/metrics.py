"""Prometheus metrics of a deployment, served by the event gateway at ``/metrics``.

The ledger and Prefect are asked at most once in :data:`FRESH_SECONDS`, however often somebody scrapes, and
the store as :mod:`flows.gate_metrics` says. What cannot be read is left out, and ``trashnet_up`` of its
source is 0.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from flows.debouncer import Emit
from flows.gate_metrics import GateMetrics
from trashnet.ledger import STATES, Ledger, State, open_ledger
from trashnet.settings import Settings
from trashnet.store import open_store

FRESH_SECONDS = 15.0
WAITING_STATES: tuple[State, ...] = ("received", "accepted", "tasked", "labelled")
ACTIVE_STATES = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
FINISHED_STATES = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
MAX_RUNS = 200  # in one answer of Prefect: its own limit
RUN_SECONDS_BUCKETS = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)

log = logging.getLogger("gateway")


class Metrics:
    """The gauges, counters and histograms of one deployment."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._registry = settings, CollectorRegistry()
        self._refreshed, self._lock = float("-inf"), asyncio.Lock()
        self._finished_until = datetime.now(UTC)
        self._seen: set[UUID] = set()  # runs that ended at the very moment `_finished_until`
        self._flow_names: dict[UUID, str] = {}

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self._registry)

        self._up = gauge("trashnet_up", "Whether this source of metrics answered.", "source")
        self._frames = gauge("trashnet_frames", "Frames in the ledger by their state.", "state")
        self._oldest = gauge(
            "trashnet_oldest_frame_age_seconds", "Since the oldest frame in this state was captured.", "state"
        )
        self._quarantined = gauge("trashnet_quarantined_frames", "Refused uploads by reason.", "reason")
        self._removed = gauge("trashnet_removed", "What retention has removed so far.", "what")
        self._removed_bytes = gauge("trashnet_removed_bytes", "Bytes of what retention removed.", "what")
        self._labels = gauge("trashnet_labels_to_grow", "Frames with labels that the dataset does not have.")
        self._untrained = gauge("trashnet_untrained_frames", "Frames of the dataset that no candidate knows.")
        self._active = gauge("trashnet_flow_runs", "Flow runs that have not ended.", "flow", "state")
        self._run_seconds = Histogram(
            "trashnet_flow_run_seconds",
            "How long flow runs took, by how they ended.",
            ("flow", "state"),
            buckets=RUN_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._notifications = Counter(
            "trashnet_notifications",
            "Uploads and annotations announced.",
            ("event",),
            registry=self._registry,
        )
        self._events = Counter("trashnet_events", "Events emitted.", ("event",), registry=self._registry)
        self._gate = GateMetrics(lambda: open_store(settings), self._registry)

    def counted(self, emit: Emit) -> Emit:
        """``emit``, whose successes are counted."""

        async def emit_and_count(event: str, count: int) -> None:
            await emit(event, count)
            self._events.labels(event).inc()
            self._notifications.labels(event).inc(count)

        return emit_and_count

    async def expose(self) -> bytes:
        """All metrics in Prometheus's text format."""
        async with self._lock:
            if time.monotonic() - self._refreshed >= FRESH_SECONDS:
                for source, refresh in (
                    ("ledger", self._refresh_ledger),
                    ("prefect", self._refresh_runs),
                    ("store", self._gate.refresh),
                ):
                    try:
                        await refresh()
                        self._up.labels(source).set(1)
                    except Exception as error:  # a scrape must show what can be read, whatever is down
                        log.warning("no metrics of %s: %s", source, error)
                        self._up.labels(source).set(0)
                self._refreshed = time.monotonic()
            return generate_latest(self._registry)

    async def _refresh_ledger(self) -> None:
        for metric in (self._frames, self._oldest, self._quarantined):
            metric.clear()
        await asyncio.to_thread(self._read_ledger)

    def _read_ledger(self) -> None:
        ledger = open_ledger(self._settings.ledger_url, migrate=False)
        try:
            self._set_frames(ledger)
        finally:
            ledger.close()

    def _set_frames(self, ledger: Ledger) -> None:
        counts, now = ledger.count_by_state(), datetime.now(UTC)
        for state in STATES:
            self._frames.labels(state).set(counts.get(state, 0))
        for state in WAITING_STATES:
            oldest = ledger.oldest_capture(state)
            self._oldest.labels(state).set((now - oldest).total_seconds() if oldest else 0)
        for reason, count in ledger.count_quarantined().items():
            self._quarantined.labels(reason).set(count)
        for removal in ledger.removals():
            self._removed.labels(removal.what).set(removal.count)
            self._removed_bytes.labels(removal.what).set(removal.bytes)
        self._labels.set(ledger.count_labels_to_grow())
        self._untrained.set(ledger.count_untrained_frames())

    async def _refresh_runs(self) -> None:
        self._active.clear()
        async with get_client() as client:
            active = await client.read_flow_runs(flow_run_filter=_in_states(*ACTIVE_STATES), limit=MAX_RUNS)
            finished = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    state=_in_states(*FINISHED_STATES).state,
                    # A run's end is written a moment after it: what ended a moment ago is asked for again.
                    end_time=FlowRunFilterEndTime(after_=self._finished_until - timedelta(seconds=60)),
                ),
                sort=FlowRunSort.END_TIME_DESC,
                limit=MAX_RUNS,
            )
            if unknown := {run.flow_id for run in [*active, *finished]} - self._flow_names.keys():
                flows = await client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=list(unknown))))
                self._flow_names |= {flow.id: flow.name for flow in flows}
        now = datetime.now(UTC)
        for run in active:
            if run.state_type != StateType.SCHEDULED or (run.expected_start_time or now) <= now:
                self._active.labels(*self._labels_of(run)).inc()
        new = [run for run in finished if run.id not in self._seen and run.end_time is not None]
        for run in new:
            self._run_seconds.labels(*self._labels_of(run)).observe(run.total_run_time.total_seconds())
        self._seen = {run.id for run in finished}
        self._finished_until = max([self._finished_until, *(run.end_time for run in new if run.end_time)])

    def _labels_of(self, run: FlowRun) -> tuple[str, str]:
        state = run.state_type.value.lower() if run.state_type else "unknown"
        return self._flow_names.get(run.flow_id, "unknown"), state


def _in_states(*types: StateType) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))))
