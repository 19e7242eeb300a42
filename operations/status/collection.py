"""How the flywheel is, honestly: what can be seen is shown, what cannot is "unknown", with the reason.

Nothing here changes anything.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import httpx

from operations.stack import POOL
from operations.stack.run_state import StackPaths, find_run, read_environment_file
from operations.status.report import ServerStatus, Status
from trashnet.errors import UserError
from trashnet.settings import STACK_ENVIRONMENT_FILE, Settings, load_settings

ANSWER_SECONDS = 5.0  # for one request
TOTAL_SECONDS = 20.0  # for everything together
MAX_COUNTED = 10_000  # objects; a longer list is not counted to its end
RUNS_SHOWN, FAILED_WITHIN = 5, timedelta(hours=24)
STORE, LABEL_STUDIO, PREFECT, GATEWAY, WORKER = (
    "S3 server",
    "Label Studio",
    "Prefect",
    "event gateway",
    "worker",
)


def collect_status(settings: Settings | None = None) -> Status:
    """Look at everything, at most 20 seconds.

    Raises :class:`UserError` only if there are no settings to know where to look.
    """
    settings = settings or load_settings()
    api = os.environ.get("PREFECT_API_URL") or read_environment_file(STACK_ENVIRONMENT_FILE).get(
        "PREFECT_API_URL"
    )
    pool = ThreadPoolExecutor(16, thread_name_prefix="status")
    try:
        servers = _servers(settings, api, pool)
        down = {server.name: server.state for server in servers if not server.ok and server.name != WORKER}
        queries: dict[str, tuple[str | None, Callable[[], dict[str, Any]]]] = {
            "inbox": (STORE, lambda: _objects(settings, "inbox/", ".json")),
            "quarantine": (STORE, lambda: _objects(settings, "quarantine/", "")),
            "ledger": (None, lambda: _ledger(settings)),
            "tasks": (LABEL_STUDIO, lambda: _tasks(settings)),
            "dataset": (None, lambda: _dataset(settings)),
            "candidate": (STORE, lambda: _candidate(settings)),
            "runs": (PREFECT, lambda: _runs(api or "")),
        }
        # A server that is down is not asked: clients would try again and again.
        asked = {name: pool.submit(query) for name, (server, query) in queries.items() if server not in down}
        skipped = {
            name: {"unknown": f"{server} is {down[server]}"}
            for name, (server, _) in queries.items()
            if server in down
        }
        facts = skipped | _answers(asked)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    status = Status(
        datetime.now(UTC).isoformat(timespec="seconds"), servers, {name: facts[name] for name in queries}
    )
    status.degraded = _degraded(status, settings, embedded=find_run(StackPaths()) is not None)
    return status


def _answers(asked: "dict[str, Future[dict[str, Any]]]") -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    deadline = datetime.now() + timedelta(seconds=TOTAL_SECONDS)
    for name, answer in asked.items():
        try:
            facts[name] = answer.result(max(0.0, (deadline - datetime.now()).total_seconds()))
        except FutureTimeout:
            facts[name] = {"unknown": f"no answer within {TOTAL_SECONDS:.0f} s"}
        except (UserError, httpx.HTTPError, OSError) as error:
            facts[name] = {"unknown": str(error).partition("\n")[0] or type(error).__name__}
    return facts


def _servers(settings: Settings, api: str | None, pool: ThreadPoolExecutor) -> list[ServerStatus]:
    """Each server by a request of our own; the embedded stack's record adds what it knows of restarts."""
    record = find_run(StackPaths())
    asked = {
        STORE: (settings.s3_endpoint, pool.submit(_answers_at_all, settings.s3_endpoint)),
        LABEL_STUDIO: (
            settings.label_studio_url,
            pool.submit(_answers_well, f"{settings.label_studio_url}/health"),
        ),
        PREFECT: (
            (api or "").removesuffix("/api"),
            pool.submit(_answers_well, f"{api}/health", _prefect_auth()) if api else None,
        ),
        WORKER: ("", pool.submit(_workers_online, api) if api else None),
        GATEWAY: (settings.gateway_url, pool.submit(_answers_well, f"{settings.gateway_url}/health")),
    }
    keys = {
        STORE: "s3",
        LABEL_STUDIO: "label_studio",
        PREFECT: "prefect",
        WORKER: "worker",
        GATEWAY: "gateway",
    }
    found = []
    for name, (url, answer) in asked.items():
        ok = answer is not None and answer.result()
        state = "up" if ok else "down" if answer is not None else "unknown: PREFECT_API_URL is not set"
        if record is not None and (ours := record.servers.get(keys[name])) is not None:
            state = (
                f"up since {ours.since}"
                if ok and ours.state == "up"
                else state
                if ok
                else ours.state.replace("up", "down")
            )
            if ours.restarts:
                state += f", started again {ours.restarts} times: {ours.note}"
        found.append(ServerStatus(name, url, ok, state))
    return found


def _answers_at_all(url: str) -> bool:
    try:
        return not httpx.get(url, timeout=ANSWER_SECONDS).is_server_error
    except httpx.HTTPError:
        return False


def _answers_well(url: str, auth: tuple[str, str] | None = None) -> bool:
    try:
        return httpx.get(url, timeout=ANSWER_SECONDS, auth=auth).is_success
    except httpx.HTTPError:
        return False


def _workers_online(api: str) -> bool:
    try:
        return bool(_post(api, f"work_pools/{POOL}/workers/filter", workers={"status": {"any_": ["ONLINE"]}}))
    except httpx.HTTPError:
        return False


