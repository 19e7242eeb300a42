"""Long work says how far it is."""

import io
import json
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


def test_work_of_unknown_length_tells_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count and rate are all that is known."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    stream = io.StringIO()
    with progress.progress_bar(None, "append frames", "frame", stream=stream) as bar:
        for _ in range(3):
            bar.update()
    line = stream.getvalue().splitlines()[-1]
    assert line.startswith("append frames: 3 frames, ")
    assert "left" not in line


def test_another_program_s_work_tells_how_long_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line per interval, until it ends, however it ends."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    stream = io.StringIO()
    with pytest.raises(ValueError, match="refused"), progress.elapsed_lines("dvc push", stream=stream):
        time.sleep(0.3)
        raise ValueError("refused")
    shown = stream.getvalue()
    assert shown.count("dvc push: 0 s so far\n") >= 2
    time.sleep(0.1)
    assert stream.getvalue() == shown


def test_lines_are_objects_where_logs_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets them too: its output may be collected."""
    monkeypatch.setenv("TRASHNET_LOG", "json")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    for stream in (io.StringIO(), Terminal()):
        lines = [json.loads(line) for line in run(stream, 2, 0.0)]
        assert lines[-1]["logger"] == "progress"
        assert lines[-1]["event"].startswith("epoch 1/3: 2 of 2 images, ")
