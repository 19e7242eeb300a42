"""Collects the state of a deployment, read-only. What cannot be read is "unknown", with the reason."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import httpx

from flows.active_runs import read_active_runs
from flows.prefect_api import open_api, post
from operations.stack import WORK_POOL
from operations.stack.run_state import RunRecord, ServerRecord, StackPaths, find_run, read_environment_file
from operations.stack.servers import AUTH_VARIABLE
from operations.status.degraded import list_degraded_modes
from operations.status.report import ServerStatus, Status
from trashnet.errors import UserError
from trashnet.models import MODEL_OF_ROLE, ROLES
from trashnet.settings import STACK_ENVIRONMENT_FILE, Settings, load_settings

REQUEST_TIMEOUT_SECONDS = 5.0
TOTAL_TIMEOUT_SECONDS = 20.0
MAX_COUNTED = 10_000  # objects; a longer listing is not read to its end
MAX_RUNS, FAILURE_PERIOD = 5, timedelta(hours=24)
OFFLINE_AFTER = timedelta(seconds=90)  # without a heartbeat; Prefect too calls a worker offline then
STORE, LABEL_STUDIO, PREFECT = "S3 server", "Label Studio", "Prefect"
GATEWAY, WORKER = "event gateway", "worker"
RECORD_NAMES = {  # in the embedded stack's record
    STORE: "s3",
    LABEL_STUDIO: "label_studio",
    PREFECT: "prefect",
    WORKER: "worker",
    GATEWAY: "gateway",
}


def collect_status(settings: Settings | None = None) -> Status:
    """Query everything, for at most 20 seconds.

    Raises :class:`UserError` only if there are no settings that say what to query.
    """
    settings = settings or load_settings()
    stack_variables = read_environment_file(STACK_ENVIRONMENT_FILE)
    api = _connect_to_prefect(os.environ) or _connect_to_prefect(stack_variables)
    record = find_run(StackPaths())
    pool = ThreadPoolExecutor(16, thread_name_prefix="status")
    try:
        servers = _check_servers(settings, api, record, pool)
        down = {server.name: server.state for server in servers if not server.ok and server.name != WORKER}
        # Each section's query, and the server that it needs.
        queries: dict[str, tuple[str | None, Callable[[], dict[str, Any]]]] = {
            "inbox": (STORE, lambda: _count_objects(settings, "inbox/", ".json")),
            "quarantine": (STORE, lambda: _count_objects(settings, "quarantine/", "")),
            "ledger": (None, lambda: _query_ledger(settings)),
            "quotas": (None, lambda: _query_quotas(settings)),
            "retention": (None, lambda: _query_retention(settings)),
            "tasks": (LABEL_STUDIO, lambda: _query_tasks(settings)),
            "dataset": (None, lambda: _query_dataset(settings)),
            "candidate": (STORE, lambda: _query_candidate(settings)),
            "gate": (STORE, lambda: _query_gate(settings)),
            "champions": (STORE, lambda: _query_champions(settings)),
            "runs": (PREFECT, lambda: _query_runs(api)),
        }
        # A server that is down is not queried, because its client would retry for long.
        pending = {
            name: pool.submit(query) for name, (server, query) in queries.items() if server not in down
        }
        skipped = {
            name: {"unknown": f"{server} is {down[server]}"}
            for name, (server, _) in queries.items()
            if server in down
        }
        facts = skipped | _wait_for_results(pending)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = Status(now, servers, {name: facts[name] for name in queries})
    status.degraded = list_degraded_modes(status, settings, embedded=record is not None)
    return status


def _wait_for_results(pending: "dict[str, Future[dict[str, Any]]]") -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + TOTAL_TIMEOUT_SECONDS
    for name, result in pending.items():
        try:
            facts[name] = result.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            facts[name] = {"unknown": f"no answer within {TOTAL_TIMEOUT_SECONDS:.0f} s"}
        except (UserError, httpx.HTTPError, OSError) as error:
            facts[name] = {"unknown": str(error).partition("\n")[0] or type(error).__name__}
    return facts


def _check_servers(
    settings: Settings, api: httpx.Client | None, record: RunRecord | None, pool: ThreadPoolExecutor
) -> list[ServerStatus]:
    """Send each server a request. The record of the embedded stack adds restarts and their reasons."""
    s3, label_studio, gateway = settings.s3_endpoint, settings.label_studio_url, settings.gateway_url
    checks: dict[str, tuple[str, Future[bool] | None]] = {
        STORE: (s3, pool.submit(_is_answering, s3)),
        LABEL_STUDIO: (label_studio, pool.submit(_is_healthy, f"{label_studio}/health")),
        PREFECT: (
            str(api.base_url).removesuffix("/api/") if api else "",
            pool.submit(_is_healthy, f"{api.base_url}health") if api else None,
        ),
        WORKER: ("", pool.submit(_is_worker_online, api) if api else None),
        GATEWAY: (gateway, pool.submit(_is_healthy, f"{gateway}/health")),
    }
    servers = []
    for name, (url, check) in checks.items():
        ok = check is not None and check.result()
        state = "up" if ok else "down"
        if check is None:
            state = "unknown: PREFECT_API_URL is not set"
        recorded = record.servers.get(RECORD_NAMES[name]) if record is not None else None
        if recorded is not None:
            state = _describe_state(state, ok, recorded)
        servers.append(ServerStatus(name, url, ok, state))
    return servers


def _describe_state(state: str, ok: bool, recorded: ServerRecord) -> str:
    if not ok:  # the record may say "up" until the watcher's next check
        state = recorded.state.replace("up", "down")
    elif recorded.state == "up":
        state = f"up since {recorded.since}"
    if recorded.restarts:
        state += f", started again {recorded.restarts} times: {recorded.note}"
    return state


def _is_answering(url: str) -> bool:
    try:
        return not httpx.get(url, timeout=REQUEST_TIMEOUT_SECONDS).is_server_error
    except httpx.HTTPError:
        return False


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=REQUEST_TIMEOUT_SECONDS).is_success
    except httpx.HTTPError:
        return False


def _is_worker_online(api: httpx.Client) -> bool:
    online = {"status": {"any_": ["ONLINE"]}}
    try:
        return bool(post(api, f"/work_pools/{WORK_POOL}/workers/filter", workers=online).json())
    except httpx.HTTPError:
        return False


def _count_objects(settings: Settings, prefix: str, suffix: str) -> dict[str, Any]:
    from trashnet.store import open_store

    listing = islice(open_store(settings).list(prefix), MAX_COUNTED)
    objects = [stored for stored in listing if stored.key.endswith(suffix)]
    oldest = min((stored.modified for stored in objects), default=None)
    return {
        "objects": len(objects),
        "or_more": len(objects) >= MAX_COUNTED,
        "oldest": oldest.isoformat(timespec="seconds") if oldest else None,
    }


def _query_ledger(settings: Settings) -> dict[str, Any]:
    from trashnet.ledger import open_ledger

    ledger = open_ledger(settings.ledger_url, migrate=False)
    try:
        turns, planned = ledger.finished_turns(), ledger.unfinished_turn()
        newest = turns[-1] if turns else None
        aside = ledger.frames_set_aside(1)
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
            "withdrawals": ledger.count_withdrawals(),
            "unfinished_withdrawals": [
                withdrawal.asked_at.isoformat(timespec="seconds")
                for withdrawal in ledger.unfinished_withdrawals()
            ],
            "set_aside": ledger.count_set_aside(),
            "set_aside_example": f"{aside[0].sha256[:12]}: {aside[0].reason}" if aside else None,
            "unfinished_turn": planned.started_at.isoformat(timespec="seconds") if planned else None,
        }
    finally:
        ledger.close()


def _query_quotas(settings: Settings) -> dict[str, Any]:
    """What waits over a bin's quota, as ingest and selection last counted it today."""
    from trashnet.ledger import open_ledger

    ledger = open_ledger(settings.ledger_url, migrate=False)
    try:
        bins = sorted(ledger.bin_days(datetime.now(UTC).date()).items())
    finally:
        ledger.close()
    return {
        "uploads": {bin_id: day.uploads_waiting for bin_id, day in bins if day.uploads_waiting},
        "frames": {bin_id: day.frames_waiting for bin_id, day in bins if day.frames_waiting},
    }


