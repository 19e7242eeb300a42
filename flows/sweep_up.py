from datetime import UTC, datetime

from prefect import flow, get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment

from flows.context import open_context
from flows.ingest_frames import sweep_incomplete
from ingest import waiting


@flow(name="sweep", timeout_seconds=3600)
def sweep() -> list[str]:
    """Start whatever has something to drain, whether or not an event announced it; the deployments that were started."""
    sweep_incomplete()
    work = [(name, reason) for name, reason in work_waiting() if not under_way(name)]
    for name, reason in work:
        get_run_logger().info("%s: %s", name, reason)
        run_deployment(name, timeout=0, as_subflow=False)
    return [name for name, _ in work]


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def work_waiting() -> list[tuple[str, str]]:
    """Deployments that have work, each with what that is."""
    with open_context() as context:
        ledger = context.ledger
        counts, uploads, answered, new = (
            ledger.count_by_state(),
            len(waiting(context.store)),
            ledger.count_labels_to_grow(),
            ledger.count_untrained_frames(),
        )
        accepted, tasked, received = (
            counts.get("accepted", 0),
            counts.get("tasked", 0),
            counts.get("received", 0),
        )
        work = [
            (
                "ingest/ingest",
                uploads or received,
                f"{uploads} uploads in the inbox, {received} frames not settled",
            ),
            ("request-labels/request-labels", accepted, f"{accepted} accepted frames"),
            ("collect-labels/collect-labels", tasked, f"{tasked} tasks that may be answered"),
            (
                "grow/grow",
                ledger.unfinished_turn() or answered >= context.growth.min_frames,
                f"{answered} labelled frames, or a turn to be finished",
            ),
            # Trained but not published, it finds every stage done and rings for publish again.
            (
                "retrain/retrain",
                new >= context.retraining.min_new_frames,
                f"{new} frames that no candidate was trained on",
            ),
        ]
    return [(name, reason) for name, there_is, reason in work if there_is]


@task(task_run_name="under way {name}", retries=3, retry_delay_seconds=[2, 10, 30])
def under_way(name: str) -> bool:
    """Whether a run of this deployment is running, or is due: another one would only queue up behind it."""
    with get_client(sync_client=True) as client:
        this = DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(name).id]))
        states = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED])
        runs = client.read_flow_runs(
            deployment_filter=this, flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=states))
        )
    now = datetime.now(UTC)
    return any(
        run.state_type != StateType.SCHEDULED or (run.expected_start_time or now) <= now for run in runs
    )
