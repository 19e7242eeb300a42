"""Runs the embedded stack: starts its servers in order, restarts those that die, and stops them all."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from operations.stack import process, servers
from operations.stack.process import is_port_free, spawn
from operations.stack.run_feed import FlowRunFeed
from operations.stack.run_state import (
    RunRecord,
    StackPaths,
    ensure_environment,
    ensure_ports,
    exclusive_lock,
    read_start_ticks,
)
from operations.stack.server_factories import (
    ServerFactories,
    ServerFactory,
    StackConfig,
    make_server_factories,
)
from operations.stack.watcher import ServerWatcher
from trashnet.errors import UserError
from trashnet.logs import json_line, log_format

POLL_SECONDS = 0.2
FEED_SECONDS = 3.0  # between two polls of the flow runs
SETUP_TIMEOUT_SECONDS = 600.0
PORT_TIMEOUT_SECONDS = 5.0  # beyond the grace period of a stack that was killed a moment ago
MAX_LOG_BYTES = 20 * 2**20  # a larger log is rotated at the next start
LOGGER = "stack"
MAX_HEALTH_CHECKS = 8  # at the same time
STOP_ORDER = ("gateway", "worker", "label_studio", "prefect", "s3")  # callers before the servers they call

Report = Callable[[str], None]  # is given one line for the terminal


class StopRequested(Exception):
    """The stack was asked to stop: by Ctrl-C, by `trashnet down`, or because the terminal was closed."""


@dataclass(frozen=True)
class StackOptions:
    """What to run: the stack in ``paths``, for the repository ``root``.

    ``setup_command`` runs once the servers answer; empty for none. ``max_flow_runs`` is how many flows run at
    a time, and ``make_factories`` says how each server is started.
    """

    paths: StackPaths
    root: Path
    setup_command: tuple[str, ...]
    max_flow_runs: int = 4
    make_factories: Callable[[StackConfig], ServerFactories] = make_server_factories


def run_stack(options: StackOptions, report: Report) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP comes. ``report`` is given one line per event.

    Raises :class:`UserError` if the stack runs already, or if a server or the setup fails at the start; then
    all servers are stopped again.
    """
    options.paths.create()
    with ExitStack() as stack:
        stack.enter_context(exclusive_lock(options.paths))
        stop_signals = stack.enter_context(_StopSignals())
        supervisor = _Supervisor(options, report, stop_signals)
        try:
            supervisor.start()
            supervisor.watch()
        except StopRequested:
            pass
        finally:
            supervisor.stop()


