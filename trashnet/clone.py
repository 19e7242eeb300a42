"""The flywheel's own git clone: where turns are committed, models trained, and nobody types.

Because nobody types there, whatever is not committed is the trace of a step that died: it is thrown away and
done again.
"""

import fcntl
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import stamina

from trashnet.errors import UserError

BRANCH = "flywheel"  # in the clone and in the repository it came from: a branch that people look at and merge, and only the flywheel writes
AUTHOR = ("-c", "user.name=TrashNet Flywheel", "-c", "user.email=flywheel@localhost")
BUSY = re.compile(
    r"Unable to acquire lock|is busy, it is being blocked"
)  # dvc, while another dvc works in the clone
BUSY_SECONDS = 600.0
MESSAGE_LINES = 12  # of a failing command's output: its last lines say what happened


class Clone:
    """A clone and the commands that are run in it, each of which either succeeds or raises :class:`UserError`."""

    def __init__(self, path: Path) -> None:
        """``path``: the clone's working tree. Raises :class:`UserError` if there is none."""
        self.path = path.absolute()
        if not (self.path / ".git").exists():
            raise UserError(f"{path}: no clone of the flywheel here. `trashnet setup` makes it.")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process out of the clone until the block ends; the lock goes with the process that held it."""
        with (self.path / ".git" / "flywheel.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def git(self, *arguments: str) -> str:
        """Run git and return what it printed."""
        return self.run("git", *AUTHOR, *arguments)

    @stamina.retry(
        on=lambda error: isinstance(error, UserError) and bool(BUSY.search(str(error))),
        attempts=None,
        timeout=BUSY_SECONDS,
    )
    def dvc(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> str:
        """Run dvc and return what it printed, each line as it comes also to ``on_line``; waits while another dvc holds the clone."""
        return self.run(sys.executable, "-m", "dvc", *arguments, on_line=on_line)

    def run(self, *command: str, on_line: Callable[[str], None] | None = None) -> str:
        """Run a command in the clone, with the clone's own code before any other on Python's path."""
        printed: list[str] = []
        last: deque[str] = deque(maxlen=MESSAGE_LINES)
        with subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                printed.append(line)
                last.append(line.rstrip())
                if on_line is not None and line.strip():
                    on_line(line.rstrip())
        if process.returncode:
            name = " ".join(
                ("dvc", *command[3:])
                if command[1:3] == ("-m", "dvc")
                else [c for c in command if c not in AUTHOR]
            )
            raise UserError("\n".join([f"{self.path}: `{name}` failed ({process.returncode}):", *last]))
        return "".join(printed)

    def environment(self) -> dict[str, str]:
        """What a command in the clone sees: stages find `trashnet` and `dvc` beside this Python, and import the clone's code."""
        scripts = str(Path(sys.executable).parent)
        own = {
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(self.path),
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | own

    def restore(self) -> None:
        """Bring tracked files and the dataset log back to the last commit; what a step that died left there is done again."""
        (self.path / ".git" / "index.lock").unlink(
            missing_ok=True
        )  # of a git that was killed; nobody else runs one here
        self.git("reset", "--hard", "--quiet", "HEAD")
        if self.has_remote():
            # A turn that was not pushed is done again, so a tag of it that only this clone has may go.
            self.git(
                "fetch",
                "--quiet",
                "--force",
                "--prune",
                "--prune-tags",
                "--tags",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
            )
            if self.git("branch", "--remotes", "--list", f"origin/{BRANCH}").strip() and self._behind():
                # Another clone got its turn in first: ours was never pushed, and its plan is still in the
                # ledger.
                self.git("reset", "--hard", "--quiet", f"origin/{BRANCH}")
        self.dvc("pull", "--force", "data.dvc")

    def _behind(self) -> bool:
        return int(self.git("rev-list", "--count", f"HEAD..origin/{BRANCH}").strip()) > 0

    def has_remote(self) -> bool:
        """Whether the clone knows where it came from."""
        return "origin" in self.git("remote").split()

    def commit(self, message: str, *paths: str) -> bool:
        """Commit these paths; ``False`` if nothing in them changed."""
        self.git("add", "--", *paths)
        if not self.git("diff", "--cached", "--name-only").strip():
            return False
        self.git("commit", "--quiet", "--message", message)
        return True

    def tag(self, name: str) -> None:
        """Tag the last commit; a tag that is there already stays where it is."""
        if not self.git("tag", "--list", name).strip():
            self.git("tag", name)

    def push(self) -> None:
        """Push the branch and its tags to where the clone came from, if it came from anywhere."""
        if self.has_remote():
            self.git("push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}")
            self.git("push", "--quiet", "--tags", "origin")

    def head(self) -> str:
        """The last commit's SHA."""
        return self.git("rev-parse", "HEAD").strip()

    def version(self) -> str | None:
        """The newest dataset version, a tag ``data-...``, that the last commit holds."""
        return next(
            iter(self.git("tag", "--merged", "HEAD", "--list", "data-*", "--sort=-version:refname").split()),
            None,
        )


def training_clone(clone: Clone) -> Clone:
    """The clone that models are trained in, at the newest dataset version: the dataset may grow meanwhile in ``clone``.

    It shares the other's DVC cache and remote. Stages that an earlier training did, even one that died, are
    not run again.
    """
    path = training_path(clone)
    if not (path / ".git").exists():
        clone.git("clone", "--quiet", str(clone.path), str(path))
    training = Clone(path)
    with training.alone():  # models that are being published are still read there
        local = clone.path / ".dvc" / "config.local"
        if local.is_file():
            copy = path / ".dvc" / "config.local"
            copy.touch(mode=0o600)
            copy.write_bytes(local.read_bytes())
        training.dvc("config", "--local", "cache.dir", str(clone.path / ".dvc" / "cache"))
        training.git(
            "fetch",
            "--quiet",
            "--force",
            "--tags",
            "origin",
            f"+refs/heads/{BRANCH}:refs/remotes/origin/{BRANCH}",
        )
        training.git("checkout", "--quiet", "--force", "--detach", f"origin/{BRANCH}")
        if newest := training.git("tag", "--list", "models-*", "--sort=-creatordate").split():
            training.git("checkout", newest[0], "--", "dvc.lock")
        training.dvc("pull", "--force", "data.dvc")
    return training


def training_path(clone: Clone) -> Path:
    """Where models are trained: beside the clone that grows."""
    return clone.path.with_name(f"{clone.path.name}-training")


def make_clone(origin: Path | str, path: Path) -> Clone:
    """Clone the repository on the flywheel's branch, or bring an older clone's code up to date with it.

    Raises :class:`UserError` if what changed there cannot be merged without a person.
    """
    if not (path / ".git").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        clone = subprocess.run(
            ["git", "clone", "--quiet", str(origin), str(path)], capture_output=True, text=True, check=False
        )
        if clone.returncode:
            raise UserError(f"{origin}: cannot be cloned: {clone.stderr.strip()}")
        made = Clone(path)
        known = made.git("branch", "--remotes", "--list", f"origin/{BRANCH}").strip()
        made.git("checkout", "--quiet", "-B", BRANCH, f"origin/{BRANCH}" if known else "HEAD")
    clone_ = Clone(path)
    with clone_.alone():
        clone_.git("reset", "--hard", "--quiet", "HEAD")
        clone_.git("fetch", "--quiet", "origin", "HEAD")  # what is checked out there, be it a branch or not
        try:
            clone_.git("merge", "--quiet", "--no-edit", "FETCH_HEAD")
        except UserError as error:
            clone_.git("merge", "--abort")
            raise UserError(
                f"{path}: the repository and the flywheel's branch changed the same lines. Merge branch `{BRANCH}` into your own, "
                f"commit, and run this again.\n{error}"
            ) from None
    return clone_
