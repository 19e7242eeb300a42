"""Runs the embedded_servers stack in one terminal: starts its servers in order, restarts one that dies, and
stops them all at the end.
"""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from operations.stack import process, servers
from operations.stack.process import Server, is_port_free, spawn
from operations.stack.run_feed import RunFeed
from operations.stack.run_state import (
    RunRecord,
    StackPaths,
    ensure_environment,
    ensure_ports,
    exclusive_lock,
    read_start_ticks,
)
from operations.stack.server_factories import ServerFactories, embedded_servers
from operations.stack.watcher import ServerWatcher
from trashnet.errors import UserError

TICK_SECONDS = 0.2
EVENT_SECONDS = 3.0
SETUP_SECONDS = 600.0
MAX_LOG_BYTES = 20 * 2**20  # bytes; a larger one is put aside at the next start
STOP_ORDER = ("gateway", "worker", "label_studio", "prefect", "s3")  # who calls goes before who is called

Say = Callable[[str], None]


class StopRequested(Exception):
    """Somebody asked the stack to stop: Ctrl-C, `trashnet down`, or the terminal was closed."""


@dataclass(frozen=True)
class StackPlan:
    """What to run: the stack of ``paths`` for the repository ``root``.

    ``setup`` is run once its servers answer; ``flows`` at a time.

    ``makers`` says how each server is started.
    """

    paths: StackPaths
    root: Path
    setup: tuple[str, ...]
    flows: int = 4
    makers: ServerFactories = embedded_servers


def run_stack(plan: StackPlan, say: Say) -> None:
    """Run the stack until asked to stop (SIGINT, SIGTERM, SIGHUP); ``say`` gets one line per event.

    Raises :class:`UserError` if it already runs, or if a server or the setup fails at the start; then all are
    stopped again.
    """
    plan.paths.create()
    with ExitStack() as stack:
        stack.enter_context(exclusive_lock(plan.paths))
        asked = stack.enter_context(_Signals())
        supervisor = _Supervisor(plan, say, asked)
        try:
            supervisor.start()
            supervisor.supervise()
        except StopRequested:
            pass
        finally:
            supervisor.stop()


