"""Sets a deployment up: bucket, ledger, clone and DVC remote, annotators' project, Prefect's deployments."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from dvc.config import Config

from dataset.cache import link_files
from flows.active_runs import SWEEP, start_run
from flows.context import open_context
from flows.events import connect_to_prefect
from operations.stack import WORK_POOL
from trashnet.clone import Clone, ensure_clone
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.retention import RetentionParams
from trashnet.settings import Settings

REMOTE = "flywheel"  # DVC's name for the object store, in the clone's own configuration only
MAX_OUTPUT = 2000  # characters of a failed command's output


def set_up() -> Iterator[str]:
    """Do each step and yield a line that says what there is now. A second call changes nothing.

    Raises :class:`UserError` if a step fails.
    """
    retention = load_params("retention", RetentionParams)
    with ThreadPoolExecutor(1) as pool, open_context() as context:
        deployment = pool.submit(deploy_flows)  # takes seconds, and needs none of the other steps
        context.store.ensure_bucket()
        yield f"bucket {context.store.bucket} at {context.store.endpoint}"
        yield f"ledger with {sum(context.ledger.count_by_state().values()):,} frames"
        clone = ensure_clone(context.settings.repository, context.settings.clone)
        link_files(clone, retention)  # before files are fetched: they are linked at once then
        version = _fetch_dataset(clone, context.settings)
        yield f"clone {clone.path} at dataset {version}"
        yield f"annotators' project {context.project.url}"
        deployment.result()
        yield f"Prefect's deployments, for workers of the pool {WORK_POOL}"
        _start_sweep()
        yield "a sweep, which starts whatever was left to do"


def _fetch_dataset(clone: Clone, settings: Settings) -> str:
    """Make the object store the clone's DVC remote, and fetch the dataset. Returns its version.

    The first time the dataset comes from the repository's own remote and is pushed to the object store. Files
    of a turn that died are discarded, as in :meth:`Clone.restore`: the turn is done again.
    """
    path = clone.path / ".dvc" / "config.local"  # which git ignores
    path.touch(mode=0o600)
    path.chmod(0o600)
    # Not by `dvc config`, because every user of the machine can read a command line.
    with Config(dvc_dir=str(path.parent)).edit("local") as config:
        config["core"] = {"remote": REMOTE}
        config["remote"] = {
            REMOTE: {
                "url": f"s3://{settings.s3_bucket}/dvc",
                "endpointurl": settings.s3_endpoint,
                "region": settings.s3_region,
                "access_key_id": settings.s3_access_key,
                "secret_access_key": settings.s3_secret_key.get_secret_value(),
            }
        }
    with clone.exclusive_lock():  # no turn is under way
        try:
            clone.dvc("pull", "--force", "data.dvc")
        except UserError:
            own_remote = clone.dvc("config", "--project", "core.remote").strip()
            clone.dvc("pull", "--force", "--remote", own_remote, "data.dvc")
            clone.dvc("push", "data.dvc")
    return clone.dataset_version() or "as the repository has it"


def _start_sweep() -> None:
    """Start what has work now: after a power cut nobody should wait for the next scheduled sweep."""
    try:
        with connect_to_prefect() as api:
            start_run(api, SWEEP)
    except httpx.HTTPError as error:
        raise UserError(f"Prefect does not start a sweep ({error}); is its server up?") from None


def deploy_flows() -> None:
    """Create the deployments of prefect.yaml on Prefect's server, with the work pool and limit that they use.

    Raises :class:`UserError` if that fails.
    """
    root = Path.cwd()
    for command in (("operations.work_pool",), ("prefect", "--no-prompt", "deploy", "--all")):
        completed = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=root,
            env=os.environ | {"PWD": str(root)},  # prefect.yaml reads the repository's path from it
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode:
            output = (completed.stdout + completed.stderr).strip()
            raise UserError(
                f"`python -m {' '.join(command)}` failed:\n{output[-MAX_OUTPUT:]}\n"
                "Is Prefect's server up? See PREFECT_API_URL."
            )
