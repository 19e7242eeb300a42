from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from evaluation import compare_scores
from export import Candidate, publish_trained_models
from flows.context import open_context
from flows.events import PUBLISHED, emit
from trashnet.clone import Clone, training_clone_path


@flow(name="publish", retries=2, retry_delay_seconds=60, timeout_seconds=3 * 3600)
def publish(commit: str | None = None) -> str:
    """Publish what was trained last on this machine as a versioned candidate, its manifest last; the version.

    ``commit``: what was trained, as the event of the training names it."""
    candidate = upload_candidate(commit or None)
    get_run_logger().info("candidate %s, trained on dataset %s", candidate.version, candidate.dataset)
    emit(PUBLISHED, version=candidate.version)
    return candidate.version


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def upload_candidate(commit: str | None) -> Candidate:
    """Upload the models, push outputs to the DVC remote, tag ``dvc.lock``, mark its frames ``released``."""
    with open_context() as context:
        candidate: Candidate = publish_trained_models(
            Clone(training_clone_path(context.clone)), context.store, context.ledger, context.taxonomy, commit
        )
    files = "\n".join(
        f"| {name} | {file.bytes:,} | `{file.sha256}` |" for name, file in candidate.files.items()
    )
    text = (
        f"# Candidate {candidate.version}\n\n{compare_scores({}, candidate.scores)}\n\n"
        f"| file | bytes | SHA-256 |\n|---|---|---|\n{files}\n"
    )
    create_markdown_artifact(text, key="candidate", description=f"Trained on dataset {candidate.dataset}")
    return candidate
