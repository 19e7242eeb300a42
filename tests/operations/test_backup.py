"""Backup and restore of the embedded stack."""

import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from operations.backup import MANIFEST, back_up, restore
from operations.stack.run_state import StackPaths, ensure_environment, ensure_ports, exclusive_lock
from tests.ingest.uploads import jpeg, scene, upload
from tests.operations.test_up import MINUTES, clone, is_ok, trashnet
from trashnet.clone import ensure_clone
from trashnet.errors import UserError
from trashnet.settings import load_settings
from trashnet.store import open_store

__all__ = ["clone"]


@pytest.fixture
def stack(tmp_path: Path) -> StackPaths:
    """The folder of a stack that does not run: credentials, a database, an object and a clone."""
    repository = tmp_path / "repository"
    (repository / "data").mkdir(parents=True)
    (repository / "data.dvc").write_text("outs: []\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "1")):
        subprocess.run(["git", *command], cwd=repository, check=True)
    paths = StackPaths(repository / ".trashnet")
    paths.create()
    ensure_environment(paths, ensure_ports(paths))
    with closing(sqlite3.connect(paths.folder / "ledger.sqlite")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE pairs (a INTEGER, b INTEGER)")
        database.execute("INSERT INTO pairs VALUES (1, 1)")
        database.commit()
    (paths.folder / "s3/trashnet/frames").mkdir(parents=True)
    (paths.folder / "s3/trashnet/frames/1.jpg").write_bytes(b"jpeg")
    ensure_clone(repository, paths.folder / "clone")
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    """The files that a stack cannot make anew, by their paths."""
    names = ["stack.env", "stack.json", "s3/trashnet/frames/1.jpg", "clone/data.dvc"]
    return {name: (folder / name).read_bytes() for name in names}


def pairs(folder: Path) -> list[tuple[int, int]]:
    """The rows of the database."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as database:
        return database.execute("SELECT a, b FROM pairs").fetchall()


def test_what_was_backed_up_is_restored(stack: StackPaths, tmp_path: Path) -> None:
    """Files, rows, history and access rights; the clone knows its origin again."""
    before = contents(stack.folder)
    back_up(stack, tmp_path / "backup")
    shutil.rmtree(stack.folder)
    assert restore(stack, tmp_path / "backup") is None
    assert contents(stack.folder) == before
    assert pairs(stack.folder) == [(1, 1)]
    origin = ["git", "-C", str(stack.folder / "clone"), "remote", "get-url", "origin"]
    assert subprocess.check_output(origin, text=True).strip() == str(stack.folder.parent)
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    assert (stack.folder / "stack.env").stat().st_mode & 0o077 == 0
    assert stack.folder.stat().st_mode & 0o077 == 0


def test_a_database_in_use_is_copied_in_one_state(stack: StackPaths, tmp_path: Path) -> None:
    """Each transaction adds a row whose halves are equal: no copy holds half of one."""
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(stack.folder / "ledger.sqlite", timeout=30)) as database:
            number = 1
            while not stop.is_set():
                number += 1
                database.execute("INSERT INTO pairs VALUES (?, NULL)", (number,))
                database.execute("UPDATE pairs SET b = a WHERE b IS NULL")
                database.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(stack, tmp_path / f"backup-{number}")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        rows = pairs(tmp_path / f"backup-{number}")
        assert rows == [(n, n) for n in range(1, len(rows) + 1)]


def test_a_damaged_backup_is_refused_and_the_stack_stays(stack: StackPaths, tmp_path: Path) -> None:
    """One changed byte, a missing file, a missing manifest, a path that leads outside."""
    backup, before = tmp_path / "backup", contents(stack.folder)
    back_up(stack, backup)
    (backup / "s3/trashnet/frames/1.jpg").write_bytes(b"jpeh")
    with pytest.raises(UserError, match=r"1\.jpg: missing or damaged"):
        restore(stack, backup, replace=True)
    (backup / "s3/trashnet/frames/1.jpg").unlink()
    with pytest.raises(UserError, match=r"1\.jpg: missing or damaged"):
        restore(stack, backup, replace=True)
    text = (backup / MANIFEST).read_text()
    (backup / MANIFEST).write_text(text.replace("stack.json", "../stack.json"))
    with pytest.raises(UserError, match="outside"):
        restore(stack, backup, replace=True)
    (backup / MANIFEST).unlink()
    with pytest.raises(UserError, match="no complete backup"):
        restore(stack, backup, replace=True)
    assert contents(stack.folder) == before


def test_a_stack_that_is_there_is_kept(stack: StackPaths, tmp_path: Path) -> None:
    """It is refused without `replace`, moved aside with it, and never touched while it runs."""
    back_up(stack, tmp_path / "backup")
    (stack.folder / "note").write_text("newer")
    with pytest.raises(UserError, match="--replace"):
        restore(stack, tmp_path / "backup")
    with exclusive_lock(stack), pytest.raises(UserError, match="already running"):
        restore(stack, tmp_path / "backup", replace=True)
    aside = restore(stack, tmp_path / "backup", replace=True)
    assert aside is not None
    assert (aside / "note").read_text() == "newer"
    assert not (stack.folder / "note").exists()


def test_a_backup_replaces_none(stack: StackPaths, tmp_path: Path) -> None:
    """A folder that exists is never written to, and a folder without a stack has nothing to back up."""
    (tmp_path / "backup").mkdir()
    with pytest.raises(UserError, match="exists already"):
        back_up(stack, tmp_path / "backup")
    with pytest.raises(UserError, match="no embedded stack here"):
        back_up(StackPaths(tmp_path / "nothing"), tmp_path / "other")


def wait_for_tasks(clone: Path, count: int) -> dict[str, Any]:
    """Wait until so many tasks are open in Label Studio; what `trashnet status` reports then."""
    deadline = time.monotonic() + 5 * MINUTES
    while time.monotonic() < deadline:
        seen = is_ok(clone, MINUTES)
        if seen["facts"]["tasks"].get("open") == count:
            return seen
        time.sleep(1)
    raise AssertionError(seen["facts"])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_destroyed_stack_comes_back(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was backed up while it ran. Tasks and dataset are those of before, and the wheel turns on."""
    monkeypatch.chdir(clone)
    assert trashnet("up", "--detach", cwd=clone, seconds=15 * MINUTES).returncode == 0
    store = open_store(load_settings())
    for number in range(3):
        upload(store, jpeg(scene(number)))
    before = wait_for_tasks(clone, 3)
    backed_up = trashnet("backup", str(tmp_path / "backup"), cwd=clone, seconds=5 * MINUTES)
    assert backed_up.returncode == 0, backed_up.stderr
    trashnet("down", cwd=clone, seconds=5 * MINUTES)
    shutil.rmtree(clone / ".trashnet")
    restored = trashnet("restore", str(tmp_path / "backup"), cwd=clone, seconds=5 * MINUTES)
    assert restored.returncode == 0, restored.stderr
    assert trashnet("up", "--detach", cwd=clone, seconds=15 * MINUTES).returncode == 0
    after = wait_for_tasks(clone, 3)
    assert after["facts"]["dataset"] == before["facts"]["dataset"]
    upload(open_store(load_settings()), jpeg(scene(3)))
    wait_for_tasks(clone, 4)
