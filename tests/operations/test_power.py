"""Runs whose worker is gone, leases while Prefect restarts, and who may call Prefect: on a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.active_runs import (
    ActiveRun,
    end_orphaned_subflows,
    end_runs,
    has_due_run,
    read_active_runs,
    start_run,
)
from flows.events import Announcements
from flows.prefect_api import open_api, post, send
from operations.stack import Server, find_free_port, prefect_environment, start_prefect, start_worker, watcher
from operations.stack.leases import FOLDER, extend_leases
from operations.stack.process import spawn
from operations.stack.servers import AUTH_VARIABLE, end_abandoned_runs
from operations.status import collect_status
from trashnet.settings import Settings

pytestmark = pytest.mark.alone  # other tests' Prefect servers and clients in one process disturb these

AUTH = "flywheel:a-password-of-the-tests"
DEPLOYMENT = "wait/wait"
# A flow that lasts until a file appears. It renews its lease every second, instead of every 225.
FLOW = """
import time
from pathlib import Path
from prefect import flow
from prefect.concurrency import _leases

_leases._RENEWAL_FRACTION = 1 / 300

@flow(name="wait")
def wait(end: str) -> None:
    with open(end + ".started", "a") as started:
        started.write("once\\n")
    while not Path(end).exists():
        time.sleep(0.2)
"""
SET_UP = """
import sys
from prefect import flow
flow.from_source(sys.argv[1], "flow.py:wait").deploy(
    "wait", work_pool_name="flywheel", concurrency_limit=1, parameters={"end": sys.argv[2]},
    build=False, push=False, print_next_steps=False)
