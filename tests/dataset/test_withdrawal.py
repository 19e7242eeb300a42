"""Withdrawn frames: out of the dataset at once, out of its files by a compaction, and never back."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.support.fault_injection import Killed
from dataset import Frame, Labels, Log, append_turn, describe
from dataset import withdrawal as withdrawal_module
from dataset.turn_files import turns_of, withdrawn_path
from dataset.versions import commit_version
from dataset.withdrawal import append_withdrawn, compact, needs_compaction, withdraw_from_dataset
from tests.clones import run
from trashnet.clone import BRANCH, Clone
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


def sha_of(number: int) -> str:
    """The name of a frame's bytes."""
    return hashlib.sha256(jpeg_of(number)).hexdigest()


def jpeg_of(number: int) -> bytes:
    """Bytes that no other frame has; the log does not decode them."""
    return b"picture %d " % number * 200


def append(root: Path, numbers: range, taxonomy: Taxonomy, name: str = "bins") -> str | None:
    """A turn of frames with one box each; groups are pairs of frames, every third group is a test group."""
    frames = [
        Frame(
            sha_of(n), jpeg_of(n), 96, 96, "test" if n // 2 % 3 == 2 else "train", f"g{n // 2}", 0, f"{n}.jpg"
        )
        for n in numbers
    ]
    box = Labels(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([5]), np.array([False]))
    return append_turn(root, name, frames, [(frame.sha256, box) for frame in frames], taxonomy)


