"""`trashnet up` and `trashnet down`: the embedded stack in one terminal, or in the background."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from operations.stack.run_state import RunRecord, StackPaths, find_run, read_run_record, read_start_ticks
from operations.stack.supervisor import StackOptions, run_stack
from trashnet.errors import UserError

TRASHNET = (sys.executable, "-m", "operations.cli")
STOP_TIMEOUT_SECONDS = 150.0  # for five servers, one after another
DETACHED_TIMEOUT_SECONDS = 1200.0
POLL_SECONDS = 0.2


def up(*, detach: bool, flows: int, setup: bool = True, root: Path | None = None) -> None:
    """Run the stack of the repository ``root`` until it is asked to stop; in the background with ``detach``.

    ``root`` is the working folder if not given; ``flows`` is how many flows run at a time. Raises
    :class:`UserError` if the stack runs already or does not come up.
    """
    root = (root or Path()).resolve()
    if not (root / "prefect.yaml").is_file() and setup:
        raise UserError(f"{root}: no prefect.yaml here; start the stack in the repository's own folder")
    paths = StackPaths(root / StackPaths().folder)
    if detach:
        _run_detached(paths, root, flows)
        return
    setup_command = (*TRASHNET, "setup") if setup else ()
    run_stack(StackOptions(paths, root, setup_command, flows), _print)


def down(paths: StackPaths | None = None) -> None:
    """Stop the stack of this folder, wherever it runs. It is no error if none runs.

    Raises :class:`UserError` if the stack cannot be stopped.
    """
    paths = paths or StackPaths()
    record = find_run(paths)
    if record is None:
        click.echo("The stack is not running.")
        return
    _signal(record, signal.SIGTERM, paths)
    click.echo(f"Stopping the stack (process {record.pid})")
    if not _wait_until_ended(paths, STOP_TIMEOUT_SECONDS):
        _signal(record, signal.SIGKILL, paths)  # the subreapers stop the servers when their parent dies
        if not _wait_until_ended(paths, STOP_TIMEOUT_SECONDS):
            raise UserError(f"process {record.pid}, the stack, does not end; look at {paths.logs}/")
    click.echo("The stack is stopped.")


def _print(line: str) -> None:
    # A closed terminal must not keep the servers from being stopped.
    with suppress(OSError):
        click.echo(line)


def _run_detached(paths: StackPaths, root: Path, flows: int) -> None:
    """Start the stack in a process of its own, and print its output until it is up."""
    paths.create()
    if (record := find_run(paths)) is not None:
        raise UserError(
            f"{paths.folder}: this stack is already running, by process {record.pid}. "
            "`trashnet status` shows it"
        )
    log = paths.logs / "up.log"
    with open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        process = subprocess.Popen(
            [*TRASHNET, "up", "--flows", str(flows)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + DETACHED_TIMEOUT_SECONDS
    try:
        with log.open(encoding="utf-8") as lines:
            while time.monotonic() < deadline:
                has_ended = process.poll() is not None
                record = read_run_record(paths)
                click.echo(lines.read(), nl=False)  # read after the record, so that no line is left out
                if has_ended:
                    raise UserError(f"the stack did not come up; its output is above and in {log}")
                if record is not None and record.pid == process.pid and record.phase == "up":
                    return
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    raise UserError(
        f"the stack is not up after {DETACHED_TIMEOUT_SECONDS:.0f} s; it goes on trying. Its output: {log}"
    )


def _signal(record: RunRecord, number: signal.Signals, paths: StackPaths) -> None:
    ticks = read_start_ticks(record.pid) if record.pid else None
    if ticks is None or ticks != record.started_ticks:
        raise UserError(
            f"{paths.run_record}: the stack runs, but not as process {record.pid}; try again in a moment"
        )
    os.kill(record.pid, number)


def _wait_until_ended(paths: StackPaths, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while find_run(paths) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
