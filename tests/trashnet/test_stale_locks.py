"""What git and dvc lock, and a kill leaves locked: with the real programs."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clones import run
from trashnet.clone import BRANCH, Clone, ensure_clone, prepare_training_clone, training_clone_path
from trashnet.stale_locks import forget_dead_dvc

GIT_LOCKS = (
    "index.lock",
    "HEAD.lock",
    "config.lock",
    "packed-refs.lock",
    f"refs/heads/{BRANCH}.lock",
    "refs/tags/data-00001.lock",
)


@pytest.fixture
def clone(begun: Path, tmp_path: Path) -> Clone:
    """A clone with one dataset version to come."""
    shutil.copytree(begun, tmp_path / "here")
    clone = Clone(tmp_path / "here" / "clone")
    (clone.path / "params.yaml").write_text("a change")
    return clone


def commit_and_tag(clone: Clone) -> None:
    """What a turn does with git."""
    with clone.exclusive_lock():
        assert clone.commit("a turn", "params.yaml")
        clone.tag("data-00001")
        clone.push()


@pytest.mark.heavy
@pytest.mark.parametrize("name", GIT_LOCKS)
def test_a_lock_file_of_a_killed_git_stops_neither_setup_nor_a_turn(clone: Clone, name: str) -> None:
    """`trashnet up` sets the clone up, and the turn is committed, tagged and pushed."""
    (clone.path / ".git" / name).touch()
    ensure_clone(clone.path.parent / "origin", clone.path)
    (clone.path / "params.yaml").write_text("a change")
    (clone.path / ".git" / name).touch()
    commit_and_tag(clone)
    assert "data-00001" in run(clone.path.parent / "origin", "git", "tag").split()


@pytest.mark.heavy
@pytest.mark.parametrize("name", [f"refs/heads/{BRANCH}.lock", "refs/tags/data-00001.lock"])
def test_a_lock_of_a_killed_push_in_the_origin_stops_no_later_push(clone: Clone, name: str) -> None:
    """It is removed once it is too old to be somebody's; a lock of this moment is not."""
    lock = clone.path.parent / "origin" / ".git" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    with pytest.raises(Exception, match=r"(?s)failed.*(lock|remote)"):
        commit_and_tag(clone)
    os.utime(lock, (time.time() - 60, time.time() - 60))
    clone.push()
    assert "data-00001" in run(clone.path.parent / "origin", "git", "tag").split()


def list_users(pid: int) -> str:
    """Dvc's list of users, in which a process reads and writes everything in the clone."""
    info = {"pid": pid, "cmd": "dvc repro"}
    return json.dumps({"write": {"/": info}, "read": {"/": [info]}})


@pytest.mark.heavy
@pytest.mark.parametrize("text", [list_users(os.getpid()), "", '{"write": {', "[]"])
def test_dvc_works_on_after_a_power_cut_although_it_was_writing_its_list_of_users(
    clone: Clone, text: str
) -> None:
    """A number in it is another program's after the restart; half a list counts as none."""
    path = clone.path / ".dvc" / "tmp" / "rwlock"
    path.write_text(text)
    before_boot = 1_000_000_000
    os.utime(path, (before_boot, before_boot))
    with clone.exclusive_lock():
        clone.dvc("add", "data")


@pytest.mark.parametrize(
    ("age", "change", "kept"),
    [
        (0, lambda pid: pid, True),  # it runs, and ran before the list was written
        (10_000_000, lambda pid: pid, False),  # a younger process of its number
        (0, lambda pid: 2**22 + 1, False),  # nobody has this number: it is beyond Linux's largest
    ],
)
def test_only_processes_that_are_gone_are_forgotten(
    tmp_path: Path, age: float, change: Callable[[int], int], kept: bool
) -> None:
    """A dvc that works now keeps what it locked."""
    path = tmp_path / "tmp" / "rwlock"
    path.parent.mkdir()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            path.write_text(list_users(change(process.pid)))
            os.utime(path, (time.time() - age, time.time() - age))
            forget_dead_dvc(tmp_path)
        finally:
            process.kill()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    assert bool(found) is kept
    if kept:
        assert path.read_text() == list_users(process.pid)


@pytest.mark.heavy
def test_half_a_clone_is_made_anew(clone: Clone, tmp_path: Path) -> None:
    """A power cut while it was made leaves a folder of another name."""
    origin, path = clone.path.parent / "origin", tmp_path / "new"
    for half in (tmp_path / "new.part", training_clone_path(clone).with_name("clone-training.part")):
        (half / ".git" / "objects").mkdir(parents=True)
    made = ensure_clone(origin, path)
    assert made.git("branch", "--show-current").strip() == BRANCH
    clone.tag("data-00001")
    clone.push()
    assert prepare_training_clone(clone).head() == clone.head()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.heavy
def test_a_training_that_died_while_it_noted_a_stage_goes_on(clone: Clone) -> None:
    """The stage before is not run again: dvc's cache of runs has it."""
    command = "echo once >> ../count && echo done > out"
    stage = f"stages:\n  first:\n    cmd: {command}\n    deps: [params.yaml]\n    outs: [out]\n"
    (clone.path / "dvc.yaml").write_text(stage)
    (clone.path / "params.yaml").write_text("a: 1")
    clone.commit("a pipeline", "dvc.yaml", "params.yaml")
    clone.push()
    training = prepare_training_clone(clone)
    training.dvc("repro")
    (training.path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  first:\n    cmd: [")
    prepare_training_clone(clone).dvc("repro")
    assert (training.path / "out").read_text() == "done\n"
    assert (training.path.parent / "count").read_text() == "once\n"
