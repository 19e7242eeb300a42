"""How far long work is: a bar in a terminal, a line every few seconds elsewhere."""

import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from trashnet.logs import json_line, log_format

LINE_SECONDS = 20.0  # between two lines, at least: a step of 10 s more keeps them within half a minute
LINE_FORMAT = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left"
ENDLESS_LINE_FORMAT = "{desc}: {n_fmt} {unit}s, {rate_fmt}"  # where nobody knows how many there are

T = TypeVar("T")


class ProgressLines(io.TextIOBase):
    """A stream for tqdm that turns each redrawing of its bar into a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a line; what tqdm writes to clear its bar is nothing."""
        if line := text.strip():
            line = json_line(line, logger="progress") if log_format() == "json" else line
            self._stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def progress_bar(
    total: int | None, description: str, unit: str, *, stream: TextIO | None = None
) -> "tqdm[Any]":
    """A bar that the caller updates; without a terminal, lines with count, rate and time left.

    Args:
        total: How many units there are; ``None`` if nobody knows, and then no time left is told.
        description: What is being done, such as ``epoch 3/50``.
        unit: One of what is counted, in the singular.
        stream: Where it is shown; standard error unless given.
    """
    stream = stream or sys.stderr
    if stream.isatty() and log_format() == "text":
        return tqdm(total=total, desc=description, unit=unit, leave=False, file=stream)
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        leave=False,
        file=ProgressLines(stream),
        mininterval=LINE_SECONDS,
        delay=LINE_SECONDS,  # short work prints nothing
        miniters=1,  # tqdm would otherwise guess after how many units to look at the clock
        bar_format=ENDLESS_LINE_FORMAT if total is None else LINE_FORMAT,
    )


def track(units: Iterable[T], total: int | None, description: str, unit: str) -> Iterator[T]:
    """The units one by one, while a bar or lines say how far the caller is."""
    with progress_bar(total, description, unit) as bar:
        for value in units:
            yield value
            bar.update()


@contextmanager
def elapsed_lines(description: str, *, stream: TextIO | None = None) -> Iterator[None]:
    """Say every few seconds how long the block has been running: another program is at work."""
    started, ended = time.monotonic(), threading.Event()
    lines = ProgressLines(stream or sys.stderr)

    def tell() -> None:
        while not ended.wait(LINE_SECONDS):
            lines.write(f"{description}: {time.monotonic() - started:.0f} s so far")
            lines.flush()

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
