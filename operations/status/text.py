"""The status as text for a terminal."""

from datetime import UTC, datetime
from typing import Any

from operations.status.report import Status, few_reasons

INDENT = 14
MAX_MESSAGE_LENGTH = 100
MAX_COUNTED = 10_000  # uploads or frames of one bin; ingest and selection count no more


def format_status(status: Status) -> str:
    """Format a status as lines, one section after another."""
    now = datetime.fromisoformat(status.at)
    lines = ["servers"]
    width = max(len(server.url) for server in status.servers)
    for server in status.servers:
        lines.append(
            f"  {'ok ' if server.ok else '!! '} {server.name:<{INDENT - 2}}  {server.url:<{width}}  "
            f"{server.state}"
        )
    sections = {
        "inbox": _inbox,
        "quarantine": _quarantine,
        "ledger": _ledger,
        "quotas": _quotas,
        "retention": _retention,
        "tasks": lambda facts, _: [
            f"{facts['open']:,} open, {facts['finished']:,} finished   {facts['url']}"
        ],
        "dataset": lambda facts, _: [facts["version"] or "no version yet"],
        "candidate": _candidate,
        "gate": _gate,
        "champions": _champions,
        "runs": _runs,
    }
    for name, describe in sections.items():
        facts = status.facts[name]
        descriptions = [f"unknown: {facts['unknown']}"] if "unknown" in facts else describe(facts, now)
        lines += [
            f"{name if number == 0 else '':<{INDENT}}{line}" for number, line in enumerate(descriptions)
        ]
    lines += [
        f"{'degraded' if number == 0 else '':<{INDENT}}{note}" for number, note in enumerate(status.degraded)
    ]
    return "\n".join(lines)


def _inbox(facts: dict[str, Any], now: datetime) -> list[str]:
    oldest = f", the oldest for {_ago(facts['oldest'], now)}" if facts["oldest"] else ""
    return [f"{_count(facts)} uploads waiting{oldest}"]


def _quarantine(facts: dict[str, Any], now: datetime) -> list[str]:
    return [f"{_count(facts)} objects"]


def _count(facts: dict[str, Any]) -> str:
    return f"{facts['objects']:,}{' or more' if facts['or_more'] else ''}"


def _ledger(facts: dict[str, Any], now: datetime) -> list[str]:
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(facts["frames"].items()))
    last = "no turn yet"
    if turn := facts["last_turn"]:
        contents = f"{turn['frames']:,} frames, {turn['boxes']:,} boxes"
        last = f"turn {turn['name']}: {contents}, {_ago(turn['at'], now)} ago"
    return [
        states or "no frames",
        f"{last}; {facts['untrained']:,} new or changed labels that no candidate was trained on",
    ]


def _quotas(facts: dict[str, Any], now: datetime) -> list[str]:
    lines = [
        f"bin {bin_id}: {_bounded(count)} uploads wait over its quota of today "
        "(ingest.uploads_per_bin_and_day, ingest.bytes_per_bin_and_day)"
        for bin_id, count in facts["uploads"].items()
    ]
    lines += [
        f"bin {bin_id}: {_bounded(count)} frames wait over its share of this turn's tasks "
        "(selection.bin_share)"
        for bin_id, count in facts["frames"].items()
    ]
    return lines or ["nothing waits over a bin's quota"]


def _retention(facts: dict[str, Any], now: datetime) -> list[str]:
    lines = [
        f"removed so far: {removal['count']:,} of {removal['what']}"
        + (f", {removal['bytes'] / 1e6:,.1f} MB" if removal["bytes"] else "")
        for removal in facts["removed"]
    ]
    return lines or ["nothing was removed yet"]


def _bounded(count: int) -> str:
    return f"{count:,}{' or more' if count >= MAX_COUNTED else ''}"


def _candidate(facts: dict[str, Any], now: datetime) -> list[str]:
    if facts["version"] is None:
        return ["none yet"]
    return [
        f"{facts['version']}, trained on {facts['dataset']}, published {_ago(facts['published_at'], now)} ago"
    ]


def _gate(facts: dict[str, Any], now: datetime) -> list[str]:
    if facts["version"] is None:
        return ["nothing to judge yet"]
    if facts["judged_at"] is None:
        by_a_person = (
            f", but a person put its {' and '.join(facts['in_use'])} into use" if facts["in_use"] else ""
        )
        return [f"{facts['version']} was not judged yet{by_a_person}"]
    frames = ", ".join(f"{count:,} {origin}" for origin, count in sorted(facts["frames"].items()))
    lines = [
        f"{facts['version']} on {facts['gate_set']} ({frames or 'no frame'}), "
        f"{_ago(facts['judged_at'], now)} ago"
    ]
    for role, model in facts["models"].items():
        rival = f"against {model['against']}" if model["against"] else "no champion before it"
        lines.append(f"{role:<8} {model['outcome']} ({rival}): {few_reasons(model['reasons'])}")
        if model["outcome"] != "passes" and role in facts["in_use"]:
            lines.append(f"{'':<8} a person put it into use all the same, see champions")
    if facts["more_frames"]:
        lines.append(
            f"about {facts['more_frames']:,} exploration frames more would decide; until then more tasks are "
            "drawn at random (selection.exploration_share_on_hold)"
        )
    page = f"page     {facts['page']} (`trashnet credit {facts['version']} --page FILE` saves it)"
    return [*lines, page]


def _champions(facts: dict[str, Any], now: datetime) -> list[str]:
    lines = []
    for role, champion in facts.items():
        if champion is None:
            lines.append(f"{role:<8} none yet")
            continue
        how = ""
        if change := champion["change"]:
            ago = _ago(change["at"], now)
            how = {
                "passed": f", which passed the gate {ago} ago",
                "override": f", by an override of {change['by']} {ago} ago",
                "rollback": f", rolled back from {change['previous']} {ago} ago by {change['by']}",
            }[change["decision"]]
        lines.append(f"{role:<8} {champion['version']}, trained on {champion['dataset']}{how}")
    return lines


def _runs(facts: dict[str, Any], now: datetime) -> list[str]:
    failures = [run for run in facts["failures"] if run not in facts["last"]]
    lines = [
        f"{run['flow']:<16}{run['state']:<11}{_ago(run['started'], now):>8} ago  {run['run']}"
        + (f": {run['message'][:MAX_MESSAGE_LENGTH]}" if run["state"] in {"Failed", "Crashed"} else "")
        for run in [*facts["last"], *failures]
    ]
    return lines or ["none yet"]


def _ago(moment: str | None, now: datetime) -> str:
    if not moment:
        return "?"
    then = datetime.fromisoformat(moment)
    seconds = (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
