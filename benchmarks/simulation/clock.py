"""Simulated time: an event loop whose clock jumps to the next thing that is due."""

import asyncio
import selectors
from datetime import datetime, timedelta


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Never sleeps. ``time()`` is seconds since the loop was made, ``now()`` is the same as a date."""

    def __init__(self, start: datetime) -> None:
        """``start`` is what the simulated clock shows at first."""
        super().__init__(_JumpingSelector(self))
        self.start, self.seconds = start, 0.0

    def time(self) -> float:
        """Simulated seconds."""
        return self.seconds

    def now(self) -> datetime:
        """Simulated date and time."""
        return self.start + timedelta(seconds=self.seconds)


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the clock on where a real one would wait."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is readable now."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more in this simulation")
        self._loop.seconds += max(timeout, 0.0)
        return super().select(0)
