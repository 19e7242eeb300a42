"""Prometheus metrics of the gate: what it said of the newest candidate, and the age of the models in use.

The store is looked at once in :data:`FRESH_SECONDS` at most, in a thread; a scrape waits for it no longer
than :data:`MAX_WAIT_SECONDS`.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

from trashnet.errors import UserError
from trashnet.models import ROLES
from trashnet.store import ObjectStore

if TYPE_CHECKING:
    from export import GateState, GateWatch

FRESH_SECONDS = 60.0
MAX_WAIT_SECONDS = 3.0  # a store that is down is tried again for longer than a scrape may take
OUTCOMES = ("passes", "holds", "blocks")


class GateMetrics:
    """The gauges of one store's gate."""

    def __init__(self, open_store: Callable[[], ObjectStore], registry: CollectorRegistry) -> None:
        """The store is opened when it is first asked."""

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self._outcome = gauge(
            "trashnet_gate_outcome",
            "1 for what the gate said last of the newest candidate's model.",
            "role",
            "outcome",
        )
        self._blocked = gauge(
            "trashnet_gate_blocked_in_a_row", "Candidates in a row whose model was blocked.", "role"
        )
        self._held = gauge(
            "trashnet_gate_held_seconds",
            "Since the newest candidate, whose model is held, was published; 0 if none is held.",
            "role",
        )
        self._waiting = gauge(
            "trashnet_gate_waiting_seconds",
            "Since the newest candidate, which the gate has yet to judge, was published; else 0.",
        )
        self._wanted = gauge(
            "trashnet_gate_frames_wanted", "Exploration frames more that would decide what is held."
        )
        self._champion = gauge(
            "trashnet_champion_age_seconds", "Since the model in use was published.", "role"
        )
        self._open_store = open_store
        self._watch: GateWatch | None = None
        self._looking: asyncio.Task[GateState] | None = None
        self._looked = float("-inf")

    async def refresh(self) -> None:
        """Set the gauges to what is true now; without any if the store does not say it in time.

        Raises :class:`UserError` then.
        """
        if self._looking is None or (
            self._looking.done() and time.monotonic() - self._looked >= FRESH_SECONDS
        ):
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(asyncio.to_thread(self._look))
        await asyncio.wait([self._looking], timeout=MAX_WAIT_SECONDS)
        self._clear()
        if not self._looking.done():
            raise UserError(f"the store has not answered within {MAX_WAIT_SECONDS:.0f} s")
        self._set(self._looking.result(), datetime.now(UTC))

    def _look(self) -> "GateState":
        from export import GateWatch  # takes a second, which the gateway should not begin with

        if self._watch is None:
            self._watch = GateWatch(self._open_store())
        return self._watch.look()

    def _clear(self) -> None:
        for metric in (self._outcome, self._blocked, self._held, self._champion):
            metric.clear()
        self._waiting.set(float("nan"))
        self._wanted.set(float("nan"))

    def _set(self, state: "GateState", now: datetime) -> None:
        def age(moment: datetime | None) -> float:
            return max((now - moment).total_seconds(), 0.0) if moment is not None else 0.0

        for role in ROLES:
            for outcome in OUTCOMES:
                self._outcome.labels(role, outcome).set(state.outcomes.get(role) == outcome)
            self._blocked.labels(role).set(state.blocked_in_a_row[role])
            self._held.labels(role).set(age(state.held_since.get(role)))
            if role in state.champions:
                self._champion.labels(role).set(age(state.champions[role]))
        self._waiting.set(age(state.waiting_since))
        self._wanted.set(state.frames_wanted)
