"""The flywheel's clone, with real git."""

import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trashnet.clone import BRANCH, Clone, ensure_clone, prepare_training_clone
from trashnet.errors import UserError


def git(where: Path, *command: str) -> str:
    """Run git with an author."""
    return subprocess.check_output(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=where, text=True
    )


def commit_file(where: Path, text: str, name: str = "params.yaml") -> None:
    """Commit a file."""
    (where / name).write_text(text)
    git(where, "add", name)
    git(where, "commit", "--quiet", "-m", text)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with one commit."""
    root = tmp_path / "origin"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    commit_file(root, "one")
    return root


def test_the_clone_works_on_a_branch_of_its_own_and_pushes_it(origin: Path, tmp_path: Path) -> None:
    """What is checked out at the origin does not change; its new branch and tag are there."""
    clone = ensure_clone(origin, tmp_path / "clone")
    (clone.path / "data.dvc").write_text("turn")
    assert clone.commit("a turn", "data.dvc")
    assert not clone.commit("a turn", "data.dvc")
    clone.tag("data-00001")
    clone.push()
    assert git(origin, "rev-parse", BRANCH).strip() == clone.head()
    assert git(origin, "tag").split() == ["data-00001"] == [clone.dataset_version()]
    assert not (origin / "data.dvc").exists()


@pytest.mark.parametrize("detached", [False, True])
def test_an_older_clone_gets_the_repository_s_new_code(origin: Path, tmp_path: Path, detached: bool) -> None:
    """Its own commits stay; whether a branch is checked out at the origin or not makes no difference."""
    if detached:
        git(origin, "checkout", "--quiet", "--detach")
    clone = ensure_clone(origin, tmp_path / "clone")
    (clone.path / "data.dvc").write_text("turn")
    clone.commit("a turn", "data.dvc")
    commit_file(origin, "two")
    ensure_clone(origin, tmp_path / "clone")
    assert (clone.path / "params.yaml").read_text() == "two"
    assert (clone.path / "data.dvc").read_text() == "turn"


def test_a_merge_conflict_is_reported_and_nothing_is_half_merged(origin: Path, tmp_path: Path) -> None:
    """The clone stays as it was; the message names the branch to merge."""
    clone = ensure_clone(origin, tmp_path / "clone")
    (clone.path / "params.yaml").write_text("the flywheel's")
    clone.commit("ours", "params.yaml")
    commit_file(origin, "somebody's")
    with pytest.raises(UserError, match=f"Merge branch `{BRANCH}`"):
        ensure_clone(origin, tmp_path / "clone")
    assert clone.git("status", "--porcelain") == ""
    assert (clone.path / "params.yaml").read_text() == "the flywheel's"


def test_a_failing_command_is_named_with_the_end_of_its_output(origin: Path, tmp_path: Path) -> None:
    """The message names folder and command, without the author options, and quotes the output."""
    clone = ensure_clone(origin, tmp_path / "clone")
    with pytest.raises(UserError, match=r"`git checkout no-such-branch` failed") as caught:
        clone.git("checkout", "no-such-branch")
    assert "user.name" not in str(caught.value)
    assert "no-such-branch' did not match" in str(caught.value)


def test_only_one_process_at_a_time_holds_the_clone_s_lock(origin: Path, tmp_path: Path) -> None:
    """The second waits until the first has left."""
    ensure_clone(origin, tmp_path / "clone")
    events: list[str] = []

    def enter(name: str, seconds: float) -> None:
        with Clone(tmp_path / "clone").exclusive_lock():
            events.append(f"{name} in")
            time.sleep(seconds)
            events.append(f"{name} out")

    first = threading.Thread(target=enter, args=("first", 0.5))
    first.start()
    while not events:
        time.sleep(0.01)
    enter("second", 0)
    first.join()
    assert events == ["first in", "first out", "second in", "second out"]


def test_a_folder_without_a_clone_says_what_makes_one(tmp_path: Path) -> None:
    """The message names `trashnet setup`."""
    with pytest.raises(UserError, match="trashnet setup"):
        Clone(tmp_path)


@pytest.mark.heavy
def test_a_retraining_waits_until_the_models_before_it_are_published(begun: Path, tmp_path: Path) -> None:
    """Publishing reads the training clone, so its version must not change meanwhile."""
    shutil.copytree(begun, tmp_path / "here")
    clone = Clone(tmp_path / "here" / "clone")
    training = prepare_training_clone(clone)
    with ThreadPoolExecutor(1) as pool:
        with training.exclusive_lock():
            again = pool.submit(prepare_training_clone, clone)
            with pytest.raises(TimeoutError):
                again.result(timeout=1)
        assert again.result(timeout=60).dataset_version() == clone.dataset_version()