def _objects(settings: Settings, prefix: str, ending: str) -> dict[str, Any]:
    from trashnet.store import open_store

    found = [
        stored
        for stored in islice(open_store(settings).list(prefix), MAX_COUNTED)
        if stored.key.endswith(ending)
    ]
    oldest = min((stored.modified for stored in found), default=None)
    return {
        "objects": len(found),
        "or_more": len(found) >= MAX_COUNTED,
        "oldest": oldest.isoformat(timespec="seconds") if oldest else None,
    }


def _ledger(settings: Settings) -> dict[str, Any]:
    from trashnet.ledger import open_ledger

    ledger = open_ledger(settings.ledger_url, migrate=False)
    try:
        turns, planned = ledger.finished_turns(), ledger.unfinished_turn()
        newest = turns[-1] if turns else None
        return {
            "frames": {str(state): count for state, count in ledger.count_by_state().items()},
            "untrained": ledger.count_untrained_frames(),
            "turns": len(turns),
            "last_turn": newest
            and {
                "name": newest.name,
                "frames": newest.frames,
                "boxes": newest.boxes,
                "at": str(newest.finished_at),
            },
            "unfinished_turn": planned.started_at.isoformat(timespec="seconds") if planned else None,
        }
    finally:
        ledger.close()


def _tasks(settings: Settings) -> dict[str, Any]:
    # By plain requests: the SDK alone takes seconds to load.
    token, url = settings.label_studio_token.get_secret_value(), settings.label_studio_url
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as client:
        if (
            token.count(".") == 2
        ):  # a personal access token, which is exchanged for one that holds some minutes
            renewed = client.post("/api/token/refresh", json={"refresh": token})
            renewed.raise_for_status()
            client.headers["Authorization"] = f"Bearer {renewed.json()['access']}"
        else:
            client.headers["Authorization"] = f"Token {token}"
        answer = client.get(
            "/api/projects", params={"title": settings.label_studio_project, "page_size": 100}
        )
        if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise UserError("Label Studio does not accept TRASHNET_LABEL_STUDIO_TOKEN")
        answer.raise_for_status()
    projects = [
        project for project in answer.json()["results"] if project["title"] == settings.label_studio_project
    ]
    if not projects:
        raise UserError(
            f"there is no project {settings.label_studio_project!r} yet; `trashnet setup` makes it"
        )
    project = min(projects, key=lambda project: int(project["id"]))
    done = int(project["finished_task_number"])
    return {
        "open": int(project["task_number"]) - done,
        "finished": done,
        "url": f"{url}/projects/{project['id']}",
    }


def _dataset(settings: Settings) -> dict[str, Any]:
    from trashnet.clone import Clone

    return {"version": Clone(settings.clone).dataset_version(), "clone": str(settings.clone)}


def _candidate(settings: Settings) -> dict[str, Any]:
    from export import load_newest_candidate
    from trashnet.store import open_store

    candidate = load_newest_candidate(open_store(settings))
    if candidate is None:
        return {"version": None}
    published = candidate.published_at.isoformat(timespec="seconds")
    return {
        "version": candidate.version,
        "dataset": candidate.dataset,
        "published_at": published,
        "scores": candidate.scores,
    }


def _runs(api: str) -> dict[str, Any]:
    started = {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
    runs = _post(
        api, "flow_runs/filter", flow_runs={"state": started}, sort="START_TIME_DESC", limit=RUNS_SHOWN
    )
    since = (datetime.now(UTC) - FAILED_WITHIN).isoformat()
    broken = {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}, "start_time": {"after_": since}}
    failed = _post(api, "flow_runs/filter", flow_runs=broken, sort="START_TIME_DESC", limit=RUNS_SHOWN)
    count = _post(api, "flow_runs/count", flow_runs=broken)
    names = {}
    if ids := sorted({run["flow_id"] for run in [*runs, *failed]}):
        names = {flow["id"]: flow["name"] for flow in _post(api, "flows/filter", flows={"id": {"any_": ids}})}
    return {
        "last": [_run(run, names) for run in runs],
        "failed_in_a_day": int(count),
        "failures": [_run(run, names) for run in failed],
    }


def _run(run: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    message = ((run.get("state") or {}).get("message") or "").partition("\n")[0]
    seconds = round(float(run["total_run_time"]), 1)
    return {
        "flow": names.get(run["flow_id"], "?"),
        "run": run["name"],
        "state": run["state_name"],
        "started": run["start_time"],
        "seconds": seconds,
        "message": message,
    }


def _prefect_auth() -> tuple[str, str] | None:
    user, colon, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return (user, password) if colon else None


def _post(api: str, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{api}/{path}", json=body, timeout=ANSWER_SECONDS, auth=_prefect_auth())
    answer.raise_for_status()
    return answer.json()


def _degraded(status: Status, settings: Settings, *, embedded: bool) -> list[str]:
    """What works, but not as it is meant to where it matters."""
    notes = []
    if status.facts["candidate"].get("version", "?") is None:
        notes.append(
            "no model is published yet: diversity alone chooses frames, and pre-labels are the bins' own"
        )
    if not settings.s3_notifies:
        notes.append(
            "the store does not announce uploads: the event gateway looks into the inbox every few seconds"
        )
    if settings.ledger_url.startswith("sqlite"):
        notes.append("the ledger is an SQLite file: flows must run on this machine (PostgreSQL for more)")
    if embedded:
        notes.append(
            "embedded stack: everything on this machine only, and Label Studio's guard lets requests to "
            "127.0.0.1 through"
        )
    if failed := status.facts["runs"].get("failed_in_a_day"):
        notes.append(f"{failed} flow runs failed within a day")
    if planned := status.facts["ledger"].get("unfinished_turn"):
        notes.append(f"a turn planned at {planned} is not finished; the next grow run finishes it")
    return notes
