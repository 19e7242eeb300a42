"""Long work says how far it is."""

import io
import time

import pytest

from trashnet import progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def run(stream: io.StringIO, units: int, seconds: float) -> list[str]:
    """Work on so many units; the lines that were shown."""
    with progress.progress_bar(units, "epoch 1/3", "image", stream=stream) as bar:
        for _ in range(units):
            time.sleep(seconds)
            bar.update()
    return stream.getvalue().splitlines()


def test_without_a_terminal_lines_tell_count_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line per interval, each whole, and none of the characters that redraw a bar."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.1)
    lines = run(io.StringIO(), 40, 0.01)
    assert 2 <= len(lines) <= 4  # 0.4 s
    assert all("\r" not in line for line in lines)
    assert lines[0].startswith("epoch 1/3: ")
    assert " of 40 images, " in lines[0]
    assert "image/s, 00:0" in lines[0]
    assert lines[0].endswith(" left")


def test_short_work_prints_nothing() -> None:
    """A log is not filled by work that ends before the first line is due."""
    assert run(io.StringIO(), 3, 0.0) == []


def test_a_terminal_shows_a_bar() -> None:
    """The bar is redrawn in place."""
    terminal = Terminal()
    run(terminal, 3, 0.0)
    assert "\r" in terminal.getvalue()


def test_units_pass_through() -> None:
    """Tracking changes neither the units nor their order."""
    assert list(progress.track("abc", 3, "spelling", "letter")) == ["a", "b", "c"]
