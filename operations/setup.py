"""Make a deployment ready to turn: bucket, ledger, clone and its DVC remote, annotators' project, Prefect's
deployments.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvc.config import Config

from flows.context import open_context
from operations.stack import POOL
from trashnet.clone import Clone, ensure_clone
from trashnet.errors import UserError
from trashnet.settings import Settings

REMOTE = "flywheel"  # DVC's name for the object store, in the clone's own configuration only


def set_up() -> Iterator[str]:
    """Do each step and yield what was done, in words; a step that was done before changes nothing.

    Raises :class:`UserError`.
    """
    with ThreadPoolExecutor(1) as beside, open_context() as context:
        deploying = beside.submit(deploy)
        context.store.ensure_bucket()
        yield f"bucket {context.store.bucket} at {context.store.endpoint}"
        yield f"ledger with {sum(context.ledger.count_by_state().values()):,} frames"
        clone = ensure_clone(context.settings.repository, context.settings.clone)
        version = _see_to_data(clone, context.settings)
        yield f"clone {clone.path} at dataset {version}"
        yield f"annotators' project {context.project.url}"
        deploying.result()
        yield f"Prefect's deployments, for workers of the pool {POOL}"


def _see_to_data(clone: Clone, settings: Settings) -> str:
    """Point the clone's DVC at the object store and fetch the dataset from there, or the first time from
    where the repository keeps it.
    """
    path = clone.path / ".dvc" / "config.local"  # which git ignores
    path.touch(mode=0o600)
    path.chmod(0o600)
    with Config(dvc_dir=str(path.parent)).edit(
        "local"
    ) as config:  # not by command line, where secrets can be seen
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
    try:
        clone.dvc("pull", "data.dvc")
    except UserError:
        given = clone.dvc("config", "--project", "core.remote").strip()  # the repository's own remote
        clone.dvc("pull", "--remote", given, "data.dvc")
        clone.dvc("push", "data.dvc")
    return clone.dataset_version() or "as the repository has it"


def deploy() -> None:
    """Declare everything in prefect.yaml to Prefect's server, and the pool and the limit that it speaks of.

    Raises :class:`UserError`.
    """
    root = Path.cwd()
    for command in (
        ("work-pool", "create", POOL, "--type", "process", "--overwrite"),
        ("gcl", "create", "gpu", "--limit", "1"),
        ("deploy", "--all"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *command],
            cwd=root,
            env=os.environ | {"PWD": str(root)},  # what prefect.yaml calls the repository
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout + done.stderr).strip()
        if done.returncode and "already exists" not in said:
            raise UserError(
                f"`prefect {' '.join(command)}` failed:\n{said[-2000:]}\nIs Prefect's server up? See "
                "PREFECT_API_URL."
            )
