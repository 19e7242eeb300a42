"""The command line as the person at the keyboard meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def trashnet(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as installed."""
    return subprocess.run(
        [sys.executable, "-m", "operations.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["dataset"], "taxonomy.yaml: no such taxonomy"),
        (["dataset", "--taxonomy", REPOSITORY / "taxonomy.yaml"], "data: no dataset log here"),
        (["check-edgetpu", "nothing.tflite"], "nothing.tflite"),
        (["evaluate", "ssd_int8", "--taxonomy", REPOSITORY / "taxonomy.yaml"], "data: no dataset log here"),
    ],
)
def test_a_mistake_is_answered_in_one_plain_line_and_exit_1(
    arguments: list[str | Path], complaint: str, tmp_path: Path
) -> None:
    """The message names the thing; no traceback, nothing on standard output."""
    run = trashnet(*arguments, cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("trashnet: ")
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_a_defect_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    """Only UserError is turned into words: hiding anything else would hide the bug."""
    program = (
        "import click, operations.cli as c\n"
        "c.cli.add_command(click.Command('boom', callback=lambda: 1 / 0))\n"
        "import sys; sys.argv = ['trashnet', 'boom']; c.main()"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "ZeroDivisionError" in run.stderr
