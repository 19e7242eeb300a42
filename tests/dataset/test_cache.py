"""DVC's cache under retention, on real git, DVC and S3: what is removed, and what no run of it touches."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dvc.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import append_turn, clean_cache
from dataset.cache import CachedFile, address, choose_removable, in_order, link_files
from dataset.versions import commit_version
from tests.dataset.test_log import frame, labels
from tests.servers import S3Server
from trashnet.clone import Clone, prepare_training_clone
from trashnet.errors import UserError
from trashnet.ledger import Ledger, Removal, open_ledger
from trashnet.retention import RetentionParams
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

PARAMS = RetentionParams(cache_days=30)
LONG_AGO = time.time() - 100 * 86400
STAGE = """
stages:
  train:
    cmd: mkdir -p build/models && cp number build/models/model && echo {number} > build/models/report
    deps: [data, number]
    outs: [build/models]
"""


@dataclass
class Machine:
    """A machine's two clones, the deployment's store, which is their DVC remote, and its ledger."""

    clone: Clone
    store: ObjectStore
    ledger: Ledger
    taxonomy: Taxonomy

    @property
    def cache(self) -> Path:
        """Where DVC keeps files."""
        return self.clone.path / ".dvc" / "cache" / "files" / "md5"

    def clean(self, *, dry_run: bool = False) -> list[Removal]:
        """What is tested."""
        now = datetime.now(UTC)
        return clean_cache(self.clone, self.store, self.ledger, PARAMS, now, dry_run=dry_run)

    def append(self, number: int) -> str:
        """A turn of two frames in the clone's log; its name."""
        new = [frame(2 * number + one, b"x" * 500) for one in (0, 1)]
        boxes = [(one.sha256, labels((5, 1, 2, 3, 4))) for one in new]
        turn = append_turn(self.clone.path / "data", "bins", new, boxes, self.taxonomy)
        assert turn is not None
        return turn

    def grow(self, number: int) -> str:
        """A dataset version of two frames more; its name."""
        with self.clone.exclusive_lock():
            return commit_version(self.clone, self.append(number), "grown")

    def train(self, number: int, *, publish: bool) -> Clone:
        """One training in the training clone, with outputs like no other's."""
        training = prepare_training_clone(self.clone)
        (training.path / "dvc.yaml").write_text(STAGE.format(number=number))
        (training.path / "number").write_text(f"model {number}")
        training.dvc("repro")
        if publish:
            training.dvc("push")
            training.commit("Models trained", "dvc.lock", "dvc.yaml", "number")
            training.tag(f"models-{number}")
            training.git("push", "--quiet", "origin", f"refs/tags/models-{number}")
        return training

    def files(self) -> set[str]:
        """The cache's files by their MD5."""
        return {path.parent.name + path.name for path in self.cache.glob("*/*")}

    def age(self) -> None:
        """Nothing in the cache is younger than three months."""
        for path in self.cache.glob("*/*"):
            os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def machine(
    begun: Path, tmp_path: Path, s3_server: S3Server, fresh_bucket: str, taxonomy: Taxonomy
) -> Iterator[Machine]:
    """A clone without turns, whose DVC remote is a new bucket."""
    shutil.copytree(begun, tmp_path / "here")
    clone = Clone(tmp_path / "here" / "clone")
    store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    store.ensure_bucket()
    with Config(dvc_dir=str(clone.path / ".dvc")).edit("local") as config:
        config["core"] = {"remote": "flywheel"}
        config["remote"] = {
            "flywheel": {
                "url": f"s3://{fresh_bucket}/dvc",
                "endpointurl": s3_server.url,
                "access_key_id": s3_server.access_key,
                "secret_access_key": s3_server.secret_key,
            }
        }
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield Machine(clone, store, ledger, taxonomy)
    ledger.close()


@pytest.mark.heavy
def test_only_what_no_version_needs_is_removed_and_every_version_is_still_there(machine: Machine) -> None:
    """Of two versions, a turn that died, two published trainings and one that died.

    The turn and the dead training go, and the older training, which is in the store: from there it comes
    back. A dry run says the same and changes nothing; young files stay; a second run finds nothing.
    """
    versions = [machine.grow(1)]
    before = machine.files()
    machine.train(1, publish=True)
    first_training = machine.files() - before
    versions.append(machine.grow(2))
    before = machine.files()
    machine.train(2, publish=False)
    dead_training = machine.files() - before
    training = machine.train(3, publish=True)
    before = machine.files()
    machine.append(3)
    machine.clone.dvc("add", "data")
    dead_turn = machine.files() - before
    machine.clone.git("reset", "--hard", "--quiet", "HEAD")
    machine.clone.dvc("checkout", "--force", "data.dvc")
    assert [len(part) for part in (first_training, dead_training, dead_turn)] == [3, 3, 3]
    all_files, remote = machine.files(), {one.key for one in machine.store.list("")}

    assert machine.clean() == []  # nothing is old
    machine.age()
    planned = machine.clean(dry_run=True)
    assert [(one.what, one.count) for one in planned] == [
        ("dvc-cache/unused", 6),
        ("dvc-cache/older-trainings", 3),
    ]
    assert machine.files() == all_files
    assert machine.ledger.removals() == []
    assert machine.clean() == planned
    assert machine.files() == all_files - first_training - dead_training - dead_turn
    assert machine.ledger.removals() == sorted(planned, key=lambda one: one.what)
    assert machine.clean() == []
    assert {one.key for one in machine.store.list("")} == remote

    for version in versions:  # without the remote
        machine.clone.git("checkout", "--quiet", version)
        machine.clone.dvc("checkout", "--force", "data.dvc")
    assert training.dvc("status", "--json").strip() == "{}"
    training.git("checkout", "--quiet", "models-1")
    training.dvc("pull")
    assert (training.path / "build/models/model").read_text() == "model 1"
    assert first_training <= machine.files()


