"""TRASHNET_LOG: which values there are, and what a process writes with each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trashnet.errors import UserError
from trashnet.logs import json_line, log_format


def trashnet(*arguments: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables
    command = [sys.executable, "-m", "operations.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("value", "format_"), [(None, "text"), ("", "text"), ("text", "text"), ("json", "json")]
)
def test_text_is_the_default(value: str | None, format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty value is none."""
    if value is None:
        monkeypatch.delenv("TRASHNET_LOG", raising=False)
    else:
        monkeypatch.setenv("TRASHNET_LOG", value)
    assert log_format() == format_


def test_a_bad_value_is_refused_and_the_good_ones_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By every entry point, before it does anything."""
    monkeypatch.setenv("TRASHNET_LOG", "JSON")
    with pytest.raises(UserError, match=r"TRASHNET_LOG='JSON': .* `text` or as `json`"):
        log_format()
    run = trashnet("scores", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("trashnet: TRASHNET_LOG='JSON'")
    gateway = subprocess.run(
        [sys.executable, "-m", "flows.event_gateway"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert gateway.returncode != 0
    assert "`text` or as `json`" in gateway.stderr


def test_a_command_s_error_is_an_object_and_its_result_is_not(tmp_path: Path) -> None:
    """The result is what somebody asked for; the error goes where logs go."""
    run = trashnet("dataset", cwd=tmp_path, TRASHNET_LOG="json")
    assert run.returncode == 1
    line = json.loads(run.stderr)
    assert (line["level"], line["logger"]) == ("error", "trashnet")
    assert "taxonomy.yaml" in line["event"]
    (tmp_path / "taxonomy.yaml").write_bytes((REPOSITORY / "taxonomy.yaml").read_bytes())
    for folder in ("frames", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    shown = trashnet("dataset", cwd=tmp_path, TRASHNET_LOG="json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("data: 0 frames, 0 boxes, 0 turns")


def test_structlog_is_imported_only_for_json() -> None:
    """`trashnet --help` starts fast, and a retry is logged as text without it."""
    program = (
        "import sys, logging\n"
        "from operations.cli import cli\n"
        "from trashnet.logs import configure_logs\n"
        "from trashnet.retries import retry\n"
        "configure_logs()\n"
        "calls = []\n"
        "@retry(on=OSError, attempts=2, wait_initial=0)\n"
        "def flaky(secret):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1: raise OSError\n"
        "flaky('a-picture-s-bytes')\n"
        "print('structlog' in sys.modules)\n"
    )
    for value, imported in (("text", "False\n"), ("json", "True\n")):
        environment = os.environ | {"TRASHNET_LOG": value}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert done.stdout == imported
        assert "stamina.retry_scheduled" in done.stderr
        assert "a-picture-s-bytes" not in done.stderr


def test_a_line_masks_credentials() -> None:
    """As every error does."""
    line = json.loads(json_line("https://me:word@example.org", logger="x"))
    assert line["event"] == "https://***@example.org"
