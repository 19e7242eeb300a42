"""`trashnet up` and `trashnet down`: the embedded_servers stack in one terminal, or in the background."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from operations.stack.run_state import RunRecord, StackPaths, find_run, read_run_record, read_start_ticks
from operations.stack.supervisor import StackPlan, run_stack
from trashnet.errors import UserError

STOP_SECONDS = 150.0  # five servers, each of which may take its time
DETACHED_SECONDS = 1200.0
POLL_SECONDS = 0.2


def up(*, detach: bool, flows: int, setup: bool = True, root: Path | None = None) -> None:
    """Run the stack of the repository ``root`` (the working folder) until asked to stop, or in the background
    if ``detach``.

    Raises :class:`UserError` if it runs already or does not come up.
    """
    root = (root or Path()).resolve()
    if not (root / "prefect.yaml").is_file() and setup:
        raise UserError(f"{root}: no prefect.yaml here; start the stack in the repository's own folder")
    paths = StackPaths(root / StackPaths().folder)
    if detach:
        _detached(paths, root, flows)
        return
    command = (sys.executable, "-m", "operations.cli", "setup") if setup else ()
    run_stack(StackPlan(paths, root, command, flows), _speak)


def down(paths: StackPaths | None = None) -> None:
    """Stop the stack of this folder, wherever it runs.

    Raises :class:`UserError` if it cannot be stopped; none running is no error.
    """
    paths = paths or StackPaths()
    record = find_run(paths)
    if record is None:
        click.echo("The stack is not running.")
        return
    _signal(record, signal.SIGTERM, paths)
    click.echo(f"Stopping the stack (process {record.pid})")
    if not _wait_until_ended(paths, STOP_SECONDS):
        # Its servers end with it: their subreapers see to that.
        _signal(record, signal.SIGKILL, paths)
        if not _wait_until_ended(paths, STOP_SECONDS):
            raise UserError(f"process {record.pid}, the stack, does not end; look at {paths.logs}/")
    click.echo("The stack is stopped.")


def _speak(line: str) -> None:
    with suppress(
        OSError
    ):  # the terminal may have been closed: that must not keep the servers from being stopped
        click.echo(line)


def _detached(paths: StackPaths, root: Path, flows: int) -> None:
    """Start it as a process of its own, and pass on what it says until it is up."""
    paths.create()
    if (record := find_run(paths)) is not None:
        raise UserError(
            f"{paths.folder}: this stack is already running, by process {record.pid}. `trashnet status` "
            "shows it"
        )
    log = paths.logs / "up.log"
    with open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "operations.cli", "up", "--flows", str(flows)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + DETACHED_SECONDS
    try:
        with log.open(encoding="utf-8") as said:
            while time.monotonic() < deadline:
                ended = process.poll() is not None
                record = read_run_record(paths)
                click.echo(said.read(), nl=False)  # after its record: what it says comes before that
                if ended:
                    raise UserError(f"the stack did not come up; its words are above and in {log}")
                if record is not None and record.pid == process.pid and record.phase == "up":
                    return
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    raise UserError(
        f"the stack is not up after {DETACHED_SECONDS:.0f} s; it goes on trying. Its words: {log}"
    )


def _signal(record: RunRecord, number: signal.Signals, paths: StackPaths) -> None:
    ticks = read_start_ticks(record.pid) if record.pid else None
    if ticks is None or ticks != record.started_ticks:
        raise UserError(
            f"{paths.run_record}: the stack runs, but not as process {record.pid}; try again in a moment"
        )
    os.kill(record.pid, number)


def _wait_until_ended(paths: StackPaths, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while find_run(paths) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
