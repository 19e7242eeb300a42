from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

import export
from export import Candidate, Judgement
from flows.context import open_context
from flows.events import JUDGED, emit


@flow(name="gate", retries=2, retry_delay_seconds=60, timeout_seconds=6 * 3600)
def gate(version: str | None = None) -> str | None:
    """Judge a candidate against the champions, and use what passes; the outcome, ``None`` if there is none.

    ``version``: the newest candidate unless given."""
    judgement: Judgement | None = judge(version or None)
    if judgement is None:
        get_run_logger().info("there is no candidate to judge")
        return None
    for role, one in judgement.models.items():
        get_run_logger().info(
            "the gate %s the %s: %s", one.verdict.outcome, role, " ".join(one.verdict.reasons)
        )
    emit(JUDGED, version=judgement.challenger, outcome=judgement.outcome)
    return judgement.outcome


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def judge(version: str | None) -> Judgement | None:
    """Run both files on the gate set of the newest dataset version.

    The judgement, and which labels are new where something changed, are artifacts of the run."""
    with open_context() as context:
        candidate: Candidate | None = (
            export.load_candidate(context.store, version)
            if version
            else export.load_newest_candidate(context.store)
        )
        if candidate is None:
            return None
        judgement = export.judge_candidate(context.store, candidate, context.criteria)
    create_markdown_artifact(
        judgement.markdown(), key="gate", description=f"Candidate {candidate.version}: {judgement.outcome}"
    )
    create_markdown_artifact(
        judgement.credit_markdown(), key="credit", description="What changed, and whose labels are new there"
    )
    return judgement
