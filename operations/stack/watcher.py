"""Looking after one server: is it there, does it answer, and starting it again, each time a little later,
when it is not.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from operations.stack.process import Server
from operations.stack.run_state import ServerRecord, ServerState
from trashnet.errors import UserError

CHECK_SECONDS = 10.0  # between two requests to a server that answers
MAX_UNANSWERED = 6  # unanswered requests in a row after which a server counts as hung and is started again
MIN_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0  # seconds before a restart, doubled each time
STABLE_SECONDS = 300.0  # a server that was up for so long starts again with the first delay
START_SECONDS = 300.0  # seconds that a restarted server may take to answer before it counts as silent


class ServerWatcher:
    """One server, started by ``make`` and started again when it dies or does not answer any more.

    All but the requests happens in the caller's thread: ``check`` is called often and never waits.
    """

    def __init__(self, name: str, make: Callable[[], Server], say: Callable[[str], None]) -> None:
        self.name, self._make, self._say = name, make, say
        self.restarts, self.note = 0, ""
        self._look: Future[bool] | None = None
        self._next_look, self._unanswered, self._delay = 0.0, 0, MIN_RESTART_DELAY
        self._due: float | None = None  # when to start again
        self._begin()

    def check_start(self, pool: ThreadPoolExecutor) -> None:
        """At the stack's start: has it answered yet? Raises :class:`UserError` if it ended instead."""
        if not self.server.alive():
            status = self.server.process.returncode
            raise UserError(
                f"{self.server.name} ended while starting (exit status {status}).\n{self.server.log_tail()}"
            )
        self._ask(pool, CHECK_SECONDS if self.state == "up" else 0.0)

    def check(self, pool: ThreadPoolExecutor) -> None:
        """Look at it when it is time to, and start it again when that is due."""
        if self._due is not None:
            if time.monotonic() >= self._due:
                self._due = None
                self._restart()
        elif not self.server.alive():
            self._schedule_restart(f"ended (exit status {self.server.process.returncode})")
        else:
            try:
                self._ask(pool, 1.0 if self.state == "starting" else CHECK_SECONDS)
            except UserError as error:
                self._schedule_restart(str(error))
                return
            hung = (
                self._unanswered >= MAX_UNANSWERED
                if self.state == "silent"
                else time.monotonic() - self._began > START_SECONDS
            )
            if self.state != "up" and hung:
                self._schedule_restart("does not answer any more")

    def record(self) -> ServerRecord:
        """How it is now."""
        return ServerRecord(
            self.name, self.state, self.since, self.server.url, self.restarts, str(self.server.log), self.note
        )

    def _begin(self) -> None:
        self.server = self._make()
        self._began, self._look, self._unanswered = time.monotonic(), None, 0
        self._enter_state("starting")

    def _restart(self) -> None:
        self.server.stop()  # it may only have been silent
        self.restarts += 1
        try:
            self._begin()
        except UserError as error:
            self._schedule_restart(str(error))

    def _schedule_restart(self, why: str) -> None:
        if time.monotonic() - self._began > STABLE_SECONDS:
            self._delay = MIN_RESTART_DELAY
        self.note = why
        self._due = time.monotonic() + self._delay
        self._say(
            f"{self.server.name} {why}; starting it again in {self._delay:.0f} s. Its log: {self.server.log}"
        )
        self._delay = min(2 * self._delay, MAX_RESTART_DELAY)
        self._enter_state("down")

    def _ask(self, pool: ThreadPoolExecutor, every: float) -> None:
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            answered = look.result()
            self._next_look = time.monotonic() + every
            self._unanswered = 0 if answered else self._unanswered + 1
            if answered and self.state != "up":
                self._say(f"{self.server.name} is up {self.server.url}".rstrip())
                self._enter_state("up")
            elif not answered and self.state == "up":
                self._say(f"{self.server.name} does not answer")
                self._enter_state("silent")
        elif self._look is None and time.monotonic() >= self._next_look:
            self._look = pool.submit(self.server.healthy)

    def _enter_state(self, state: ServerState) -> None:
        self.state: ServerState = state
        self.since = datetime.now(UTC).isoformat(timespec="seconds")
