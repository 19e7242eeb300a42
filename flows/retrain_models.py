from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture

from evaluation import Scorecard, comparison
from flows.context import open_context
from flows.events import TRAINED, emit
from trashnet.clone import Clone, prepare_training_clone
from trashnet.params import set_params

# One at a time over all workers: see the concurrency limit `gpu`.
TRAINING = ("train_efficientdet", "train_ssd")


@flow(name="retrain", timeout_seconds=7 * 24 * 3600)
def retrain(at_least: int | None = None, changes: dict[str, str] | None = None) -> bool:
    """Run the stages of ``dvc.yaml`` at the newest dataset version, both models' branches side by side; whether there was reason to.

    ``at_least``: frames that no candidate was trained on and that are worth it; ``retraining.min_new_frames``
    of params.yaml unless given. ``changes``: other numbers for this training alone, such as ``{"ssd.epochs":
    "90"}``.
    """
    if not worth_training(at_least):
        return False
    clone = prepare_clone(changes or {})
    balanced = stage.submit(clone, "rebalance")
    teacher = branch(clone, balanced, "train_efficientdet", "export_efficientdet", "evaluate@efficientdet")
    student = branch(
        clone, balanced, "tfrecords", "train_ssd", "export_ssd", "evaluate@ssd_float", "evaluate@ssd_int8"
    )
    stage.submit(clone, "report", wait_for=[teacher, student], return_state=False).result()
    show_scores(clone)
    emit(TRAINED)
    return True


def branch(clone: Path, after: PrefectFuture[None], *names: str) -> PrefectFuture[None]:
    """Submit stages one behind the other; the last one's future."""
    for name in names:
        after = stage.submit(clone, name, wait_for=[after], return_state=False)
    return after


@task
def worth_training(at_least: int | None) -> bool:
    """Whether enough frames were labelled since the last candidate."""
    with open_context() as context:
        new, wanted = (
            context.ledger.count_untrained_frames(),
            at_least if at_least is not None else context.retraining.min_new_frames,
        )
    get_run_logger().info(
        "%d labelled frames that no candidate was trained on; %d are worth a training", new, wanted
    )
    return new >= wanted


@task(retries=2, retry_delay_seconds=30)
def prepare_clone(changes: dict[str, str]) -> Path:
    """Bring the training clone to the newest dataset version, and change numbers there."""
    with open_context() as context:
        clone = prepare_training_clone(context.clone).path
    if changes:
        set_params(changes, clone / "params.yaml")
    return clone


@task(task_run_name="{name}", retries=1, retry_delay_seconds=60)
def stage(clone: Path, name: str) -> None:
    """Run one stage of ``dvc.yaml``, or find that it is up to date; what it prints is this task's log."""
    limits = ["gpu"] if name in TRAINING else []
    with concurrency(limits):
        Clone(clone).dvc("repro", "--single-item", name, on_line=get_run_logger().info)


@task
def show_scores(clone: Path) -> None:
    """Put the scorecards, beside the last candidate's, where the run is looked at."""
    cards = {path.stem: Scorecard.load(path) for path in sorted((clone / "build/scorecards").glob("*.json"))}
    with open_context() as context:
        last = context.candidate
    against = (
        f"candidate {last.version} of {last.dataset}" if last else "nothing: this is the first candidate"
    )
    table = comparison(last.scores if last else {}, {name: card.headline() for name, card in cards.items()})
    text = f"# Scorecards\n\nDataset {Clone(clone).dataset_version()}; compared with {against}.\n\n{table}\n"
    create_markdown_artifact(text, key="scorecards", description="Both models on the frozen test split")