"""


@dataclass
class Stack:
    """Prefect, its worker and one deployment that runs once at a time."""

    folder: Path
    port: int
    prefect: Server
    workers: list[Server] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """Prefect's."""
        return self.folder / "prefect"

    @property
    def api(self) -> httpx.Client:
        """Its API."""
        return open_api(f"{self.prefect.url}/api", AUTH)

    def restart_prefect(self) -> None:
        """As a hard end: nothing is written any more."""
        kill(self.prefect)
        self.prefect = start_prefect(self.home, self.port, auth=AUTH)

    def start_worker(self) -> Server:
        """A worker."""
        settings = {AUTH_VARIABLE: AUTH, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        self.workers.append(start_worker(self.home, self.prefect.url, settings, root=self.folder))
        return self.workers[-1]

    def states(self) -> list[str]:
        """Of all runs, in the order in which they were made."""
        with self.api as api:
            found: list[dict[str, Any]] = post(api, "/flow_runs/filter", sort="ID_DESC").json()
        return [run["state_type"] for run in sorted(found, key=lambda run: run["created"])]

    def start(self) -> Path:
        """Let a run start, and wait until it runs; the file that ends it."""
        end = self.folder / "end"
        started = end.with_suffix(".started")
        before = started.read_text().count("once") if started.exists() else 0
        with self.api as api:
            start_run(api, DEPLOYMENT)
        until(lambda: started.exists() and started.read_text().count("once") > before, 90)
        return end


def kill(server: Server) -> None:
    """Kill the server and all its processes at once; wait until its subreaper is gone too."""
    leaders = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], text=True)
    for pid in [int(text) for text in leaders.split()]:
        os.killpg(pid, signal.SIGKILL)
    server.process.wait(30)


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until that holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def prefect_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Prefect server of our own, because these tests kill it."""
    folder = tmp_path_factory.mktemp("power")
    (folder / "flow.py").write_text(FLOW)
    port = find_free_port()
    stack = Stack(folder, port, start_prefect(folder / "prefect", port, auth=AUTH))
    environment = os.environ | prefect_environment(stack.home, stack.prefect.url) | {AUTH_VARIABLE: AUTH}
    pool = [sys.executable, "-m", "prefect", "work-pool", "create", "flywheel", "--type", "process"]
    deploy = [sys.executable, "-c", SET_UP, str(folder), str(folder / "end")]
    for command in (pool, deploy):
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    yield stack
    for server in (*stack.workers, stack.prefect):
        server.stop()


def test_a_restart_of_prefect_does_not_end_a_run(prefect_stack: Stack) -> None:
    """A run renews its lease at the server that came back, even a lease that expired meanwhile."""
    worker = prefect_stack.start_worker()
    end = prefect_stack.start()
    kill(prefect_stack.prefect)
    [lease] = [path for path in (prefect_stack.home / FOLDER).glob("*.json") if path.stem != "expirations"]
    past = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"expiration": past}))
    prefect_stack.prefect = start_prefect(prefect_stack.home, prefect_stack.port, auth=AUTH)
    time.sleep(15)  # renewals, and a look of Prefect's at expired leases
    assert prefect_stack.states() == ["RUNNING"]
    end.touch()
    until(lambda: prefect_stack.states() == ["COMPLETED"], 60)
    end.unlink()
    worker.stop()


def test_after_a_power_cut_the_run_is_crashed_and_the_next_one_runs(prefect_stack: Stack) -> None:
    """Worker, run and Prefect are killed at once: before a new worker starts the slot is free again."""
    worker, before = prefect_stack.start_worker(), len(prefect_stack.states())
    prefect_stack.start()
    kill(worker)
    prefect_stack.restart_prefect()
    assert prefect_stack.states()[before:] == ["RUNNING"], "Prefect does not notice by itself"
    [ended] = end_abandoned_runs(prefect_stack.home, prefect_stack.prefect.url, AUTH)
    assert ended.startswith("wait ")
    assert prefect_stack.states()[before:] == ["CRASHED"]
    assert end_abandoned_runs(prefect_stack.home, prefect_stack.prefect.url, AUTH) == []
    worker = prefect_stack.start_worker()
    prefect_stack.start().touch()
    until(lambda: prefect_stack.states()[before:] == ["CRASHED", "COMPLETED"], 60)
    (prefect_stack.folder / "end").unlink()
    worker.stop()


def test_a_run_is_abandoned_once_its_worker_sends_no_heartbeat(
    prefect_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is named by Prefect; while the worker lives the run is not touched, however old it is."""
    worker, before = prefect_stack.start_worker(), len(prefect_stack.states())
    prefect_stack.start()
    with prefect_stack.api as api:
        [run], now = read_active_runs(api)
        assert run.worker is not None
        assert run.heartbeat is not None
        assert not run.is_abandoned(now)
        kill(worker)
        [run], now = read_active_runs(api)
        later = now + timedelta(seconds=301)
        assert not run.is_abandoned(now)
        assert run.is_abandoned(later)
        # Prefect's clock is read from the date of its answers, which lags by up to two seconds.
        monkeypatch.setattr("operations.status.collection.OFFLINE_AFTER", timedelta(seconds=-5))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PREFECT_API_URL", f"{prefect_stack.prefect.url}/api")
        monkeypatch.setenv(AUTH_VARIABLE, AUTH)
        status = collect_status(nobody_else())
        assert status.facts["runs"]["abandoned"] == [f"wait {run.name}"]
        assert [note for note in status.degraded if f"wait {run.name} has no worker any more" in note]
        assert [str(ended) for ended in end_runs(api, [run], "it is gone")] == [f"wait {run.name}"]
        assert end_runs(api, [run], "it is gone") == [], "what has ended keeps its state"
    assert prefect_stack.states()[before:] == ["CRASHED"]


def test_a_subflow_ends_with_the_run_that_started_it(prefect_stack: Stack) -> None:
    """After a power cut its run would seem to run for ever: no worker runs it, and it holds no slot."""
    with prefect_stack.api as api:
        flow = send(api, "GET", f"/deployments/name/{DEPLOYMENT}").json()["flow_id"]
        running = {"type": "RUNNING"}
        parent = post(api, "/flow_runs/", flow_id=flow, state=running).json()["id"]
        keys = {"task_key": "subflow", "dynamic_key": "0"}
        started_by = post(api, "/task_runs/", flow_run_id=parent, state=running, **keys).json()["id"]
        subflow = post(api, "/flow_runs/", flow_id=flow, parent_task_run_id=started_by, state=running).json()[
            "id"
        ]
        assert end_orphaned_subflows(api) == [], "the run that started it still runs"
        post(api, f"/flow_runs/{parent}/set_state", state={"type": "CRASHED"}, force=True)
        assert [run.id for run in end_orphaned_subflows(api)] == [subflow]
        assert end_orphaned_subflows(api) == []
        assert send(api, "GET", f"/flow_runs/{subflow}").json()["state_type"] == "CRASHED"
        for run in (subflow, parent):
            send(api, "DELETE", f"/flow_runs/{run}")