def test_a_withdrawn_frame_is_no_part_of_the_dataset_any_more(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Of 8 frames in two turns two are withdrawn: 6 are left, with their labels, splits and bytes."""
    root = tmp_path / "data"
    first, second = append(root, range(5), taxonomy), append(root, range(5, 8), taxonomy)
    before = {f.sha256: (f.split, f.group, bytes(f.jpeg)) for f in Log(root, taxonomy).frames()}
    gone = [sha_of(1), sha_of(6)]
    turn = append_withdrawn(root, [*gone, "0" * 64], "a face", taxonomy)
    log = Log(root, taxonomy)
    assert turn is not None
    assert turn.startswith("00003-withdrawn-")
    assert log.turns == [first, second, turn]
    assert (len(log), len(log.frames()), log.box_counts().sum()) == (6, 6, 6)
    kept = {f.sha256: (f.split, f.group, bytes(f.jpeg)) for f in log.frames()}
    assert kept == {sha: found for sha, found in before.items() if sha not in gone}
    assert log.turns_of_rows() == [first] * 4 + [second] * 2
    (one, other) = withdrawal_module.tombstones_of(root, log.turns, gone)
    assert {one.turn, other.turn} == {first, second}
    assert {one.split, other.split} == {"train"}
    assert f"{turn}: 2 frames withdrawn: a face" in describe(log)
    assert append_withdrawn(root, gone, "a face", taxonomy) is None


def test_a_withdrawn_frame_does_not_come_back(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Appending it again, by an import or by growing, changes nothing; others of the same turn come in."""
    root = tmp_path / "data"
    append(root, range(3), taxonomy)
    append_withdrawn(root, [sha_of(0)], "a face", taxonomy)
    assert append(root, range(3), taxonomy, "again") is None
    assert append(root, range(4), taxonomy, "again") is not None
    assert sorted(Log(root, taxonomy).column("sha256")) == sorted(sha_of(n) for n in (1, 2, 3))


def test_a_lost_file_of_withdrawn_frames_brings_none_back(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The turn's name says that there is one, so the log does not open without it."""
    root = tmp_path / "data"
    append(root, range(3), taxonomy)
    turn = append_withdrawn(root, [sha_of(0)], "a face", taxonomy)
    withdrawn_path(root, str(turn)).unlink()
    with pytest.raises(UserError, match=r"withdrawn/.* missing or damaged"):
        Log(root, taxonomy)


def test_no_ordinary_turn_takes_the_name_of_such_a_turn(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """`trashnet import --name withdrawn` is refused."""
    with pytest.raises(UserError, match="choose another one"):
        append(tmp_path / "data", range(1), taxonomy, "withdrawn")


@pytest.mark.parametrize("dies_at", ["file", "turn"])
def test_a_death_while_withdrawing_leaves_the_log_as_it_was(
    tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Before or after the file of withdrawn frames: nothing is withdrawn, and the next call does it."""
    root = tmp_path / "data"
    append(root, range(3), taxonomy)

    def die(*_: Any) -> None:
        raise Killed

    name = {"file": "sync_folder", "turn": "complete_turn"}[dies_at]
    with monkeypatch.context() as patch:
        patch.setattr(withdrawal_module, name, die)
        with pytest.raises(Killed):
            append_withdrawn(root, [sha_of(0)], "a face", taxonomy)
    assert len(Log(root, taxonomy)) == 3
    assert append_withdrawn(root, [sha_of(0)], "a face", taxonomy) is not None
    assert len(Log(root, taxonomy)) == 2
    assert len(list((root / "withdrawn").iterdir())) == 1


def test_whether_a_compaction_is_needed_is_read_from_the_turns_names() -> None:
    """Since the last one, were frames withdrawn?"""
    assert not needs_compaction([])
    assert not needs_compaction(["00001-bins-a"])
    assert needs_compaction(["00001-bins-a", "00002-withdrawn-b", "00003-bins-c"])
    assert not needs_compaction(["00001-bins-a", "00002-withdrawn-b", "00003-compacted-c", "00004-bins-d"])
    assert needs_compaction(["00002-withdrawn-b", "00003-compacted-c", "00004-withdrawn-d"])


def grown(begun: Path, root: Path, taxonomy: Taxonomy) -> Clone:
    """A clone whose dataset has two turns of four frames, pushed."""
    shutil.copytree(begun, root)
    clone = Clone(root / "clone")
    for numbers in (range(4), range(4, 8)):
        turn = append(clone.path / "data", numbers, taxonomy)
        commit_version(clone, str(turn), "frames")
    return clone


def pulled(clone: Clone, where: Path, taxonomy: Taxonomy, ref: str = BRANCH) -> Log:
    """The dataset as a stranger gets it from the origin and the DVC remote."""
    run(clone.path.parent, "git", "clone", "--quiet", "--branch", ref, clone.path.parent / "origin", where)
    run(where, "dvc", "pull", "--quiet")
    return Log(where / "data", taxonomy)


@pytest.mark.heavy
def test_a_compaction_leaves_no_byte_of_a_withdrawn_frame(
    begun: Path, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """Only the file that held it is rewritten, its older one is named, and the older version stays."""
    clone = grown(begun, tmp_path / "here", taxonomy)
    assert compact(clone, taxonomy) is None
    (found,) = withdraw_from_dataset(clone, taxonomy, [sha_of(2), "0" * 64], "a face")
    assert withdraw_from_dataset(clone, taxonomy, [sha_of(2)], "a face") == [found]
    first, second, withdrawn = turns_of(clone.path / "data")
    assert (found.turn, found.withdrawn_by) == (first, withdrawn)
    made = compact(clone, taxonomy)
    assert made is not None
    assert (made.version, made.frames, list(made.old_files)) == ("data-00004", 1, [first])
    assert compact(clone, taxonomy) is None
    here = clone.path.parent
    log = pulled(clone, here / "stranger", taxonomy, "data-00004")
    assert len(log) == 7
    bytes_of = {path.stem: path.read_bytes() for path in (log.root / "frames").glob("*.arrow")}
    assert not any(jpeg_of(2) in data for data in bytes_of.values())
    assert bytes_of[second] == (clone.path / "data/frames" / f"{second}.arrow").read_bytes()
    md5 = made.old_files[first]
    for folder in (clone.path / ".dvc/cache", here / "remote"):
        assert jpeg_of(2) in (folder / "files/md5" / md5[:2] / md5[2:]).read_bytes()
    assert len(pulled(clone, here / "older", taxonomy, "data-00002")) == 8
    assert len(pulled(clone, here / "withdrawn", taxonomy, "data-00003")) == 7


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["withdraw", "compact"])
def test_a_death_at_any_step_ends_in_the_same_dataset(
    begun: Path, tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Killed before each effect and called again: the same frames, tags and files at the origin."""

    def call(clone: Clone) -> None:
        if verb == "withdraw":
            withdraw_from_dataset(clone, taxonomy, [sha_of(2)], "a face")
        else:
            compact(clone, taxonomy)

    def made(name: str) -> Clone:
        shutil.copytree(tmp_path / "begun", tmp_path / name)
        return Clone(tmp_path / name / "clone")

    def contents(clone: Clone) -> Any:
        log = Log(clone.path / "data", taxonomy)
        origin = clone.path.parent / "origin"
        turns = [turn.rpartition("-")[0] for turn in log.turns]  # a digest may hold the time
        sizes = [(log.root / "frames" / f"{turn}.arrow").stat().st_size for turn in log.turns]
        committed = run(origin, "git", "log", "--format=%s", BRANCH)
        status = clone.dvc("status", "data.dvc")
        return sorted(log.column("sha256")), turns, sizes, run(origin, "git", "tag"), committed, status

    def dying(at: int | None, steps: list[str]) -> Any:
        real = Clone.run

        def watched(self: Clone, *words: str, **options: Any) -> str:
            if not any(
                asking in " ".join(words) for asking in ("--list", "rev-", "diff", " remote", "status")
            ):
                steps.append(" ".join(words[-3:]))
                if len(steps) - 1 == at:
                    raise Killed
            return real(self, *words, **options)

        return watched

    begin = grown(begun, tmp_path / "begun", taxonomy)
    if verb == "compact":
        withdraw_from_dataset(begin, taxonomy, [sha_of(2)], "a face")
    steps: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Clone, "run", dying(None, steps))
        call(undisturbed := made("undisturbed"))
    wanted = contents(undisturbed)
    assert len(steps) >= 8
    for number, step in enumerate(steps):
        clone = made(f"killed{number}")
        with monkeypatch.context() as patch:
            patch.setattr(Clone, "run", dying(number, []))
            with pytest.raises(Killed):
                call(clone)
        call(clone)
        assert contents(clone) == wanted, f"killed before: {step}"
