"""Retention as an operator meets it: the command that only counts, the nightly flow, status and metrics."""

import os
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.context import FlowContext
from flows.retain_data import retain
from operations.cli import cli
from operations.stack import Server
from operations.status import collect_status
from operations.status.text import format_status
from tests.conftest import REPOSITORY


@pytest.mark.heavy
def test_what_a_dry_run_counts_is_what_the_nightly_flow_removes_and_status_shows(
    refused_uploads: FlowContext, prefect_server: Server, tmp_path: Path
) -> None:
    """Of the two refused uploads the old one, and a file that DVC cached for nobody."""
    context = refused_uploads
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
