"""A repository with an empty dataset log, and a clone of it, to copy for every test that grows the log."""

import subprocess
import sys
from pathlib import Path

import pytest

from trashnet.clone import ensure_clone


def run(where: Path, *command: str | Path) -> str:
    """Run git or dvc in a folder."""
    program = (
        [sys.executable, "-m", "dvc"]
        if command[0] == "dvc"
        else ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    )
    return subprocess.run(
        [*program, *command[1:]], cwd=where, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an empty log in a DVC remote, and a clone of it.

    Every path in them is relative, so that copies work too.
    """
    root = tmp_path_factory.mktemp("begun")
    origin = root / "origin"
    for folder in ("data/frames", "data/labels"):
        (origin / folder).mkdir(parents=True)
        (origin / folder / ".gitkeep").touch()
    run(origin, "git", "init", "--quiet", "--initial-branch=main")
    run(origin, "dvc", "init", "--quiet")
    run(origin, "dvc", "remote", "add", "--quiet", "-d", "store", "../remote")
    run(origin, "dvc", "add", "--quiet", "data")
    run(origin, "dvc", "push", "--quiet")
    run(origin, "git", "add", ".")
    run(origin, "git", "commit", "-qm", "begin")
    clone = ensure_clone(origin, root / "clone")
    clone.git("remote", "set-url", "origin", "../origin")
    clone.dvc("pull")
    return root
