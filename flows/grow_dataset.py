from prefect import flow, get_run_logger, task

import dataset
from dataset import Grown
from flows.context import open_context
from flows.events import GROWN, emit


@flow(name="grow", retries=2, retry_delay_seconds=30, timeout_seconds=3 * 3600)
def grow(at_least: int | None = None) -> str | None:
    """Make collected labels one turn of the dataset, and so a DVC version; the version, or ``None`` where too few are waiting.

    ``at_least``: labelled frames that are worth a turn; ``growth.min_frames`` of params.yaml unless given.
    """
    version = None
    while grown := grow_one_turn(at_least):
        version = grown.version
        get_run_logger().info("dataset %s: %d frames, %d boxes", version, grown.frames, grown.boxes)
        emit(GROWN, version=version, frames=grown.frames)
    return version


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def grow_one_turn(at_least: int | None) -> Grown | None:
    """One turn: log, ``dvc add``, ``dvc push``, commit and tag; one that was left unfinished is finished whatever its size."""
    with open_context() as context:
        waiting = context.ledger.count_labels_to_grow()
        if context.ledger.unfinished_turn() is None and waiting < (at_least or context.growth.min_frames):
            get_run_logger().info("%d labelled frames are waiting: not worth a turn yet", waiting)
            return None
        return dataset.grow(
            context.clone, context.store, context.ledger, context.taxonomy, context.growth, context.split
        )
