"""A whole deployment on real servers: a copy of the repository, its worker and its event gateway."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import update

from flows.context import FlowContext, open_context
from labeling import Client, connect
from operations.stack import Server, find_free_port, prefect_environment, start_gateway, start_worker
from tests.conftest import REPOSITORY
from tests.servers import LabelStudioServer, S3Server
from trashnet.ledger import FrameRow, Ledger, open_ledger
from trashnet.ledger.tables import frames
from trashnet.params import set_params
from trashnet.settings import Settings, load_settings
from trashnet.store import ObjectStore, open_store

LONG_AGO = datetime.now(UTC) - timedelta(days=100)


@dataclass(frozen=True)
class Deployment:
    """The servers and handles of one deployment that the tests use."""

    root: Path
    settings: Settings
    environment: dict[str, str]
    store: ObjectStore
    ledger: Ledger
    label_studio: Client
    prefect_url: str
    gateway: Server

    def run_flow(self, name: str, **parameters: Any) -> None:
        """Run a flow's deployment to its end, as Prefect's own command line does."""
        variables = [
            part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")
        ]
        command = [
            sys.executable,
            "-m",
            "prefect",
            "deployment",
            "run",
            name,
            "--watch",
            "--watch-timeout",
            "2400",
            *variables,
        ]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        logs = "\n".join(
            path.read_text(errors="replace")[-6000:] for path in self.root.parent.glob("*worker.log")
        )
        assert done.returncode == 0, done.stdout + done.stderr + logs

    def trashnet(self, *arguments: str) -> str:
        """Run a ``trashnet`` command in the deployment."""
        command = [sys.executable, "-m", "operations.cli", *arguments]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = 180) -> None:
        """Wait until the condition holds; fail with the end of the logs if it does not."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    path.read_text(errors="replace")[-6000:] for path in self.root.parent.glob("*.log")
                )
                pytest.fail(
                    f"after {seconds:.0f} s still not: {what}\nledger: {self.ledger.count_by_state()}\n{logs}"
                )
            time.sleep(1)


def copy_of_repository(root: Path, changes: dict[str, str]) -> None:
    """The working tree, uncommitted files too, as a repository, with other numbers and no schedules."""
    root.mkdir(parents=True)
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, text=True
    )
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    set_params(changes, root / "params.yaml")
    deployments = yaml.safe_load((root / "prefect.yaml").read_text())
    for deployment in deployments["deployments"]:
        deployment.pop("schedules", None)  # only events may start flows in these tests
    (root / "prefect.yaml").write_text(yaml.safe_dump(deployments))
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["commit", "--quiet", "-m", "begin"],
    ):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=root, check=True)


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: S3Server,
    label_studio_server: LabelStudioServer,
    prefect_server: Server,
) -> Iterator[Deployment]:
    """Everything set up by `trashnet setup`, with a worker and an event gateway that watches the inbox."""
    folder = tmp_path_factory.mktemp("deployment")
    root, name, port = folder / "repository", f"loop-{secrets.token_hex(4)}", find_free_port()
    changes = {"growth.min_frames": "4", "retraining.min_new_frames": "1000", "labeling.double_share": "0"}
    # Else a run that lingers takes in what the sweep should find.
    copy_of_repository(root, changes | {"ingest.linger_seconds": "2"})
    variables = {
        "TRASHNET_S3_ENDPOINT": s3_server.url,
        "TRASHNET_S3_ACCESS_KEY": s3_server.access_key,
        "TRASHNET_S3_SECRET_KEY": s3_server.secret_key,
        "TRASHNET_S3_BUCKET": name,
        "TRASHNET_LEDGER_URL": f"sqlite:///{folder}/ledger.sqlite",
        "TRASHNET_LABEL_STUDIO_URL": label_studio_server.url,
        "TRASHNET_LABEL_STUDIO_TOKEN": label_studio_server.token,
        "TRASHNET_LABEL_STUDIO_PROJECT": name,
        "TRASHNET_CLONE": str(folder / "clone"),
        "TRASHNET_GATEWAY_URL": f"http://127.0.0.1:{port}",
        "TRASHNET_GATEWAY_SECRET": secrets.token_hex(20),
    }
    environment = os.environ | prefect_environment(folder / "prefect", prefect_server.url) | variables
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        settings = load_settings()
    setup = subprocess.run(
        [sys.executable, "-m", "operations.cli", "setup"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert setup.returncode == 0, setup.stdout + setup.stderr
    worker = start_worker(folder / "prefect", prefect_server.url, variables, root=root)
    gateway = start_gateway(folder / "prefect", port, prefect_server.url, variables, root=root)
    store, ledger, label_studio = open_store(settings), open_ledger(settings.ledger_url), connect(settings)
    yield Deployment(root, settings, environment, store, ledger, label_studio, prefect_server.url, gateway)
    for server in (worker, gateway):
        server.stop()
    ledger.close()


@pytest.fixture
def refused_uploads(
    begun: Path,
    tmp_path: Path,
    s3_server: S3Server,
    fresh_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FlowContext]:
    """A deployment where an upload was refused a hundred days ago and another one today."""
    shutil.copytree(begun, tmp_path / "here")
    for name, value in {
        "S3_ENDPOINT": s3_server.url,
        "S3_ACCESS_KEY": s3_server.access_key,
        "S3_SECRET_KEY": s3_server.secret_key,
        "S3_BUCKET": fresh_bucket,
        "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.sqlite",
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "LABEL_STUDIO_TOKEN": "none",
        "CLONE": str(tmp_path / "here" / "clone"),
        "GATEWAY_URL": "http://127.0.0.1:9",
        "GATEWAY_SECRET": "a-secret-of-16-letters",
    }.items():
        monkeypatch.setenv(f"TRASHNET_{name}", value)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(REPOSITORY)
    with open_context() as context:
        context.store.ensure_bucket()
        bucket = s3_server.server.log.with_suffix("") / fresh_bucket
        for number, is_old in enumerate((True, False)):
            sha = f"{number:064x}"
            key = f"quarantine/broken-image/{sha}.jpg"
            if is_old:  # the server would remember when an object was put
                (bucket / key).parent.mkdir(parents=True)
                (bucket / key).write_bytes(b"12345")
                os.utime(bucket / key, (LONG_AGO.timestamp(),) * 2)
            else:
                context.store.put(key, b"12345")
            refused = {"state": "quarantined", "quarantine_reason": "broken-image", "note": "does not decode"}
            context.ledger.add(FrameRow(sha256=sha, uploaded_sha256=sha, inbox_key="", key=key, **refused))  # type: ignore[arg-type]
            if is_old:
                with context.ledger.transaction() as connection:
                    old = update(frames).where(frames.c.sha256 == sha)
                    connection.execute(old.values(changed_at=LONG_AGO))
        yield context
