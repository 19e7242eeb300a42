from prefect import flow, get_run_logger, task

import export
import labeling
import selection
from flows.context import open_context
from labeling import LabelingParams
from selection import ScoringModels, SelectionParams
from trashnet.params import load_params, load_seed


@flow(name="request-labels", retries=2, retry_delay_seconds=30, timeout_seconds=6 * 3600)
def request_labels() -> int:
    """Make tasks of the frames that teach most, pre-labelled by the teacher; how many tasks were made."""
    room = room_for_tasks()
    if not room:
        get_run_logger().info("annotators have all the tasks that the budget allows; none is added")
        return 0
    return make_tasks(select_frames(room))


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def room_for_tasks() -> int:
    """How many tasks more annotators are given."""
    with open_context() as context:
        budget = load_params("selection", SelectionParams).budget
        return labeling.room_for_tasks(context.ledger, budget)


@task(retries=2, retry_delay_seconds=10)
def select_frames(room: int) -> list[str]:
    """The frames that people should see next, scored by the models in use."""
    params = load_params("selection", SelectionParams)
    with open_context() as context:
        models = ScoringModels(context.detector("teacher"), context.detector("student"), context.taxonomy)
        if models.teacher is None:
            get_run_logger().warning(
                "no teacher is in use yet: diversity alone samples frames, the bins' detections pre-label"
            )
        if wanted := export.frames_wanted(context.store):
            get_run_logger().info("the gate holds a candidate until it has %d frames more", wanted)
            params = params.on_hold()
        return selection.select_frames(
            context.store, context.ledger, models, context.class_counts, params, load_seed(), room
        )


@task(retries=5, retry_delay_seconds=[5, 15, 30, 60, 120])
def make_tasks(selected: list[str]) -> int:
    """Make the tasks of these frames in Label Studio, best first."""
    params = load_params("labeling", LabelingParams)
    with open_context() as context:
        made = labeling.request_labels(
            context.label_studio, context.project, context.ledger, context.store, selected, params
        )
        get_run_logger().info("%d tasks made, see %s", made, context.project.url)
        return made
