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


def grow_by_hand(clone: Clone, number: int) -> str:
    """A dataset version as growing makes it: data, DVC remote, commit, tag, origin; its commit."""
    (clone.path / "data" / "frames" / f"{number}.txt").write_text(f"turn {number}")
    clone.dvc("add", "data")
    clone.dvc("push", "data.dvc")
    clone.commit(f"turn {number}", "data.dvc")
    clone.tag(f"data-{number:05d}")
    clone.push()
    return clone.head()


@pytest.fixture
def machines(begun: Path, tmp_path: Path) -> tuple[Clone, Clone]:
    """Two machines with a clone each of one origin."""
    root = tmp_path / "machines"
    shutil.copytree(begun, root)
    shutil.copytree(root / "clone", root / "second")
    return Clone(root / "clone"), Clone(root / "second")


@pytest.mark.heavy
def test_a_retraining_on_a_second_machine_has_what_the_first_one_grew(machines: tuple[Clone, Clone]) -> None:
    """Whether or not the event named the commit, and although that machine's own clone was never fetched."""
    first, second = machines
    grow_by_hand(first, 1)
    assert prepare_training_clone(second).dataset_version() == "data-00001"
    commit = grow_by_hand(first, 2)
    training = prepare_training_clone(second, commit)
    assert (training.head(), training.dataset_version()) == (commit, "data-00002")
    assert (training.path / "data" / "frames" / "2.txt").read_text() == "turn 2"
    (training.path / "dvc.lock").write_text("schema: '2.0'\n")
    training.commit("Models trained", "dvc.lock")
    training.tag("models-00002-abc")  # what publishing does: the first machine finds it at the origin
    training.git("push", "--quiet", "--tags", "origin")
    assert "models-00002-abc" in prepare_training_clone(first).git("tag").split()


@pytest.mark.heavy
def test_a_commit_that_the_event_names_and_the_origin_lacks_stops_the_retraining(
    machines: tuple[Clone, Clone],
) -> None:
    """Models of older data would look like models of the new data, so nothing is trained."""
    first, second = machines
    grow_by_hand(first, 1)
    (first.path / "params.yaml").write_text("not pushed")
    first.commit("not pushed", "params.yaml")
    with pytest.raises(UserError, match="which the event names, is not in the origin's branch"):
        prepare_training_clone(second, first.head())
    with pytest.raises(UserError, match="is no commit"):
        prepare_training_clone(second, "--upload-pack=touch")


@pytest.mark.heavy
def test_an_origin_that_does_not_answer_stops_the_retraining(machines: tuple[Clone, Clone]) -> None:
    """The sentence says that nothing was trained on older data."""
    first, _ = machines
    prepare_training_clone(first)
    (first.path.parent / "origin").rename(first.path.parent / "gone")
    with pytest.raises(UserError, match="nothing is trained on older data"):
        prepare_training_clone(first)


@pytest.mark.heavy
def test_a_clone_without_an_origin_trains_what_it_has(machines: tuple[Clone, Clone]) -> None:
    """One machine whose clone has no origin any more: the clone itself is the origin of the training."""
    first, _ = machines
    commit = grow_by_hand(first, 1)
    first.git("remote", "remove", "origin")
    assert prepare_training_clone(first, commit).head() == commit