def _query_retention(settings: Settings) -> dict[str, Any]:
    from trashnet.ledger import open_ledger

    ledger = open_ledger(settings.ledger_url, migrate=False)
    try:
        return {"removed": [asdict(removal) for removal in ledger.removals()]}
    finally:
        ledger.close()


def _query_tasks(settings: Settings) -> dict[str, Any]:
    # By plain requests, because importing the SDK takes seconds.
    token, url = settings.label_studio_token.get_secret_value(), settings.label_studio_url
    title = settings.label_studio_project
    with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_SECONDS) as client:
        if token.count(".") == 2:  # a personal access token is exchanged for one that lasts some minutes
            refreshed = client.post("/api/token/refresh", json={"refresh": token})
            refreshed.raise_for_status()
            client.headers["Authorization"] = f"Bearer {refreshed.json()['access']}"
        else:
            client.headers["Authorization"] = f"Token {token}"
        response = client.get("/api/projects", params={"title": title, "page_size": 100})
        if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise UserError("Label Studio does not accept TRASHNET_LABEL_STUDIO_TOKEN")
        response.raise_for_status()
    projects = [project for project in response.json()["results"] if project["title"] == title]
    if not projects:
        raise UserError(f"there is no project {title!r} yet; `trashnet setup` creates it")
    project = min(projects, key=lambda project: int(project["id"]))
    finished = int(project["finished_task_number"])
    return {
        "open": int(project["task_number"]) - finished,
        "finished": finished,
        "url": f"{url}/projects/{project['id']}",
    }


