"""Debouncing: many notifications of one event become few emissions."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

QUIET_SECONDS = 1.0  # without a notification, after which an event is emitted
MAX_WAIT_SECONDS = 20.0  # that the first notification waits
RETRY_SECONDS = 5.0  # until an event is emitted again that Prefect did not take

Emit = Callable[[str, int], Awaitable[None]]

log = logging.getLogger("gateway")


class NotYetError(Exception):
    """Raised by an emission that should be tried again in a moment; nothing is wrong."""


class Debouncer:
    """Emits each event once no notification came for a while: ``emit(event, number of notifications)``.

    An emission that fails is repeated until it succeeds. Emissions of one event never overlap.
    """

    def __init__(self, emit: Emit, quiet: float = QUIET_SECONDS, max_wait: float = MAX_WAIT_SECONDS) -> None:
        """``quiet``, ``max_wait``: seconds."""
        self._emit, self._quiet, self._max_wait = emit, quiet, max_wait
        self._counts: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._pending: dict[str, asyncio.Task[None]] = {}

    def notify(self, event: str, count: int = 1) -> None:
        """Note that something happened, ``count`` times; returns at once."""
        self._counts[event] = self._counts.get(event, 0) + count
        self._last[event] = asyncio.get_running_loop().time()
        if event not in self._pending:
            self._pending[event] = asyncio.create_task(self._emit_when_quiet(event))

    async def _emit_when_quiet(self, event: str) -> None:
        clock = asyncio.get_running_loop().time
        while self._counts.get(event):
            first = clock()
            while (now := clock()) < (due := min(self._last[event] + self._quiet, first + self._max_wait)):
                await asyncio.sleep(due - now)
            count = self._counts.pop(event)
            try:
                await self._emit(event, count)
            except Exception as error:  # whatever keeps Prefect from taking it: the notifications are kept
                level = logging.INFO if isinstance(error, NotYetError) else logging.WARNING
                log.log(level, "%s not emitted, trying again in %.0f s: %s", event, RETRY_SECONDS, error)
                self._counts[event] = self._counts.get(event, 0) + count
                await asyncio.sleep(RETRY_SECONDS)
        del self._pending[event]

    async def close(self) -> None:
        """Stop; what was not emitted is left to the sweep."""
        for pending in list(self._pending.values()):
            pending.cancel()
            with suppress(asyncio.CancelledError):
                await pending
