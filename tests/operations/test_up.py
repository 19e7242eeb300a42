"""The whole embedded stack, as a user starts it in a clone of the repository."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from operations.stack.run_state import StackPaths, find_run, read_environment_file
from tests.conftest import REPOSITORY

MINUTES = 60


def trashnet(
    *arguments: str, cwd: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line of the clone, with more variables in its environment."""
    command = [sys.executable, "-m", "operations.cli", *arguments]
    variables = os.environ | (environment or {})
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=seconds)


def processes(containing: str) -> list[tuple[int, str]]:
    """Number and command line of each process in whose command line the text occurs."""
    listed = subprocess.run(
        ["ps", "axww", "-o", "pid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    return [(int(line.split()[0]), line.split(maxsplit=1)[1]) for line in listed if containing in line]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A clone of this repository, whose stack is stopped afterwards."""
    path = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, path], check=True)
    yield path
    trashnet("down", cwd=path, seconds=5 * MINUTES)


def is_ok(clone: Path, seconds: float) -> dict[str, Any]:
    """Run `trashnet status` until all is well, and return what it reports."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        asked = trashnet("status", "--json", cwd=clone, seconds=2 * MINUTES)
        if asked.returncode == 0:
            seen: dict[str, Any] = json.loads(asked.stdout)
            return seen
        time.sleep(1)
    raise AssertionError(asked.stdout + asked.stderr)


@pytest.mark.slow
def test_the_stack_starts_by_one_command_restarts_a_server_and_leaves_nothing_behind(clone: Path) -> None:
    """Up, status, a killed server, a second start, down: on the real servers, set up by themselves, and no
    secret to be seen.
    """
    up = trashnet("up", "--detach", cwd=clone, seconds=14 * MINUTES)
    assert up.returncode == 0, up.stdout + up.stderr
    seen = is_ok(clone, 30)
    assert [server["name"] for server in seen["servers"] if server["ok"]] == [
        "S3 server",
        "Label Studio",
        "Prefect",
        "worker",
        "event gateway",
    ]
    assert seen["facts"]["tasks"]["open"] == 0
    assert not [name for name, facts in seen["facts"].items() if "unknown" in facts]

    secrets = [
        value
        for name, value in read_environment_file(clone / ".trashnet/stack.env").items()
        if name.endswith(("KEY", "WORD", "TOKEN", "SECRET", "AUTH_STRING"))
    ]
    shown = up.stdout + "".join(line for _, line in processes(""))
    secrets += [secret.partition(":")[2] for secret in secrets if ":" in secret]  # the password alone
    assert len(secrets) == 7
    assert not [name for name in secrets if name in shown]
    assert not [
        log for log in (clone / ".trashnet/logs").iterdir() for secret in secrets if secret in log.read_text()
    ]

    second = trashnet("up", cwd=clone, seconds=MINUTES)
    assert second.returncode == 1
    assert "this stack is already running" in second.stderr

    [rclone] = [pid for pid, line in processes(str(clone / ".trashnet/s3")) if "subreaper.py" not in line]
    os.kill(rclone, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (record := find_run(StackPaths(clone / ".trashnet"))) is None or record.servers["s3"].restarts == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    seen = is_ok(clone, 60)
    assert "started again 1 times: ended (exit status 137)" in seen["servers"][0]["state"]

    assert trashnet("down", cwd=clone, seconds=5 * MINUTES).returncode == 0
    ports = json.loads((clone / ".trashnet/stack.json").read_text())["ports"]
    assert processes(str(clone)) == []
    assert not [line for port in ports.values() for _, line in processes(f"--port {port}")]
    assert trashnet("status", cwd=clone, seconds=2 * MINUTES).returncode == 1
