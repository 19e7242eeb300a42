from prefect import flow, get_run_logger, task

import dataset
from dataset import GrowthParams
from dataset.splits import SplitParams
from flows.context import open_context
from flows.events import GROWN, emit
from trashnet.params import load_params


@flow(name="grow", retries=2, retry_delay_seconds=30, timeout_seconds=3 * 3600)
def grow(at_least: int | None = None) -> str | None:
    """Make turns of collected labels, each a DVC version; the newest version, or ``None`` if none was due.

    ``at_least``: labelled frames that make a turn; ``growth.min_frames`` of params.yaml unless given.
    """
    return grow_turns(at_least)


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def grow_turns(at_least: int | None) -> str | None:
    """Each turn: log, ``dvc add``, ``dvc push``, commit and tag; an unfinished one is finished first."""
    growth, split = load_params("growth", GrowthParams), load_params("split", SplitParams)
    version = None
    with open_context() as context:
        get_run_logger().info("%s", dataset.grow_due(context.ledger, growth, at_least).reason)
        for turn in dataset.grow(
            context.clone, context.store, context.ledger, context.taxonomy, growth, split, at_least
        ):
            version = turn.version
            get_run_logger().info("dataset %s: %d frames, %d boxes", version, turn.frames, turn.boxes)
            emit(GROWN, version=version, commit=turn.commit, frames=turn.frames)
    return version
