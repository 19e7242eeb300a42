from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture

import training
from evaluation import Scorecard, compare_scores
from flows.context import open_context
from flows.events import TRAINED, emit
from flows.publish_candidate import publish
from training import RetrainingParams
from trashnet.clone import Clone, prepare_training_clone
from trashnet.params import load_params, set_params
from trashnet.pipeline import Stage, load_stages


@flow(name="retrain", timeout_seconds=7 * 24 * 3600)
def retrain(
    at_least: int | None = None, changes: dict[str, str] | None = None, commit: str | None = None
) -> bool:
    """Run the stages of ``dvc.yaml`` at the newest dataset version and publish; whether that was due.

    The same run publishes, because only this machine has what it trained. ``at_least``: new frames that are
    enough; ``retraining.min_new_frames`` of params.yaml unless given. ``changes``: other numbers for this
    training alone, such as ``{"ssd.epochs": "90"}``. ``commit``: one that the version must contain, where an
    event names it."""
    if not retrain_due(at_least):
        return False
    clone, trained, stages = prepare_pipeline(changes or {}, commit or None)
    runs: dict[str, PrefectFuture[None]] = {}
    for stage in stages:
        needed = [runs[name] for name in stage.needs]
        runs[stage.name] = run_stage.submit(clone, stage, wait_for=needed, return_state=False)
    for run in runs.values():
        run.result()
    show_scores(clone)
    emit(TRAINED, commit=trained)
    publish(trained)
    return True


@task
def retrain_due(at_least: int | None) -> bool:
    """Whether enough frames joined the dataset since the last candidate."""
    with open_context() as context:
        due = training.retrain_due(context.ledger, load_params("retraining", RetrainingParams), at_least)
    get_run_logger().info("%s", due.reason)
    return due.due


@task(retries=2, retry_delay_seconds=30)
def prepare_pipeline(changes: dict[str, str], commit: str | None) -> tuple[Path, str, tuple[Stage, ...]]:
    """Bring the training clone to the newest dataset version, change numbers there, and read its stages.

    Returns the clone's folder, the commit that it is at, and the stages."""
    with open_context() as context:
        training_clone = prepare_training_clone(context.clone, commit)
    if changes:
        set_params(changes, training_clone.path / "params.yaml")
    return training_clone.path, training_clone.head(), load_stages(training_clone.path)


@task(task_run_name="{stage.name}", retries=1, retry_delay_seconds=60)
def run_stage(clone: Path, stage: Stage) -> None:
    """Run one stage of ``dvc.yaml``, or find that it is up to date; what it prints is this task's log."""
    # Over all workers only one stage at a time uses the GPU: see the concurrency limit `gpu`.
    with concurrency(["gpu"] if stage.gpu else []):
        Clone(clone).dvc("repro", "--single-item", stage.name, on_line=get_run_logger().info)


@task
def show_scores(clone: Path) -> None:
    """Show the scorecards as an artifact of the run.

    They are compared with nothing: earlier ones were made on other test frames. The gate compares models, on
    the same frames.
    """
    cards = {path.stem: Scorecard.load(path) for path in sorted((clone / "build/scorecards").glob("*.json"))}
    table = compare_scores({}, {name: card.headline() for name, card in cards.items()})
    text = f"# Scorecards\n\nDataset {Clone(clone).dataset_version()}.\n\n{table}\n"
    create_markdown_artifact(text, key="scorecards", description="Both models on the frozen test split")
