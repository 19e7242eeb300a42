from prefect import flow, get_run_logger, task

import labeling
from flows.context import open_context
from flows.events import ACCEPTED, COLLECTED, emit
from labeling import CollectedLabels, LabelingParams
from trashnet.params import load_params


@flow(name="collect-labels", retries=2, retry_delay_seconds=30, timeout_seconds=2 * 3600)
def collect_labels() -> int:
    """Validate what people annotated and record it in the ledger; how many frames became labelled."""
    collected = collect_annotations()
    get_run_logger().info("%s", collected)
    for refusal in collected.refusals:
        get_run_logger().warning("refused: %s", refusal)
    if collected.boxes or collected.nothing or collected.labelled or collected.deleted:
        emit(COLLECTED, labelled=collected.labelled)
    if collected.returned:  # their tasks are gone: they are asked about again
        emit(ACCEPTED, count=collected.returned)
    return collected.labelled


@task(retries=5, retry_delay_seconds=[5, 15, 30, 60, 120])
def collect_annotations() -> CollectedLabels:
    """Drain annotations from where the last run stopped."""
    params = load_params("labeling", LabelingParams)
    with open_context() as context:
        return labeling.collect_labels(
            context.label_studio, context.project, context.ledger, context.taxonomy, params
        )