class _Signals:
    """Remembers that somebody asked to stop, so that no code is interrupted between starting a server and
    writing that down.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Signals":
        self._before = {number: signal.signal(number, self._ask) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def check(self) -> None:
        if self.asked:
            raise StopRequested


class _Supervisor:
    def __init__(self, plan: StackPlan, say: Say, asked: _Signals) -> None:
        self.plan, self.paths, self.asked = plan, plan.paths, asked
        self._say = say
        self.watchers: dict[str, ServerWatcher] = {}
        self.record = RunRecord(os.getpid(), read_start_ticks(os.getpid()) or 0, _now(), "starting")
        self._written = ""
        self._write()
        self.pool = ThreadPoolExecutor(
            8, thread_name_prefix="health"
        )  # requests only; servers are started by the main thread

    def start(self) -> None:
        """Start everything; return once all of it answers and the setup is done."""
        self.ports = ensure_ports(self.paths)
        self._wait_for_ports()
        self.environment = ensure_environment(self.paths, self.ports)
        _rotate_large_logs(self.paths.logs)
        began = time.monotonic()
        makers = self.plan.makers(self.paths, self.plan.root, self.environment, self.ports, self.plan.flows)
        for name in ("s3", "label_studio", "prefect"):
            self._launch(name, makers[name])
        self._until_up("prefect", seconds=servers.PREFECT_SECONDS)
        self._launch("worker", makers["worker"])
        self._until_up("s3", "worker", seconds=servers.WORKER_SECONDS)
        self._until_up("label_studio", seconds=servers.LABEL_STUDIO_SECONDS)
        self._set_up()
        self._launch("gateway", makers["gateway"])
        self._until_up("gateway", seconds=servers.GATEWAY_SECONDS)
        self.say(f"everything is up after {time.monotonic() - began:.0f} s")
        self._table()
        self.record.phase = "up"
        self._write()

    def supervise(self) -> None:
        """Restart what dies, report what happens, until asked to stop."""
        watch = RunFeed(self.environment["PREFECT_API_URL"])
        next_look = time.monotonic()
        seen = None
        while True:
            self.asked.check()
            for watcher in self.watchers.values():
                watcher.check(self.pool)
            self._write()
            if seen is not None and seen.done():
                for line in seen.result():
                    self.say(line)
                seen = None
            if seen is None and time.monotonic() >= next_look:
                next_look = time.monotonic() + EVENT_SECONDS
                seen = self.pool.submit(watch.changes)
            time.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """Stop all servers, callers first; asking again meanwhile changes nothing."""
        if not self.watchers:
            self._ended()
            return
        self.record.phase = "stopping"
        self._write()
        self.say("stopping")
        for name in STOP_ORDER:
            if name in self.watchers:
                self.watchers[name].server.stop()
        self._ended()
        self.say("stopped")

    def say(self, line: str) -> None:
        """One line with the time of day."""
        self._say(f"{datetime.now():%H:%M:%S}  {line}")

    def _ended(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.paths.run_record.unlink(missing_ok=True)

    def _launch(self, name: str, make: Callable[[], Server]) -> None:
        self.asked.check()
        self.watchers[name] = ServerWatcher(name, make, self.say)
        self._write()

    def _until_up(self, *names: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while waiting := [name for name in names if self.watchers[name].state != "up"]:
            self.asked.check()
            for watcher in self.watchers.values():
                watcher.check_start(self.pool)
            if time.monotonic() > deadline:
                server = self.watchers[waiting[0]].server
                raise UserError(f"{server.name} did not answer within {seconds:.0f} s.\n{server.log_tail()}")
            self._write()
            time.sleep(TICK_SECONDS / 2)

    def _set_up(self) -> None:
        """Run the setup as a process of its own, so that the stack knows none of the rooms."""
        if not self.plan.setup:
            return
        self.say("setting up bucket, project, clone and deployments")
        log = self.paths.logs / "setup.log"
        log.unlink(missing_ok=True)
        setup = spawn(
            "setup",
            self.plan.setup,
            url="",
            log=log,
            healthy=lambda: True,
            environment=self.environment,
            folder=self.plan.root,
        )
        try:
            deadline = time.monotonic() + SETUP_SECONDS
            while setup.alive() and time.monotonic() < deadline:
                self.asked.check()
                time.sleep(TICK_SECONDS)
            if setup.alive() or setup.process.returncode:
                raise UserError(
                    f"setting up the stack failed ({' '.join(self.plan.setup[-2:])}).\n{setup.log_tail()}"
                )
        finally:
            setup.stop()

    def _wait_for_ports(self) -> None:
        """Wait for a stack that was killed just now to be gone.

        Give a server another port if a stranger has its.
        """
        deadline = time.monotonic() + process.GRACE_SECONDS + 5
        while busy := [name for name, port in self.ports.items() if not is_port_free(port)]:
            self.asked.check()
            if time.monotonic() > deadline:
                break
            time.sleep(TICK_SECONDS)
        taken, self.ports = self.ports, ensure_ports(self.paths, replace=busy)
        for name in busy:
            self.say(f"port {taken[name]} is taken by another program: {name} moves to {self.ports[name]}")

    def _write(self) -> None:
        """Write the record anew if a server's state changed."""
        now = {name: watcher.record() for name, watcher in self.watchers.items()}
        if now != self.record.servers or self.record.phase != self._written:
            self.record.servers = now
            self.record.write(self.paths)
            self._written = self.record.phase

    def _table(self) -> None:
        value = self.environment
        rows = [
            (
                "Label Studio",
                value["TRASHNET_LABEL_STUDIO_URL"],
                f"sign in as {value['TRASHNET_LABEL_STUDIO_EMAIL']}",
            ),
            ("Prefect", value["PREFECT_API_URL"].removesuffix("/api"), "flows, their runs and schedules"),
            ("S3 server", value["TRASHNET_S3_ENDPOINT"], "bins upload to inbox/"),
            ("gateway", value["TRASHNET_GATEWAY_URL"], "takes Label Studio's webhooks"),
        ]
        width = max(len(row[1]) for row in rows)
        lines = [f"  {name:<13} {address:<{width}}  {what}" for name, address, what in rows]
        notes = [
            f"  Passwords and keys: {self.paths.environment} (only you may read it). Logs: "
            f"{self.paths.logs}/",
            "  Everything listens on this machine alone. Label Studio's guard lets requests to 127.0.0.1 "
            "through.",
            "  Ctrl-C or `trashnet down` stops it; `trashnet status` says how it is.",
        ]
        for line in ["", *lines, "", *notes, ""]:
            self._say(line)


def _rotate_large_logs(folder: Path) -> None:
    for log in folder.glob("*.log"):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