def test_no_run_is_started_beside_one_that_is_due(prefect_stack: Stack) -> None:
    """A due run looks at all there is when it starts. A run for tomorrow is not due."""
    before = len(prefect_stack.states())
    with prefect_stack.api as api:
        assert not has_due_run(api, DEPLOYMENT)
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        deployment = send(api, "GET", f"/deployments/name/{DEPLOYMENT}").json()["id"]
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": tomorrow}}
        made = post(api, f"/deployments/{deployment}/create_flow_run", state=state).json()
        assert not has_due_run(api, DEPLOYMENT)
        for _ in range(2):
            start_run(api, DEPLOYMENT)
            assert has_due_run(api, DEPLOYMENT)
        assert len(prefect_stack.states()) == before + 2
        send(api, "DELETE", f"/flow_runs/{made['id']}")


def test_an_event_while_a_run_is_due_or_coming_is_not_needed(
    prefect_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between an event and the run that it starts lie seconds in which Prefect knows of no run."""
    monkeypatch.setattr("flows.events.connect_to_prefect", lambda: prefect_stack.api)
    monkeypatch.setattr("flows.events.LISTENERS", {"uploads": DEPLOYMENT})
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    with prefect_stack.api as api:
        start_run(api, DEPLOYMENT)
        announcements = Announcements()
        assert announcements.judge("uploads") == "covered"
        for run in post(api, "/flow_runs/filter", **scheduled).json():
            send(api, "DELETE", f"/flow_runs/{run['id']}")
        assert announcements.judge("uploads") == "needed"
        announcements.note("uploads")
        assert announcements.judge("uploads") == "coming"
        assert announcements.judge("another") == "needed"
        start_run(api, DEPLOYMENT)
        assert announcements.judge("uploads") == "covered"
        [run] = post(api, "/flow_runs/filter", **scheduled).json()
        post(api, f"/flow_runs/{run['id']}/set_state", state={"type": "RUNNING"}, force=True)
        assert announcements.judge("uploads") == "needed", "it may have looked already"
        monkeypatch.setattr("flows.events.LINGERING", {"uploads"})
        assert announcements.judge("uploads") == "coming", "it looks again before it ends"
        monkeypatch.setattr("flows.events.LINGERING", set())
        announcements.note("uploads")
        monkeypatch.setattr("flows.events.COMING_SECONDS", 0.0)
        assert announcements.judge("uploads") == "needed", "an event may be lost"
        send(api, "DELETE", f"/flow_runs/{run['id']}")


def test_prefect_answers_nobody_without_its_password_and_no_other_origin(prefect_stack: Stack) -> None:
    """A page of another site could else schedule a command as the operator."""
    url, elsewhere = f"{prefect_stack.prefect.url}/api/flow_runs/filter", {"Origin": "https://evil.example"}
    assert httpx.post(url, json={}).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.post(url, json={}, auth=("flywheel", "guessed")).status_code == httpx.codes.UNAUTHORIZED
    answer = httpx.post(url, json={}, headers=elsewhere, auth=tuple(AUTH.split(":", 1)))  # type: ignore[arg-type]
    assert answer.is_success
    assert "access-control-allow-origin" not in answer.headers
    own = httpx.post(url, json={}, headers={"Origin": prefect_stack.prefect.url})
    assert own.headers["access-control-allow-origin"] == prefect_stack.prefect.url
    assert AUTH.partition(":")[2] not in prefect_stack.prefect.log.read_text()


def nobody_else() -> Settings:
    """A deployment of which only Prefect answers."""
    nobody = f"http://127.0.0.1:{find_free_port()}"
    return Settings(
        _env_file=None,
        s3_endpoint=nobody,
        s3_access_key="none",
        s3_secret_key="none",
        label_studio_url=nobody,
        label_studio_token="none",
        gateway_url=nobody,
        gateway_secret="a-secret-of-16-letters",
    )


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "worker", "heartbeat", "abandoned"),
    [
        (600, "w", 10, False),  # a long run of a live worker
        (600, "w", 301, True),
        (600, "w", 300, False),  # exactly the timeout
        (10, "w", 301, False),  # it has just begun: the heartbeat is an older one
        (600, "w", None, True),  # Prefect has forgotten the worker
        (600, None, None, True),  # its worker died before it put its name on it
        (299, None, None, False),
    ],
)
def test_when_a_run_counts_as_abandoned(
    since: int, worker: str | None, heartbeat: int | None, abandoned: bool
) -> None:
    """Seconds ago: the state began, and its worker's last heartbeat. The timeout is 300 s."""
    last = None if heartbeat is None else NOON - timedelta(seconds=heartbeat)
    run = ActiveRun("1", "name", "flow", "RUNNING", NOON - timedelta(seconds=since), worker, last)
    assert run.is_abandoned(NOON) == abandoned


def test_a_lease_gets_a_whole_term_and_a_broken_file_is_left_alone(tmp_path: Path) -> None:
    """Only leases: the folder's index is not one."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    lease = {"id": "a", "expiration": "2026-01-01T00:00:00+00:00", "resource_ids": []}
    (folder / "a.json").write_text(json.dumps(lease))
    (folder / "b.json").write_text("{")
    (folder / "expirations.json").write_text('{"a": "2026-01-01T00:00:00+00:00"}')
    assert extend_leases(tmp_path) == 1
    extended = json.loads((folder / "a.json").read_text())
    term = datetime.fromisoformat(extended["expiration"]) - datetime.now(UTC)
    assert 295 < term.total_seconds() <= 300
    assert extended | {"expiration": lease["expiration"]} == lease
    assert (folder / "b.json").read_text() == "{"
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json", "expirations.json"]
    assert extend_leases(tmp_path / "none") == 0


def test_the_worker_is_not_restarted_because_prefect_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows its health by Prefect, and restarting it would end its runs; silent for long, it is hung."""
    for name, value in (("CHECK_SECONDS", 0.0), ("STARTING_CHECK_SECONDS", 0.0), ("MIN_RESTART_DELAY", 0.0)):
        monkeypatch.setattr(watcher, name, value)
    monkeypatch.setattr(watcher, "MAX_FAILED_CHECKS", 2)
    monkeypatch.setattr(watcher, "MAX_FAILED_CHECKS_OF_CALLERS", 6)
    monkeypatch.setattr(watcher, "MAX_RESTART_DELAY", 0.0)
    healthy = {"Prefect": True, "worker": True}

    def server(name: str) -> Server:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        log = tmp_path / f"{name}.log"
        return spawn(name, command, url="", log=log, is_healthy=lambda: healthy[name])

    lines: list[str] = []
    prefect = watcher.ServerWatcher("prefect", lambda: server("Prefect"), lines.append)
    worker = watcher.ServerWatcher("worker", lambda: server("worker"), lines.append, prefect)

    def check(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        with ThreadPoolExecutor(2) as pool:
            while not holds():
                assert time.monotonic() < deadline, lines
                prefect.check(pool)
                worker.check(pool)
                time.sleep(0.01)

    try:
        check(lambda: prefect.state == worker.state == "up")
        healthy |= {"Prefect": False, "worker": False}
        check(lambda: prefect.restarts == 1)
        restarted = time.monotonic()
        check(lambda: time.monotonic() - restarted > 1)  # dozens of failed checks
        assert worker.restarts == 0
        healthy["Prefect"] = True
        check(lambda: worker.restarts == 1)
        assert worker.note == "does not answer any more"
    finally:
        for one in (prefect, worker):
            one.server.stop()
