"""Which event starts what, and that one event is emitted at a time."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.support.memory_store import MemoryStore
from flows import event_gateway
from flows.debouncer import Debouncer, NotYetError
from flows.events import INBOX, LISTENERS
from tests.conftest import REPOSITORY
from trashnet.store import StoreDown


def test_the_listeners_are_those_of_prefect_yaml() -> None:
    """An event whose listener is another would be held back for the wrong run, and one that carries
    parameters is never held back: a run that is due has others.
    """
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    triggers = {
        event: f"{one['entrypoint'].rpartition(':')[2].replace('_', '-')}/{one['name']}"
        for one in deployments
        for trigger in one.get("triggers", [])
        if not trigger.get("parameters")
        for event in trigger["expect"]
    }
    assert triggers == LISTENERS


def test_emissions_of_one_event_never_overlap_and_no_notification_is_lost() -> None:
    """What arrives while an event is being emitted is emitted after it: 1 + 2 notifications, two events."""
    emitted: list[tuple[int, float, float]] = []

    async def emit(_: str, count: int) -> None:
        began = time.monotonic()
        await asyncio.sleep(0.3)
        emitted.append((count, began, time.monotonic()))

    async def scenario() -> None:
        debouncer = Debouncer(emit, quiet=0.05, max_wait=1.0)
        debouncer.notify(INBOX)
        await asyncio.sleep(0.1)
        debouncer.notify(INBOX)
        await asyncio.sleep(0.1)
        debouncer.notify(INBOX)
        await asyncio.sleep(1.0)

    asyncio.run(scenario())
    assert [count for count, _, _ in emitted] == [1, 2]
    assert emitted[0][2] <= emitted[1][1]


def test_a_notification_whose_need_cannot_be_known_yet_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is emitted with those that came meanwhile."""
    monkeypatch.setattr("flows.debouncer.RETRY_SECONDS", 0.1)
    emitted: list[int] = []
    refusals = [NotYetError(), NotYetError()]

    async def emit(_: str, count: int) -> None:
        if refusals:
            raise refusals.pop()
        emitted.append(count)

    async def scenario() -> None:
        debouncer = Debouncer(emit, quiet=0.02, max_wait=1.0)
        debouncer.notify(INBOX)
        await asyncio.sleep(0.05)
        debouncer.notify(INBOX)
        await asyncio.sleep(0.5)

    asyncio.run(scenario())
    assert emitted == [2]


def test_no_run_is_ended_before_prefect_has_answered_for_the_whole_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While Prefect is down no worker can send a heartbeat: that is no sign that the worker is gone."""
    monkeypatch.setattr(event_gateway, "RUNS_SECONDS", 0.05)
    monkeypatch.setattr(event_gateway, "WORKER_TIMEOUT", timedelta(seconds=0.6))
    began = time.monotonic()
    ended: list[float] = []

    def read_runs() -> None:
        if 0.3 < time.monotonic() - began < 0.5:
            raise httpx.ConnectError("Prefect restarts")

    monkeypatch.setattr(event_gateway, "_read_runs", read_runs)
    monkeypatch.setattr(event_gateway, "end_abandoned_runs", lambda: ended.append(time.monotonic() - began))

    async def scenario() -> None:
        watching = asyncio.create_task(event_gateway.watch_runs())
        await asyncio.sleep(1.6)
        watching.cancel()

    asyncio.run(scenario())
    assert ended
    assert min(ended) >= 1.0  # it failed until about 0.45 s, and 0.6 s must pass after that


def test_uploads_that_a_run_has_taken_in_meanwhile_start_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inbox is looked at before the event is emitted; a store that is down does not keep it back."""
    emitted: list[str] = []

    class Client:
        async def __aenter__(self) -> "Client":
            return self

        async def __aexit__(self, *_: object) -> None:
            return

        async def emit(self, event: Any) -> None:
            emitted.append(event.event)

    monkeypatch.setattr(event_gateway.Announcements, "judge", lambda *_: "needed")
    monkeypatch.setattr(event_gateway, "get_events_client", lambda **_: Client())
    store = MemoryStore()
    asyncio.run(event_gateway.PrefectEmitter(store)(INBOX, 1))
    assert emitted == []
    store.put("inbox/bin01/2026-11-20/x.json", b"{}")
    asyncio.run(event_gateway.PrefectEmitter(store)(INBOX, 1))
    assert emitted == [INBOX]

    def is_down(*_: object) -> None:
        raise StoreDown("down")

    monkeypatch.setattr(store, "list", is_down)
    asyncio.run(event_gateway.PrefectEmitter(store)(INBOX, 1))
    assert emitted == [INBOX, INBOX]
