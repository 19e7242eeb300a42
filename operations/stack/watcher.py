"""Watches one server: whether it runs and answers.

Restarts it when it does not, each time after a longer delay.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from operations.stack.process import Server
from operations.stack.run_state import ServerRecord, ServerState
from trashnet.errors import UserError

CHECK_SECONDS = 10.0  # between two health checks of a server that is up
STARTING_CHECK_SECONDS = 1.0  # between two health checks of a restarted server
MAX_FAILED_CHECKS = 6  # in a row, after which a silent server counts as hung and is restarted
# Restarting the worker ends its runs. After Prefect was down its next heartbeat may take some minutes.
MAX_FAILED_CHECKS_OF_CALLERS = 60
MIN_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0  # seconds before a restart, doubled each time
STABLE_SECONDS = 300.0  # a server that ran for so long is restarted after the shortest delay again
START_TIMEOUT_SECONDS = 300.0  # for a restarted server to answer before it counts as hung


class ServerWatcher:
    """One server, which ``start`` starts. It is restarted when it dies or hangs.

    Health checks run in a pool. All else happens in the caller's thread: the caller calls ``check`` often,
    and ``check`` never waits. While ``needs``, the server that it shows its health by, is not up, a server
    does not count as hung.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Server],
        report: Callable[[str], None],
        needs: "ServerWatcher | None" = None,
    ) -> None:
        self.name, self._start_server, self._report, self._needs = name, start, report, needs
        self.restarts, self.note = 0, ""
        self._pending_check: Future[bool] | None = None
        self._next_check, self._failed_checks, self._restart_delay = 0.0, 0, MIN_RESTART_DELAY
        self._restart_at: float | None = None
        self._start()

    def check_first_start(self, pool: ThreadPoolExecutor) -> None:
        """Check a server while the stack starts.

        Raises :class:`UserError` if it ended: no restart would help.
        """
        if not self.server.is_alive():
            raise self.server.start_error()
        self._check_health(pool, interval=CHECK_SECONDS if self.state == "up" else 0.0)

    def check(self, pool: ThreadPoolExecutor) -> None:
        """Check the server if a check is due, and restart it if a restart is due."""
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self._restart_at = None
                self._restart()
            return
        if not self.server.is_alive():
            self._schedule_restart(f"ended (exit status {self.server.process.returncode})")
            return
        try:
            interval = STARTING_CHECK_SECONDS if self.state == "starting" else CHECK_SECONDS
            self._check_health(pool, interval)
        except UserError as error:
            self._schedule_restart(str(error))
            return
        if self._is_hung():
            self._schedule_restart("does not answer any more")

    def record(self) -> ServerRecord:
        """The server's state now."""
        return ServerRecord(
            self.name, self.state, self.since, self.server.url, self.restarts, str(self.server.log), self.note
        )

    def _is_hung(self) -> bool:
        if self._needs is not None and self._needs.state != "up":
            self._failed_checks = 0
            return False
        if self.state == "silent":
            limit = MAX_FAILED_CHECKS if self._needs is None else MAX_FAILED_CHECKS_OF_CALLERS
            return self._failed_checks >= limit
        return self.state != "up" and time.monotonic() - self._started_at > START_TIMEOUT_SECONDS

    def _start(self) -> None:
        self.server = self._start_server()
        self._started_at, self._pending_check, self._failed_checks = time.monotonic(), None, 0
        self._set_state("starting")

    def _restart(self) -> None:
        self.server.stop()  # a silent server still runs
        self.restarts += 1
        try:
            self._start()
        except UserError as error:
            self._schedule_restart(str(error))

    def _schedule_restart(self, reason: str) -> None:
        if time.monotonic() - self._started_at > STABLE_SECONDS:
            self._restart_delay = MIN_RESTART_DELAY
        self.note = reason
        self._restart_at = time.monotonic() + self._restart_delay
        self._report(
            f"{self.server.name} {reason}; starting it again in {self._restart_delay:.0f} s. "
            f"Its log: {self.server.log}"
        )
        self._restart_delay = min(2 * self._restart_delay, MAX_RESTART_DELAY)
        self._set_state("down")

    def _check_health(self, pool: ThreadPoolExecutor, interval: float) -> None:
        """Take the result of the check that has finished, or submit the next one if it is due."""
        if self._pending_check is not None and self._pending_check.done():
            check, self._pending_check = self._pending_check, None
            healthy = check.result()
            self._next_check = time.monotonic() + interval
            self._failed_checks = 0 if healthy else self._failed_checks + 1
            if healthy and self.state != "up":
                self._report(f"{self.server.name} is up {self.server.url}".rstrip())
                self._set_state("up")
            elif not healthy and self.state == "up":
                self._report(f"{self.server.name} does not answer")
                self._set_state("silent")
        elif self._pending_check is None and time.monotonic() >= self._next_check:
            self._pending_check = pool.submit(self.server.is_healthy)

    def _set_state(self, state: ServerState) -> None:
        self.state: ServerState = state
        self.since = datetime.now(UTC).isoformat(timespec="seconds")
