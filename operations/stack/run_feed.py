"""What the flows are doing, as lines for the terminal: Prefect's API is asked for runs whose state changed
since the last time.
"""

from datetime import UTC, datetime
from typing import Any

import httpx

RUNS = 50  # newest looked at
SHOWN = {
    "RUNNING": "started",
    "COMPLETED": "done",
    "FAILED": "FAILED",
    "CRASHED": "CRASHED",
    "CANCELLED": "cancelled",
}


class RunFeed:
    """Remembers the states that it has reported; runs that ended before it was made are not reported."""

    def __init__(self, api: str) -> None:
        self._client = httpx.Client(base_url=api, trust_env=False, timeout=10)
        self._since = datetime.now(UTC).isoformat()
        self._reported: dict[str, str] = {}
        self._flows: dict[str, str] = {}

    def changes(self) -> list[str]:
        """One line per change, oldest first.

        None while the server is away, which is not this one's to report.
        """
        try:
            recent = {"expected_start_time": {"after_": self._since}}
            runs = self._post("flow_runs", flow_runs=recent, sort="EXPECTED_START_TIME_DESC", limit=RUNS)
            return [line for run in reversed(runs) if (line := self._line(run))]
        except httpx.HTTPError:
            return []

    def _line(self, run: dict[str, Any]) -> str | None:
        kind = run["state_type"]
        if kind not in SHOWN or self._reported.get(run["id"]) == kind:
            return None
        self._reported[run["id"]] = kind
        seconds = f" in {run['total_run_time']:.0f} s" if kind != "RUNNING" else ""
        said = (run["state"].get("message") or "").partition("\n")[0][:160]
        message = f": {said}" if said and kind in {"FAILED", "CRASHED"} else ""
        return f"{self._flow(run['flow_id']):<16} {run['name']} {SHOWN[kind]}{seconds}{message}"

    def _flow(self, identity: str) -> str:
        if identity not in self._flows:
            found = self._post("flows", flows={"id": {"any_": [identity]}})
            self._flows[identity] = found[0]["name"] if found else "?"
        return self._flows[identity]

    def _post(self, what: str, **body: Any) -> list[dict[str, Any]]:
        answer = self._client.post(f"/{what}/filter", json=body)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found
