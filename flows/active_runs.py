"""Flow runs that are under way, by Prefect's HTTP API, and those that no worker runs any more.

After a power cut Prefect still calls a run "Running", and the run keeps its deployment's only slot. No
service of Prefect notices. Such a run is ended here, as crashed, which frees its slot.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from flows.prefect_api import post, send

WORK_POOL = "flywheel"
SWEEP = "sweep/sweep"
PAGE = 200  # runs in one answer; Prefect's maximum
WORKER_LABEL = "prefect.worker.name"  # with which a worker labels a run that it starts
DUE_WITHIN = timedelta(seconds=5)  # from now: HTTP's date lags behind the clock by up to two seconds
ACTIVE = ("PENDING", "RUNNING", "CANCELLING")  # states of runs that hold their deployment's slot
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# A worker sends a heartbeat every 30 s. While it waits for a Prefect server that was down, up to 240 s pass.
WORKER_TIMEOUT = timedelta(seconds=300)


@dataclass(frozen=True)
class ActiveRun:
    """A run that holds its deployment's slot, since ``since`` in this state.

    ``heartbeat`` is its worker's last one; ``None`` if Prefect knows no worker of that name.
    """

    id: str
    name: str
    flow: str
    state: str
    since: datetime
    worker: str | None
    heartbeat: datetime | None

    def is_abandoned(self, now: datetime, timeout: timedelta = WORKER_TIMEOUT) -> bool:
        """Whether no worker has shown for ``timeout`` that it runs this.

        A run that no worker has labelled yet, or whose worker has not sent a heartbeat yet, is as old as its
        state.
        """
        last = self.since if self.heartbeat is None else max(self.since, self.heartbeat)
        return now - last > timeout

    def __str__(self) -> str:
        return f"{self.flow} {self.name}"


def read_active_runs(api: httpx.Client) -> tuple[list[ActiveRun], datetime]:
    """The pool's runs that hold a slot, and the time on Prefect's clock."""
    where = {"flow_runs": {"state": {"type": {"any_": list(ACTIVE)}}}}
    response, found = _read_runs(api, **where, work_pools={"name": {"any_": [WORK_POOL]}})
    now = parsedate_to_datetime(response.headers["date"])
    if not found:
        return [], now
    workers = post(api, f"/work_pools/{WORK_POOL}/workers/filter").json()
    heartbeats = {worker["name"]: _moment(worker["last_heartbeat_time"]) for worker in workers}
    names = _flow_names(api, found)
    return [_active_run(run, names, heartbeats) for run in found], now


def end_runs(api: httpx.Client, runs: Iterable[ActiveRun], reason: str) -> list[ActiveRun]:
    """Mark runs as crashed, those that were being cancelled as cancelled; the runs that were.

    A run that has ended by itself meanwhile keeps its state.
    """
    ended = []
    for run in runs:
        state = "CANCELLED" if run.state == "CANCELLING" else "CRASHED"
        body = {"state": {"type": state, "name": state.title(), "message": reason}, "force": False}
        answer = send(api, "POST", f"/flow_runs/{run.id}/set_state", body).json()
        if answer["status"] == "ACCEPT":
            ended.append(run)
    return ended


def end_orphaned_subflows(api: httpx.Client) -> list[ActiveRun]:
    """Mark subflows' runs as crashed that are active although the run that started them has ended.

    A subflow runs in the process of the run that started it. It holds no slot, but would seem to run for
    ever. Returns the runs that were marked.
    """
    active = {"state": {"type": {"any_": list(ACTIVE)}}, "parent_task_run_id": {"is_null_": False}}
    _, found = _read_runs(api, flow_runs=active)
    orphans = []
    for start in range(0, len(found), PAGE):
        page = found[start : start + PAGE]
        starts = {"id": {"any_": [run["parent_task_run_id"] for run in page]}}
        started_by = {
            task["id"]: task["flow_run_id"]
            for task in post(api, "/task_runs/filter", task_runs=starts, limit=PAGE).json()
        }
        parents = {"id": {"any_": list(started_by.values())}, "state": {"type": {"any_": list(ENDED)}}}
        ended = {run["id"] for run in post(api, "/flow_runs/filter", flow_runs=parents, limit=PAGE).json()}
        orphans += [run for run in page if started_by.get(run["parent_task_run_id"]) in ended]
    names = _flow_names(api, orphans)
    runs = [_active_run(run, names, {}) for run in orphans]
    return end_runs(api, runs, "the run that started it has ended")


def free_all_slots(api: httpx.Client) -> None:
    """Set every concurrency limit's count of taken slots to 0. Call it only while nobody runs anything."""
    for limit in post(api, "/v2/concurrency_limits/filter").json():
        if limit["active_slots"]:
            send(api, "PATCH", f"/v2/concurrency_limits/{limit['id']}", {"active_slots": 0})


def start_run(api: httpx.Client, deployment: str) -> None:
    """Start a run of a deployment, ``flow/deployment``, unless one is under way or due."""
    found = send(api, "GET", f"/deployments/name/{deployment}").json()
    if not has_due_run(api, deployment, running_too=True):
        send(api, "POST", f"/deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})


def has_due_run(api: httpx.Client, deployment: str, *, running_too: bool = False) -> bool:
    """Whether a run of this deployment should start now; with ``running_too`` or does already.

    A run that has not started looks at all there is when it starts: another would find nothing.
    """
    flow, _, name = deployment.partition("/")
    states = ["SCHEDULED", "PENDING", *(["RUNNING"] if running_too else [])]
    response = post(
        api,
        "/flow_runs/filter",
        flows={"name": {"any_": [flow]}},
        deployments={"name": {"any_": [name]}},
        flow_runs={"state": {"type": {"any_": states}}},
        sort="EXPECTED_START_TIME_ASC",
        limit=1,
    )
    now = parsedate_to_datetime(response.headers["date"])
    return any(
        run["state_type"] != "SCHEDULED" or _moment(run["expected_start_time"]) < now + DUE_WITHIN
        for run in response.json()
    )


def count_runs(api: httpx.Client, deployment: str) -> int:
    """How many runs this deployment ever had."""
    flow, _, name = deployment.partition("/")
    where = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}}
    return int(post(api, "/flow_runs/count", **where).json())


def _read_runs(api: httpx.Client, **where: Any) -> tuple[httpx.Response, list[dict[str, Any]]]:
    """All runs that a filter finds, and the last answer."""
    found: list[dict[str, Any]] = []
    while True:
        response = post(api, "/flow_runs/filter", **where, limit=PAGE, offset=len(found))
        page = response.json()
        found += page
        if len(page) < PAGE:
            return response, found


def _flow_names(api: httpx.Client, runs: list[dict[str, Any]]) -> dict[str, str]:
    if not runs:
        return {}
    ids = sorted({run["flow_id"] for run in runs})
    flows = post(api, "/flows/filter", flows={"id": {"any_": ids}}).json()
    return {flow["id"]: flow["name"] for flow in flows}


def _active_run(
    run: dict[str, Any], flow_names: dict[str, str], heartbeats: dict[str, datetime]
) -> ActiveRun:
    worker = (run.get("labels") or {}).get(WORKER_LABEL)
    return ActiveRun(
        run["id"],
        run["name"],
        flow_names.get(run["flow_id"], "?"),
        run["state_type"],
        _moment(run["state"]["timestamp"]),
        worker,
        heartbeats.get(worker or ""),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
