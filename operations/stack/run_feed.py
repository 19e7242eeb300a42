"""A feed of flow runs for the terminal, by polling Prefect's API for runs whose state has changed."""

from datetime import UTC, datetime
from typing import Any

import httpx

from flows.prefect_api import open_api

MAX_RUNS = 50  # the newest ones
MAX_MESSAGE_LENGTH = 160
STATE_LABELS = {
    "RUNNING": "started",
    "COMPLETED": "done",
    "FAILED": "FAILED",
    "CRASHED": "CRASHED",
    "CANCELLED": "cancelled",
}


class FlowRunFeed:
    """Reports each change of a flow run once, but not of runs that were due before the feed was made."""

    def __init__(self, api: str, auth: str | None = None) -> None:
        """``auth`` is ``user:password`` of the API."""
        self._client = open_api(api, auth)
        self._since = datetime.now(UTC).isoformat()
        self._reported: dict[str, str] = {}  # run id -> state
        self._flow_names: dict[str, str] = {}  # flow id -> name

    def poll(self) -> list[str]:
        """One line per change, oldest first. None while the server is down, which its watcher reports."""
        try:
            recent = {"expected_start_time": {"after_": self._since}}
            runs = self._post("flow_runs", flow_runs=recent, sort="EXPECTED_START_TIME_DESC", limit=MAX_RUNS)
            return [line for run in reversed(runs) if (line := self._describe_change(run))]
        except httpx.HTTPError:
            return []

    def _describe_change(self, run: dict[str, Any]) -> str | None:
        state = run["state_type"]
        if state not in STATE_LABELS or self._reported.get(run["id"]) == state:
            return None
        self._reported[run["id"]] = state
        seconds = f" in {run['total_run_time']:.0f} s" if state != "RUNNING" else ""
        first_line = (run["state"].get("message") or "").partition("\n")[0][:MAX_MESSAGE_LENGTH]
        message = f": {first_line}" if first_line and state in {"FAILED", "CRASHED"} else ""
        return f"{self._flow_name(run['flow_id']):<16} {run['name']} {STATE_LABELS[state]}{seconds}{message}"

    def _flow_name(self, flow_id: str) -> str:
        if flow_id not in self._flow_names:
            found = self._post("flows", flows={"id": {"any_": [flow_id]}})
            self._flow_names[flow_id] = found[0]["name"] if found else "?"
        return self._flow_names[flow_id]

    def _post(self, resource: str, **body: Any) -> list[dict[str, Any]]:
        response = self._client.post(f"/{resource}/filter", json=body)
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()
        return found
