from collections.abc import Callable

from prefect import flow, get_run_logger, task
from prefect.deployments import run_deployment

import dataset
import export
import ingest
import labeling
import training
from dataset import GrowthParams
from flows.active_runs import has_due_run
from flows.context import FlowContext, open_context
from flows.events import connect_to_prefect
from flows.ingest_frames import sweep_incomplete
from ingest import IngestParams
from training import RetrainingParams
from trashnet.due import Due
from trashnet.params import load_params

# Each deployment with what its room says of its work.
DEPLOYMENTS: dict[str, Callable[[FlowContext], Due]] = {
    "ingest/ingest": lambda context: ingest.ingest_due(
        context.store, context.ledger, load_params("ingest", IngestParams)
    ),
    "request-labels/request-labels": lambda context: labeling.request_due(context.ledger),
    "collect-labels/collect-labels": lambda context: labeling.collection_due(context.ledger),
    "grow/grow": lambda context: dataset.grow_due(context.ledger, load_params("growth", GrowthParams)),
    # Trained but not published, it finds every stage done, and its event starts publish again.
    "retrain/retrain": lambda context: training.retrain_due(
        context.ledger, load_params("retraining", RetrainingParams)
    ),
    "gate/gate": lambda context: export.judgement_due(context.store, lambda: context.gate_set.version),
}


@flow(name="sweep", timeout_seconds=3600)
def sweep() -> list[str]:
    """Start every deployment that has work, whether or not an event announced it; those that were started."""
    sweep_incomplete()
    due = {name: reason for name, reason in find_work().items() if not is_under_way(name)}
    for name, reason in due.items():
        get_run_logger().info("%s: %s", name, reason)
        run_deployment(name, timeout=0, as_subflow=False)
    return list(due)


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def find_work() -> dict[str, str]:
    """Deployments that have work, each with what that is."""
    with open_context() as context:
        answers = {name: is_due(context) for name, is_due in DEPLOYMENTS.items()}
    return {name: answer.reason for name, answer in answers.items() if answer}


@task(task_run_name="is under way: {name}", retries=3, retry_delay_seconds=[2, 10, 30])
def is_under_way(name: str) -> bool:
    """Whether a run of this deployment is running, or should be: another one would only queue behind it.

    A run that nobody runs any more is ended by the event gateway, so it counts only for some minutes.
    """
    with connect_to_prefect() as api:
        return has_due_run(api, name, running_too=True)