@pytest.mark.heavy
def test_what_is_not_safe_elsewhere_is_not_removed(machine: Machine) -> None:
    """An older training that the store lacks a file of stays; so does all if the origin cannot be asked."""
    machine.grow(1)
    machine.train(1, publish=True)
    lost = f"dvc/{address(_digest('model 1'))}"
    machine.train(2, publish=True)
    machine.age()
    kept = machine.files()
    origin = machine.clone.path.parent / "origin"
    origin.rename(origin.with_name("away"))
    with pytest.raises(UserError, match="fetch"):
        machine.clean()
    assert machine.files() == kept
    origin.with_name("away").rename(origin)
    machine.store.remove(lost)
    assert [(one.what, one.count) for one in machine.clean()] == [("dvc-cache/older-trainings", 1)]
    assert kept - machine.files() == {_digest("1\n")}  # the report: it is stored, and its folder's list stays


def _digest(data: str | bytes) -> str:
    data = data.encode() if isinstance(data, str) else data
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.heavy
def test_a_clone_s_files_are_the_cache_s_own(machine: Machine) -> None:
    """One inode for cache and both working trees; appending and rewriting leave the cache's bytes alone."""
    machine.grow(1)
    training = machine.train(1, publish=False)
    for clone in (machine.clone, training):
        assert _inodes(clone).isdisjoint(_cache_inodes(machine))
    link_files(machine.clone, PARAMS)
    for clone in (machine.clone, training):
        assert _inodes(clone) <= _cache_inodes(machine)
    machine.grow(2)
    assert _inodes(machine.clone) <= _cache_inodes(machine)
    training = prepare_training_clone(machine.clone)
    assert _inodes(training) == _inodes(machine.clone)
    for path in machine.cache.glob("*/*"):
        if not path.name.endswith(".dir"):
            assert path.parent.name + path.name == _digest(path.read_bytes())
    link_files(machine.clone, RetentionParams(cache_type=("copy",)))
    assert _inodes(machine.clone).isdisjoint(_cache_inodes(machine))


def _inodes(clone: Clone) -> set[int]:
    """Of the log's files; DVC copies an empty one."""
    files = [path for path in (clone.path / "data").rglob("*") if path.is_file()]
    return {path.stat().st_ino for path in files if path.stat().st_size}


def _cache_inodes(machine: Machine) -> set[int]:
    return {path.stat().st_ino for path in machine.cache.glob("*/*")}


NAMES = [f"{number:032x}" for number in range(6)]
FOLDERS = [f"{number:032x}.dir" for number in range(6, 9)]
names = st.sampled_from([*NAMES, *FOLDERS])


@settings(max_examples=500, deadline=None)
@given(
    present=st.dictionaries(names, st.sampled_from([1.0, 3.0])),
    kept=st.sets(names, max_size=3),
    trained=st.sets(names, max_size=5),
    listed=st.fixed_dictionaries({name: st.sets(st.sampled_from(NAMES), max_size=3) for name in FOLDERS}),
    sizes=st.dictionaries(names, st.sampled_from([10, 11])),
    dies_after=st.integers(0, 9),
)
def test_a_needed_file_is_never_chosen_and_a_death_changes_nothing(
    present: dict[str, float],
    kept: set[str],
    trained: set[str],
    listed: dict[str, set[str]],
    sizes: dict[str, int],
    dies_after: int,
) -> None:
    """Over random caches, versions, trainings and stores: what a version needs stays, what is young too.

    What a training made goes only if the store has the same bytes. Where a run died, the next one ends it.
    """
    files = {md5: CachedFile(md5, Path(md5), 10, written_at) for md5, written_at in present.items()}
    stored_elsewhere = {md5 for md5, size in sizes.items() if size == 10}

    def choose(there: dict[str, CachedFile]) -> list[CachedFile]:
        known = {md5: found for md5, found in listed.items() if md5 in there or md5 in kept}
        return in_order(*choose_removable(there, kept, trained, known, sizes.get, 2.0))

    removed = choose(files)
    needed = kept | {md5 for folder in kept for md5 in listed.get(folder, ())}
    made = trained | {md5 for folder in trained if folder in files for md5 in listed.get(folder, ())}
    for file in removed:
        assert file.md5 not in needed
        assert file.written_at <= 2
        assert file.md5 not in made or file.md5 in stored_elsewhere
    left = {md5: file for md5, file in files.items() if file not in removed}
    assert choose(left) == []
    after_death = {md5: file for md5, file in files.items() if file not in removed[:dies_after]}
    assert {md5 for md5 in after_death if after_death[md5] not in choose(after_death)} == left.keys()
