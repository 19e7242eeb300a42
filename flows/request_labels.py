from prefect import flow, get_run_logger, task

import labeling
from flows.context import STUDENT, TEACHER, open_context
from selection import sample_frames, score_frames


@flow(name="request-labels", retries=2, retry_delay_seconds=30, timeout_seconds=6 * 3600)
def request_labels() -> int:
    """Ask people for the labels of the frames that are most worth it, pre-labelled by the teacher; how many tasks were made."""
    room = room_for_tasks()
    if not room:
        get_run_logger().info(
            "annotators have a full turn's tasks before them: nothing is added until some are answered"
        )
        return 0
    score_accepted()
    return make_tasks(room)


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def room_for_tasks() -> int:
    """How many tasks more annotators are given: a turn's budget, less those that nobody has answered."""
    with open_context() as context:
        return max(context.selection.budget - labeling.count_queue(context.ledger).untouched, 0)


@task(retries=2, retry_delay_seconds=10)
def score_accepted() -> int:
    """Let the newest models look at what was accepted; how many frames they scored."""
    with open_context() as context:
        teacher, student = context.model(TEACHER), context.model(STUDENT)
        if teacher is None:
            get_run_logger().warning(
                "no candidate yet: frames are chosen for diversity alone, pre-labels are the bins' own"
            )
        return score_frames(
            context.store,
            context.ledger,
            teacher,
            student,
            context.class_counts,
            context.taxonomy,
            context.selection,
        )


@task(retries=5, retry_delay_seconds=[5, 15, 30, 60, 120])
def make_tasks(room: int) -> int:
    """Choose frames and make their tasks in Label Studio, most valuable first."""
    with open_context() as context:
        chosen = sample_frames(context.ledger, context.selection, context.seed, room)
        made = labeling.request_labels(
            context.label_studio, context.project, context.ledger, context.store, chosen, context.labeling
        )
        get_run_logger().info("%d tasks made, see %s", made, context.project.url)
        return made