class _StopSignals:
    """Remembers a request to stop: a signal must not interrupt between starting a server and recording it."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._received = False

    def __enter__(self) -> "_StopSignals":
        self._old_handlers = {number: signal.signal(number, self._receive) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True

    def check(self) -> None:
        if self._received:
            raise StopRequested


class _Supervisor:
    def __init__(self, options: StackOptions, report: Report, stop_signals: _StopSignals) -> None:
        self._options, self._paths, self._stop_signals = options, options.paths, stop_signals
        self._print = report
        self._watchers: dict[str, ServerWatcher] = {}
        self._record = RunRecord(os.getpid(), read_start_ticks(os.getpid()) or 0, _now(), "starting")
        self._recorded_phase = ""
        self._write_record()
        # For requests only: the main thread starts the servers.
        self._pool = ThreadPoolExecutor(MAX_HEALTH_CHECKS, thread_name_prefix="health")

    def start(self) -> None:
        """Start everything. Return once all servers answer and the setup is done."""
        options = self._options
        self._ports = ensure_ports(self._paths)
        self._wait_for_ports()
        self._environment = ensure_environment(self._paths, self._ports)
        _rotate_large_logs(self._paths.logs)
        started = time.monotonic()
        factories = options.make_factories(
            StackConfig(
                self._paths, options.root, self._environment, self._ports, options.max_flow_runs, self._report
            )
        )
        for name in ("s3", "label_studio", "prefect"):
            self._launch(name, factories[name])
        self._wait_until_up("prefect", timeout_seconds=servers.PREFECT_TIMEOUT_SECONDS)
        self._launch("worker", factories["worker"], needs="prefect")
        self._wait_until_up("s3", "worker", timeout_seconds=servers.WORKER_TIMEOUT_SECONDS)
        self._wait_until_up("label_studio", timeout_seconds=servers.LABEL_STUDIO_TIMEOUT_SECONDS)
        self._run_setup()
        self._launch("gateway", factories["gateway"])
        self._wait_until_up("gateway", timeout_seconds=servers.GATEWAY_TIMEOUT_SECONDS)
        self._report(f"everything is up after {time.monotonic() - started:.0f} s")
        self._print_addresses()
        self._record.phase = "up"
        self._write_record()

    def watch(self) -> None:
        """Restart servers that die and report what happens, until a stop is requested."""
        feed = FlowRunFeed(self._environment["PREFECT_API_URL"], self._environment[servers.AUTH_VARIABLE])
        next_poll = time.monotonic()
        pending_poll: Future[list[str]] | None = None
        while True:
            self._stop_signals.check()
            for watcher in self._watchers.values():
                watcher.check(self._pool)
            self._write_record()
            if pending_poll is not None and pending_poll.done():
                for line in pending_poll.result():
                    self._report(line)
                pending_poll = None
            if pending_poll is None and time.monotonic() >= next_poll:
                next_poll = time.monotonic() + FEED_SECONDS
                pending_poll = self._pool.submit(feed.poll)
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop all servers, callers first. A second request to stop changes nothing."""
        if not self._watchers:
            self._finish()
            return
        self._record.phase = "stopping"
        self._write_record()
        self._report("stopping")
        for name in STOP_ORDER:
            if name in self._watchers:
                self._watchers[name].server.stop()
        self._finish()
        self._report("stopped")

    def _report(self, line: str) -> None:
        is_json = log_format() == "json"
        self._print(json_line(line, logger=LOGGER) if is_json else f"{datetime.now():%H:%M:%S}  {line}")

    def _finish(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._paths.run_record.unlink(missing_ok=True)

    def _launch(self, name: str, factory: ServerFactory, needs: str | None = None) -> None:
        self._stop_signals.check()
        needed = self._watchers[needs] if needs else None
        self._watchers[name] = ServerWatcher(name, factory, self._report, needed)
        self._write_record()

    def _wait_until_up(self, *names: str, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while waiting := [name for name in names if self._watchers[name].state != "up"]:
            self._stop_signals.check()
            for watcher in self._watchers.values():
                watcher.check_first_start(self._pool)
            if time.monotonic() > deadline:
                raise self._watchers[waiting[0]].server.timeout_error(timeout_seconds)
            self._write_record()
            time.sleep(POLL_SECONDS / 2)

    def _run_setup(self) -> None:
        """Run the setup in a process of its own, so that the stack imports none of the rooms."""
        command = self._options.setup_command
        if not command:
            return
        self._report("setting up bucket, project, clone and deployments")
        log = self._paths.logs / "setup.log"
        log.unlink(missing_ok=True)
        setup = spawn(
            "setup",
            command,
            url="",
            log=log,
            is_healthy=lambda: True,
            environment=self._environment,
            cwd=self._options.root,
        )
        try:
            deadline = time.monotonic() + SETUP_TIMEOUT_SECONDS
            while setup.is_alive() and time.monotonic() < deadline:
                self._stop_signals.check()
                time.sleep(POLL_SECONDS)
            if setup.is_alive() or setup.process.returncode:
                raise UserError(
                    f"setting up the stack failed ({' '.join(command[-2:])}).\n{setup.log_tail()}"
                )
        finally:
            setup.stop()

    def _wait_for_ports(self) -> None:
        """Wait until a stack that was killed a moment ago is gone. Replace ports that other programs keep."""
        deadline = time.monotonic() + process.STOP_GRACE_SECONDS + PORT_TIMEOUT_SECONDS
        while taken := [name for name, port in self._ports.items() if not is_port_free(port)]:
            self._stop_signals.check()
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        old_ports, self._ports = self._ports, ensure_ports(self._paths, replace=taken)
        for name in taken:
            self._report(
                f"port {old_ports[name]} is taken by another program: {name} moves to {self._ports[name]}"
            )

    def _write_record(self) -> None:
        """Write the record if the phase or a server's state has changed."""
        records = {name: watcher.record() for name, watcher in self._watchers.items()}
        if records != self._record.servers or self._record.phase != self._recorded_phase:
            self._record.servers = records
            self._record.write(self._paths)
            self._recorded_phase = self._record.phase

    def _print_addresses(self) -> None:
        values = self._environment
        email = values["TRASHNET_LABEL_STUDIO_EMAIL"]
        prefect_url = values["PREFECT_API_URL"].removesuffix("/api")
        rows = [
            ("Label Studio", values["TRASHNET_LABEL_STUDIO_URL"], f"sign in as {email}"),
            ("Prefect", prefect_url, "flows, their runs and schedules; asks for PREFECT_API_AUTH_STRING"),
            ("S3 server", values["TRASHNET_S3_ENDPOINT"], "bins upload to inbox/"),
            ("gateway", values["TRASHNET_GATEWAY_URL"], "takes Label Studio's webhooks"),
        ]
        width = max(len(row[1]) for row in rows)
        lines = [f"  {name:<13} {address:<{width}}  {purpose}" for name, address, purpose in rows]
        paths = self._paths
        notes = [
            f"  Passwords and keys: {paths.environment} (only you may read it). Logs: {paths.logs}/",
            "  Everything listens on this machine alone. Label Studio may send requests to 127.0.0.1.",
            "  Ctrl-C or `trashnet down` stops the stack; `trashnet status` shows its state.",
        ]
        if log_format() == "json":
            for line in [*lines, *notes]:
                self._print(json_line(line.strip(), logger=LOGGER))
            return
        for line in ["", *lines, "", *notes, ""]:
            self._print(line)


def _rotate_large_logs(folder: Path) -> None:
    for log in folder.glob("*.log"):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
