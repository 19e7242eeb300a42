"""The flywheel's own git clone: turns are committed there, models are trained there, and no person edits it.

Because no person edits it, an uncommitted change can only come from a step that died. It is discarded, and
the step is done again.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from trashnet.errors import UserError, mask_credentials
from trashnet.git_credentials import CredentialHelper, keep_credentials, split_credentials
from trashnet.logs import VARIABLE as LOG_VARIABLE
from trashnet.progress import elapsed_lines
from trashnet.retries import retry
from trashnet.stale_locks import OWN_LOCK, forget_dead_dvc, remove_git_locks, remove_old_reference_locks

# The branch in the clone and in its origin. People read and merge it; only the flywheel writes to it.
BRANCH = "flywheel"
AUTHOR = ("-c", "user.name=TrashNet Flywheel", "-c", "user.email=flywheel@localhost")
# What dvc prints while another dvc process works in the clone.
DVC_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked")
DVC_LOCK_TIMEOUT_SECONDS = 600.0
COMMIT = re.compile("[0-9a-f]{40}")
ERROR_TAIL_LINES = 12  # of a failing command's output: its last lines say what happened


class Clone:
    """A clone and the commands that run in it. Each command either succeeds or raises :class:`UserError`."""

    def __init__(self, path: Path) -> None:
        """Open the clone whose working tree is ``path``. Raises :class:`UserError` if there is none."""
        self.path = path.absolute()
        if not (self.path / ".git").exists():
            raise UserError(f"{path}: no clone of the flywheel here. `trashnet setup` creates it.")

    @contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Keep every other process out of the clone until the block ends.

        The kernel releases the lock of a dead process. Git and dvc leave lock files when they are killed, and
        those are removed first.
        """
        git = self.path / ".git"
        with (git / OWN_LOCK).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            remove_git_locks(git)
            forget_dead_dvc(self.path / ".dvc")
            yield

    def git(self, *arguments: str) -> str:
        """Run git and return what it printed."""
        return self.run("git", *AUTHOR, *arguments)

    @retry(
        on=lambda error: isinstance(error, UserError) and bool(DVC_LOCKED.search(str(error))),
        attempts=None,
        timeout=DVC_LOCK_TIMEOUT_SECONDS,
    )
    def dvc(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> str:
        """Run dvc and return what it printed; ``on_line`` gets each line as it comes.

        Waits while another dvc process holds its lock in the clone.
        """
        told = elapsed_lines(f"dvc {arguments[0]}") if on_line is None else nullcontext()
        with told:
            return self.run(sys.executable, "-m", "dvc", *arguments, on_line=on_line)

    def run(self, *command: str, on_line: Callable[[str], None] | None = None) -> str:
        """Run a command in the clone and return its output. Python imports the clone's own code first."""
        printed: list[str] = []
        tail: deque[str] = deque(maxlen=ERROR_TAIL_LINES)
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
                tail.append(line.rstrip())
                if on_line is not None and line.strip():
                    on_line(mask_credentials(line.rstrip()))
        if process.returncode:
            is_dvc = command[1:3] == ("-m", "dvc")
            shown = " ".join(("dvc", *command[3:]) if is_dvc else [c for c in command if c not in AUTHOR])
            raise UserError("\n".join([f"{self.path}: `{shown}` failed ({process.returncode}):", *tail]))
        return "".join(printed)

    def environment(self) -> dict[str, str]:
        """The environment of commands in the clone.

        They find `trashnet` and `dvc` beside this Python, and import the clone's code.
        """
        scripts = str(Path(sys.executable).parent)
        own = {
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(self.path),
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            "GIT_TERMINAL_PROMPT": "0",
            LOG_VARIABLE: "text",  # whoever reads the output logs it
        }
        return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | own

    def restore(self) -> None:
        """Bring tracked files and the dataset log back to the last commit.

        What a step that died left there is discarded.
        """
        self.git("reset", "--hard", "--quiet", "HEAD")
        if self.has_remote():
            # A turn that was not pushed is done again, so its tag, which only this clone has, may be pruned.
            prune = ("--force", "--prune", "--prune-tags", "--tags")
            self.git("fetch", "--quiet", *prune, "origin", "+refs/heads/*:refs/remotes/origin/*")
            if self.git("branch", "--remotes", "--list", f"origin/{BRANCH}").strip() and self._is_behind():
                # Another clone pushed its turn first. Ours was never pushed, and its plan is still in the
                # ledger.
                self.git("reset", "--hard", "--quiet", f"origin/{BRANCH}")
        self.dvc("pull", "--force", "data.dvc")

    def _is_behind(self) -> bool:
        return int(self.git("rev-list", "--count", f"HEAD..origin/{BRANCH}").strip()) > 0

    def has_remote(self) -> bool:
        """Whether the clone has an origin to fetch from and push to."""
        return "origin" in self.git("remote").split()

    def commit(self, message: str, *paths: str) -> bool:
        """Commit these paths. Returns ``False`` if nothing in them changed."""
        self.git("add", "--", *paths)
        if not self.git("diff", "--cached", "--name-only").strip():
            return False
        self.git("commit", "--quiet", "--message", message)
        return True

    def tag(self, name: str, commit: str = "HEAD") -> None:
        """Tag a commit, by default the last one. A tag that exists already stays where it is."""
        if not self.git("tag", "--list", name).strip():
            self.git("tag", name, commit)

    def push(self) -> None:
        """Push the branch and its tags to the origin, if there is one."""
        if self.has_remote():
            self._remove_old_locks_of_origin()
            self.git("push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}")
            self.git("push", "--quiet", "--tags", "origin")

    def push_tag(self, name: str) -> None:
        """Push one tag to the origin."""
        self._remove_old_locks_of_origin()
        self.git("push", "--quiet", "origin", f"refs/tags/{name}")

    def _remove_old_locks_of_origin(self) -> None:
        """Free what a push that was killed locked in an origin on this machine; other hosts see to theirs."""
        origin = self.path / self.git("remote", "get-url", "origin").strip().removeprefix("file://")
        for folder in (origin / ".git", origin):
            if (folder / "refs").is_dir():
                remove_old_reference_locks(folder, BRANCH)
                return

    def head(self) -> str:
        """The last commit's SHA."""
        return self.git("rev-parse", "HEAD").strip()

    def contains(self, commit: str, branch: str = "HEAD") -> bool:
        """Whether a branch has this commit; ``False`` too if the clone does not know the commit.

        Raises :class:`UserError` for what is no commit's SHA.
        """
        if not COMMIT.fullmatch(commit):
            raise UserError(f"{commit[:80]!r} is no commit: 40 hexadecimal digits are")
        return self.has_commit(commit) and self.git("merge-base", commit, branch).strip() == commit

    def has_commit(self, commit: str) -> bool:
        """Whether the clone knows a commit, on a branch or on none."""
        is_sha = bool(COMMIT.fullmatch(commit))
        return is_sha and bool(self.git("rev-list", "--ignore-missing", "--max-count=1", commit).strip())

    def dataset_version(self) -> str | None:
        """The newest dataset version, a tag ``data-...``, that is an ancestor of the last commit."""
        tags = self.git("tag", "--merged", "HEAD", "--list", "data-*", "--sort=-version:refname").split()
        return tags[0] if tags else None


def prepare_training_clone(clone: Clone, commit: str | None = None) -> Clone:
    """Bring the clone that models are trained in to the newest dataset version of the origin, and return it.

    The dataset may grow in ``clone`` meanwhile, or on another machine. The training clone has the same origin
    and shares the DVC cache and remote. Stages that an earlier training finished, even one that died, are not
    run again.

    Args:
        clone: Where this machine grows the dataset.
        commit: One that the newest version must contain: an event names it. Without it the newest version
            counts, whatever it is.

    Raises:
        UserError: The origin cannot be fetched or lacks the commit. Then nothing was changed: models of older
            data would look like models of the new.
    """
    path = training_clone_path(clone)
    if not (path / ".git").exists():
        with _new_folder(path) as part:
            clone.git("clone", "--quiet", str(clone.path), str(part))
    training = Clone(path)
    with training.exclusive_lock():  # a flow that publishes models may still read them there
        _share_configuration(clone, training)
        version = _fetch_newest_version(clone, training)
        if commit is not None and not training.contains(commit, version):
            raise UserError(
                f"{path}: commit {commit}, which the event names, is not in the origin's branch {BRANCH}. "
                "Nothing is trained on older data. Has this machine the origin (TRASHNET_REPOSITORY) of the "
                "machine that grew the dataset? Then push there, and run retrain again."
            )
        # Dvc writes this file in place, so half of it may be left. Its cache of runs knows the stages too.
        (path / "dvc.lock").unlink(missing_ok=True)
        training.git("checkout", "--quiet", "--force", "--detach", version)
        if newest := training.git("tag", "--list", "models-*", "--sort=-creatordate").split():
            training.git("checkout", newest[0], "--", "dvc.lock")
        training.dvc("pull", "--force", "data.dvc")
    return training


def _share_configuration(clone: Clone, training: Clone) -> None:
    """Give the training clone the other one's DVC remote, cache and origin."""
    local = clone.path / ".dvc" / "config.local"
    if local.is_file():
        copy = training.path / ".dvc" / "config.local"
        copy.touch(mode=0o600)
        copy.write_bytes(local.read_bytes())
    training.dvc("config", "--local", "cache.dir", str(clone.path / ".dvc" / "cache"))
    if clone.has_remote():
        # Git reads the other clone's configuration instead of a copy of the origin's address: so an address
        # with a token is on no command line and in no second file.
        training.git("config", "--replace-all", "include.path", str(clone.path / ".git" / "config"))
        own = training.git("config", "--local", "--no-includes", "--list").splitlines()
        if any(line.startswith("remote.origin.") for line in own):
            training.git("config", "--remove-section", "remote.origin")


def _fetch_newest_version(clone: Clone, training: Clone) -> str:
    """Fetch the origin, and return the reference of the newest dataset version.

    Where nothing was pushed yet, and where ``clone`` has newer code and the same data, that is its branch.
    """
    ours, theirs = f"refs/remotes/clone/{BRANCH}", f"refs/remotes/origin/{BRANCH}"
    try:
        every_branch = "+refs/heads/*:refs/remotes/origin/*"
        training.git("fetch", "--quiet", "--force", "--tags", "origin", every_branch)
    except UserError as error:
        raise UserError(
            f"{training.path}: the origin cannot be fetched, and nothing is trained on older data. "
            f"Is TRASHNET_REPOSITORY reachable from this machine?\n{error}"
        ) from None
    training.git("fetch", "--quiet", "--force", str(clone.path), f"+refs/heads/{BRANCH}:{ours}")
    if not training.git("for-each-ref", theirs).strip():
        return ours
    is_ahead = training.contains(training.git("rev-parse", theirs).strip(), ours)
    same_data = not training.git("diff", "--name-only", theirs, ours, "--", "data.dvc").strip()
    return ours if is_ahead and same_data else theirs


def training_clone_path(clone: Clone) -> Path:
    """Where models are trained: in a second clone beside the one whose dataset grows."""
    return clone.path.with_name(f"{clone.path.name}-training")


def ensure_clone(origin: Path | str, path: Path) -> Clone:
    """Clone the repository on the flywheel's branch; an older clone gets the repository's newest code merged.

    Credentials in the origin's URL are kept in a file beside the clone that only its owner can read, and git
    asks for them there: every user of the machine can read a command line.

    Raises :class:`UserError` if the origin cannot be cloned, or if a person must merge its changes.
    """
    address, credentials = split_credentials(str(origin))
    path.parent.mkdir(parents=True, exist_ok=True)
    helper = keep_credentials(path, address, credentials) if credentials else None
    if not (path / ".git").exists():
        _clone_repository(address, path, helper)
    clone = Clone(path)
    with clone.exclusive_lock():
        if helper is not None:
            clone.git("config", "--replace-all", helper.key, "")
            clone.git("config", "--add", helper.key, helper.command)
            clone.git("remote", "set-url", "origin", address)  # an older clone's had the credentials
        clone.git("reset", "--hard", "--quiet", "HEAD")
        clone.git("fetch", "--quiet", "origin", "HEAD")  # works for a branch and for a detached HEAD
        try:
            clone.git("merge", "--quiet", "--no-edit", "FETCH_HEAD")
        except UserError as error:
            clone.git("merge", "--abort")
            raise UserError(
                f"{path}: the repository and the flywheel's branch changed the same lines. Merge branch "
                f"`{BRANCH}` into your own, commit, and run this again.\n{error}"
            ) from None
    return clone


def _clone_repository(address: str, path: Path, helper: CredentialHelper | None) -> None:
    options = ["-c", f"{helper.key}=", "-c", f"{helper.key}={helper.command}"] if helper else []
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    with _new_folder(path) as part:
        command = ["git", "clone", "--quiet", *options, address, str(part)]
        cloned = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if cloned.returncode:
            raise UserError(f"{address}: cannot be cloned: {cloned.stderr.strip()}")
        clone = Clone(part)
        branch_exists = clone.git("branch", "--remotes", "--list", f"origin/{BRANCH}").strip()
        clone.git("checkout", "--quiet", "-B", BRANCH, f"origin/{BRANCH}" if branch_exists else "HEAD")


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to clone to, and give it its name at the end: a clone that is there is whole."""
    part = path.with_name(f"{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    yield part
    part.rename(path)
