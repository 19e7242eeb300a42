from prefect import flow, get_run_logger, task
from prefect.deployments import run_deployment

from flows.flywheel import open_flywheel
from flows.ingest_frames import sweep_incomplete
from ingest import waiting


@flow(name="sweep", timeout_seconds=3600)
def sweep() -> list[str]:
    """Start whatever has something to drain, whether or not an event announced it; the deployments that were started."""
    sweep_incomplete()
    return [name for name, reason in work_waiting() if start(name, reason)]


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def work_waiting() -> list[tuple[str, str]]:
    """Deployments that have work, each with what that is."""
    with open_flywheel() as flywheel:
        counts = flywheel.ledger.counts()
        uploads, received = len(waiting(flywheel.store)), counts.get("received", 0)
        work = [
            ("ingest/ingest", uploads + received, f"{uploads} uploads in the inbox, {received} frames received"),
            ("request-labels/request-labels", counts.get("accepted", 0), f"{counts.get('accepted', 0)} accepted frames"),
            ("collect-labels/collect-labels", counts.get("tasked", 0), f"{counts.get('tasked', 0)} tasks that may be answered"),
            ("grow/grow", int(flywheel.ledger.unfinished_turn() is not None), "a turn that was not finished"),
        ]
    return [(name, reason) for name, amount, reason in work if amount]


@task(task_run_name="start {name}")
def start(name: str, reason: str) -> bool:
    """Start a deployment without waiting for it; runs of one deployment queue up behind each other."""
    run_deployment(name, timeout=0, as_subflow=False)
    get_run_logger().info("%s: %s", name, reason)
    return True
