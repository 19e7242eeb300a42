"""Retention as an operator meets it: the command that only counts, the nightly flow, status and metrics."""

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import update

from flows.context import FlowContext, open_context
from flows.retain_data import retain
from operations.cli import cli
from operations.stack import Server
from operations.status import collect_status
from operations.status.text import format_status
from tests.conftest import REPOSITORY
from tests.servers import S3Server
from trashnet.ledger import FrameRow
from trashnet.ledger.tables import frames

LONG_AGO = datetime.now(UTC) - timedelta(days=100)


@pytest.fixture
def context(
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


@pytest.mark.heavy
def test_what_a_dry_run_counts_is_what_the_nightly_flow_removes_and_status_shows(
    context: FlowContext, prefect_server: Server, tmp_path: Path
) -> None:
    """Of the two refused uploads the old one, and a file that DVC cached for nobody."""
    nobodys = tmp_path / "here/clone/.dvc/cache/files/md5/ab/cdefabcdefabcdefabcdefabcdefab"
    nobodys.parent.mkdir(exist_ok=True)
    nobodys.write_bytes(b"1234")
    for path in nobodys.parents[1].glob("*/*"):
        os.utime(path, (time.time() - 100 * 86400,) * 2)

    dry = CliRunner().invoke(cli, ["retain", "--dry-run"], catch_exceptions=False)
    assert dry.output.splitlines() == [
        "would be removed: quarantine/broken-image: 1 (0.0 MB)",
        "would be removed: dvc-cache/unused: 1 (0.0 MB)",
    ]
    assert len(list(context.store.list("quarantine/"))) == 2
    assert "nothing was removed yet" in format_status(collect_status())

    with temporary_settings({PREFECT_API_URL: f"{prefect_server.url}/api"}):
        lines = retain()
    assert lines == ["quarantine/broken-image: 1 (0.0 MB)", "dvc-cache/unused: 1 (0.0 MB)"]
    assert [stored.key[-5] for stored in context.store.list("quarantine/")] == ["1"]
    assert not nobodys.exists()
    text = format_status(collect_status())
    assert "removed so far: 1 of dvc-cache/unused" in text
    assert "removed so far: 1 of quarantine/broken-image" in text

    again = CliRunner().invoke(cli, ["retain"], catch_exceptions=False)
    assert again.output == "nothing has been kept for longer than params.yaml says\n"


def test_it_runs_every_night() -> None:
    """As a deployment of prefect.yaml."""
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    retain_ = next(one for one in deployments if one["name"] == "retain")
    assert retain_["entrypoint"] == "flows/retain_data.py:retain"
    assert [schedule["slug"] for schedule in retain_["schedules"]] == ["nightly"]
