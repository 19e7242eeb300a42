"""Degraded modes: what works, but not as it should in production. ``docs/runbook.md`` explains each."""

from flows.active_runs import WORKER_TIMEOUT
from operations.status.report import Status, few_reasons
from trashnet.settings import Settings


def list_degraded_modes(status: Status, settings: Settings, *, embedded: bool) -> list[str]:
    """Sentences on what works, but not as it should in production."""
    notes = []
    gate = status.facts["gate"]
    for role, model in gate.get("models", {}).items():
        if role in gate["in_use"]:
            continue  # a person decided; that is said below
        if model["outcome"] == "blocks":
            notes.append(
                f"the gate blocks the {role} of candidate {gate['version']}: {few_reasons(model['reasons'])}"
            )
        if model["outcome"] == "holds":
            notes.append(
                f"the gate holds the {role} of candidate {gate['version']}: {few_reasons(model['reasons'])}"
            )
    champions = {} if "unknown" in status.facts["champions"] else status.facts["champions"]
    if champions and champions["teacher"] is None:
        pre_labels = "are the bins' own" if champions["student"] else "are missing"
        notes.append(f"no teacher is in use yet: diversity alone chooses frames, and pre-labels {pre_labels}")
    for role, champion in champions.items():
        change = champion and champion["change"]
        if change and change["decision"] == "rollback":
            notes.append(
                f"the {role} in use is the earlier {change['version']} instead of {change['previous']}: "
                f"{change['by']} went back because: {change['reason']}"
            )
        if change and change["decision"] == "override":
            notes.append(
                f"the {role} in use, {change['version']}, was not let through by the gate: "
                f"{change['by']} overrode it because: {change['reason']}"
            )
    if not settings.s3_notifies:
        notes.append(
            "the store does not announce uploads: the event gateway polls the inbox every few seconds"
        )
    if settings.ledger_url.startswith("sqlite"):
        notes.append("the ledger is an SQLite file: flows must run on this machine (PostgreSQL for more)")
    if embedded:
        notes.append(
            "embedded stack: all servers are on this machine, and Label Studio may send requests to 127.0.0.1"
        )
    for run in status.facts["runs"].get("abandoned", []):
        notes.append(
            f"{run} has no worker any more: the event gateway ends it after "
            f"{WORKER_TIMEOUT.total_seconds() / 60:.0f} minutes, and a sweep starts what it left"
        )
    if failed := status.facts["runs"].get("failed_in_a_day"):
        notes.append(f"{failed} flow runs failed within a day")
    for asked_at in status.facts["ledger"].get("unfinished_withdrawals", []):
        notes.append(
            f"the withdrawal asked for at {asked_at} is not finished: bytes of its frames may still be "
            "there; `trashnet withdraw --finish` finishes it"
        )
    if status.facts["dataset"].get("needs_compaction"):
        notes.append("withdrawn frames still lie in the dataset's files; `trashnet compact` rewrites those")
    if planned := status.facts["ledger"].get("unfinished_turn"):
        notes.append(f"a turn planned at {planned} is not finished; the next grow run finishes it")
    if aside := status.facts["ledger"].get("set_aside"):
        notes.append(
            f"{aside} labelled frames cannot grow and are set aside until they can, such as frame "
            f"{status.facts['ledger']['set_aside_example']}"
        )
    return notes