def _query_dataset(settings: Settings) -> dict[str, Any]:
    from dataset import turns_of
    from dataset.withdrawal import needs_compaction
    from trashnet.clone import Clone

    return {
        "version": Clone(settings.clone).dataset_version(),
        "clone": str(settings.clone),
        "needs_compaction": needs_compaction(turns_of(settings.clone / "data")),
    }


def _query_candidate(settings: Settings) -> dict[str, Any]:
    from export import load_newest_candidate
    from trashnet.store import open_store

    candidate = load_newest_candidate(open_store(settings))
    if candidate is None:
        return {"version": None}
    return {
        "version": candidate.version,
        "dataset": candidate.dataset,
        "published_at": candidate.published_at.isoformat(timespec="seconds"),
        "scores": candidate.scores,
    }


def _query_gate(settings: Settings) -> dict[str, Any]:
    from export import load_champion, load_judgement, load_newest_candidate
    from export.judgement import wanted_frames
    from trashnet.store import open_store

    store = open_store(settings)
    newest = load_newest_candidate(store)
    if newest is None:
        return {"version": None, "judged_at": None, "models": {}}
    judgement = load_judgement(store, newest.version)
    has = [role for role in ROLES if MODEL_OF_ROLE[role].file in newest.files]
    champions = {role: load_champion(store, role) for role in has}
    in_use = [role for role, one in champions.items() if one and one.version == newest.version]
    facts: dict[str, Any] = {"version": newest.version, "in_use": in_use, "judged_at": None, "models": {}}
    if judgement is None:
        return facts
    return facts | {
        "judged_at": judgement.at.isoformat(timespec="seconds"),
        "gate_set": judgement.gate_set,
        "frames": judgement.frames,
        "more_frames": wanted_frames(judgement, in_use),
        "page": f"{store.endpoint}/{store.bucket}/{judgement.page_key}",
        "models": {
            role: {
                "outcome": one.verdict.outcome,
                "against": one.champion,
                "reasons": list(one.verdict.reasons),
            }
            for role, one in judgement.models.items()
        },
    }


def _query_champions(settings: Settings) -> dict[str, Any]:
    from export import last_change, load_champion
    from trashnet.store import open_store

    store, champions = open_store(settings), dict[str, Any]()
    for role in ROLES:
        champion, change = load_champion(store, role), last_change(store, role)
        champions[role] = champion and {
            "version": champion.version,
            "dataset": champion.dataset,
            "change": change and change.model_dump(mode="json"),
        }
    return champions


def _query_runs(api: httpx.Client | None) -> dict[str, Any]:
    if api is None:
        raise UserError("PREFECT_API_URL is not set")
    started = {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
    newest_first = {"sort": "START_TIME_DESC", "limit": MAX_RUNS}
    runs = post(api, "/flow_runs/filter", flow_runs={"state": started}, **newest_first).json()
    since = (datetime.now(UTC) - FAILURE_PERIOD).isoformat()
    failed = {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}, "start_time": {"after_": since}}
    failures = post(api, "/flow_runs/filter", flow_runs=failed, **newest_first).json()
    failure_count = post(api, "/flow_runs/count", flow_runs=failed).json()
    flow_names = {}
    if ids := sorted({run["flow_id"] for run in [*runs, *failures]}):
        flows = post(api, "/flows/filter", flows={"id": {"any_": ids}}).json()
        flow_names = {flow["id"]: flow["name"] for flow in flows}
    active, now = read_active_runs(api)
    return {
        "abandoned": [str(run) for run in active if run.is_abandoned(now, OFFLINE_AFTER)],
        "last": [_summarise_run(run, flow_names) for run in runs],
        "failed_in_a_day": int(failure_count),
        "failures": [_summarise_run(run, flow_names) for run in failures],
    }


def _summarise_run(run: dict[str, Any], flow_names: dict[str, str]) -> dict[str, Any]:
    return {
        "flow": flow_names.get(run["flow_id"], "?"),
        "run": run["name"],
        "state": run["state_name"],
        "started": run["start_time"],
        "seconds": round(float(run["total_run_time"]), 1),
        "message": ((run.get("state") or {}).get("message") or "").partition("\n")[0],
    }


def _connect_to_prefect(variables: Mapping[str, str]) -> httpx.Client | None:
    """The API that these variables name, if they name one, with the credentials beside it."""
    url = variables.get("PREFECT_API_URL")
    return open_api(url, variables.get(AUTH_VARIABLE)) if url else None
