"""Logs as JSON, of real processes: the event gateway, a flow run, the stack and the command line."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH

from flows.context import FlowContext
from operations.stack import Server, find_free_port, prefect_environment, start_gateway
from tests.conftest import REPOSITORY
from trashnet.logs import PREFECT_CONFIGURATION
from trashnet.settings import SECRET_HEADER

FIELDS = {"timestamp", "level", "logger", "event"}


def parse(text: str) -> list[dict[str, Any]]:
    """The objects of a log: a line that is none fails the test."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert line.keys() >= FIELDS, line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00)", line["timestamp"])
    return lines


def secrets_of(context: FlowContext) -> list[str]:
    """What no log may show."""
    settings = context.settings
    return [
        settings.s3_secret_key.get_secret_value(),
        settings.gateway_secret.get_secret_value(),
    ]


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator sets."""
    monkeypatch.setenv("TRASHNET_LOG", "json")


@pytest.mark.heavy
@pytest.mark.usefixtures("as_json")
def test_every_line_of_the_event_gateway_is_an_object(
    refused_uploads: FlowContext, prefect_server: Server, tmp_path: Path
) -> None:
    """What it emits, and a fault: the store goes away. No line shows a secret."""
    port = find_free_port()
    settings = {name: value for name, value in os.environ.items() if name.startswith("TRASHNET_")}
    settings["TRASHNET_S3_ENDPOINT"] = "http://127.0.0.1:1"
    gateway = start_gateway(tmp_path / "prefect", port, prefect_server.url, settings)
    try:
        secret = refused_uploads.settings.gateway_secret.get_secret_value()
        posted = httpx.post(f"{gateway.url}/label-studio", headers={SECRET_HEADER: secret})
        assert posted.status_code == 202
        httpx.get(f"{gateway.url}/metrics")
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            text = gateway.log.read_text()
            if "emitted trashnet.answers.changed" in text and "cannot be watched" in text:
                break
            time.sleep(0.5)
    finally:
        gateway.stop()
    text = gateway.log.read_text()
    lines = parse(text)
    assert {"gateway"} <= {line["logger"] for line in lines}
    assert {"info", "warning"} <= {line["level"] for line in lines}
    assert any(line["event"].startswith("emitted trashnet.answers.changed") for line in lines)
    assert not [secret for secret in secrets_of(refused_uploads) if secret in text]


@pytest.mark.heavy
@pytest.mark.usefixtures("as_json")
def test_every_line_of_a_flow_run_is_an_object_that_names_the_run(
    refused_uploads: FlowContext, prefect_server: Server, tmp_path: Path
) -> None:
    """Flow, task and our own loggers, a Python warning, and an exception with its traceback."""
    program = (
        "import logging, warnings\n"
        "from flows.retain_data import retain\n"
        "retain()\n"
        "logging.getLogger('dataset.admission').warning('from %s', 'https://me:word@example.org/x')\n"
        "warnings.warn('old')\n"
        "raise ValueError('on purpose')\n"
    )
    run = {"PREFECT__FLOW_RUN_ID": "the-worker-says-so"}
    environment = os.environ | prefect_environment(tmp_path / "prefect", prefect_server.url) | run
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.stdout == ""
    lines = parse(done.stderr)
    removed = next(line for line in lines if line["event"].startswith("removed quarantine/broken-image: 1"))
    assert removed["logger"] == "prefect.flow_runs"
    assert removed["flow_name"] == "retain"
    of_the_run = [line for line in lines if line.get("flow_run_id") == removed["flow_run_id"]]
    assert any(line.get("task_run_id") for line in of_the_run)
    ours = next(line for line in lines if line["logger"] == "dataset.admission")
    assert ours["event"] == "from https://***@example.org/x"
    assert ours["flow_run_id"] == "the-worker-says-so"
    assert any(line["logger"] == "py.warnings" for line in lines)
    assert lines[-1]["level"] == "critical"
    assert "ValueError: on purpose" in lines[-1]["exception"]
    assert not [secret for secret in secrets_of(refused_uploads) if secret in done.stderr]


def test_prefect_s_loggers_and_handlers_are_prefect_s_own() -> None:
    """Only formatters and the console differ, so that a run's page still shows what the run logged."""
    ours = yaml.safe_load(PREFECT_CONFIGURATION.read_text(encoding="utf-8"))
    theirs = yaml.safe_load(DEFAULT_LOGGING_SETTINGS_PATH.read_text(encoding="utf-8"))
    assert ours["loggers"] == theirs["loggers"]
    assert ours["root"] == theirs["root"]
    assert ours["handlers"].keys() == theirs["handlers"].keys()
    for name in ("api", "worker_api"):
        assert ours["handlers"][name] == theirs["handlers"][name]
