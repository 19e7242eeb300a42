from prefect import flow, get_run_logger, task

import labeling
from flows.context import open_context
from labeling import LabelingParams
from selection import SelectionParams, sample_frames, score_frames
from trashnet.models import STUDENT, TEACHER
from trashnet.params import load_params, load_seed


@flow(name="request-labels", retries=2, retry_delay_seconds=30, timeout_seconds=6 * 3600)
def request_labels() -> int:
    """Make tasks of the frames that teach most, pre-labelled by the teacher; how many tasks were made."""
    room = room_for_tasks()
    if not room:
        get_run_logger().info("annotators have all the tasks that the budget allows; none is added")
        return 0
    score_accepted_frames()
    return make_tasks(room)


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def room_for_tasks() -> int:
    """How many tasks more annotators are given."""
    with open_context() as context:
        budget = load_params("selection", SelectionParams).budget
        return labeling.room_for_tasks(context.ledger, budget)


@task(retries=2, retry_delay_seconds=10)
def score_accepted_frames() -> int:
    """Score what was accepted with the newest models; how many frames were scored."""
    params = load_params("selection", SelectionParams)
    with open_context() as context:
        teacher, student = context.detector(TEACHER), context.detector(STUDENT)
        if teacher is None:
            get_run_logger().warning(
                "no candidate yet: frames are sampled for diversity alone, the bins' detections pre-label"
            )
        return score_frames(
            context.store, context.ledger, teacher, student, context.class_counts, context.taxonomy, params
        )


@task(retries=5, retry_delay_seconds=[5, 15, 30, 60, 120])
def make_tasks(room: int) -> int:
    """Sample frames and make their tasks in Label Studio, best first."""
    selection, params = load_params("selection", SelectionParams), load_params("labeling", LabelingParams)
    with open_context() as context:
        sampled = sample_frames(context.ledger, selection, load_seed(), room)
        made = labeling.request_labels(
            context.label_studio, context.project, context.ledger, context.store, sampled, params
        )
        get_run_logger().info("%d tasks made, see %s", made, context.project.url)
        return made
