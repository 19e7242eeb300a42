"""Old logs open, val and test come from fair samples, and the gate set grows at a version step only."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset import Frame, GrowthParams, Labels, Log, append_turn, describe, gate_versions, read_gate_set
from dataset.append import open_to_append
from dataset.gate_set import step_gate_set
from dataset.splits import SplitParams, assign_groups_and_splits, assign_splits
from dataset.splits.groups import Origin
from dataset.summary import describe_shortfall
from dataset.turn_files import OLD_FRAMES_SCHEMA
from dataset.withdrawal import append_withdrawn
from trashnet.choice import FrameChoice
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

RANDOM, UNSURE, IMPORTED = (
    FrameChoice("exploration", "exploration"),
    FrameChoice("model", "score"),
    FrameChoice("import"),
)
HELD = FrameChoice("exploration", "held_out")


def frame(number: int, split: str, choice: FrameChoice, bin_id: str = "bin1") -> Frame:
    """A frame of a group of its own; nobody decodes it."""
    data = f"frame {number}".encode()
    sha = hashlib.sha256(data).hexdigest()
    return Frame(
        sha,
        data,
        8,
        8,
        split,  # type: ignore[arg-type]
        f"g{number}",
        0,
        f"{number}.jpg",
        bin_id=bin_id,
        upload_reason=choice.upload_reason,
        selected_by=choice.selected_by,
    )


def labels(prelabelled: bool | None = None) -> Labels:
    """One box."""
    return Labels(np.array([[1.0, 1, 2, 2]]), np.array([1]), np.array([False]), prelabelled=prelabelled)


def append(root: Path, taxonomy: Taxonomy, frames: Sequence[Frame], params: GrowthParams) -> str | None:
    """One turn, and the version of the gate set that it makes."""
    append_turn(root, "bins", frames, [(one.sha256, labels()) for one in frames], taxonomy)
    with open_to_append(root, taxonomy) as log:
        return step_gate_set(log, params)


def test_how_a_frame_was_chosen_and_labelled_comes_back(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Both facts of the frame and the one of its label, null where nobody knows."""
    frames = [frame(1, "test", RANDOM), frame(2, "train", FrameChoice())]
    pairs = [(frames[0].sha256, labels(False)), (frames[1].sha256, labels(None))]
    append_turn(tmp_path / "data", "bins", frames, pairs, taxonomy)
    log = Log(tmp_path / "data", taxonomy)
    assert [one.choice for one in log.frames()] == log.choices == [RANDOM, FrameChoice()]
    assert [one.labels.prelabelled for one in log.frames() if one.labels] == [False, None]


def test_a_log_from_before_the_columns_opens_and_says_unknown(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A test frame of then stays one, but is no part of the gate set; a new turn may follow."""
    root = tmp_path / "data"
    one = frame(1, "test", RANDOM)
    append_turn(root, "bins", [one], [(one.sha256, labels())], taxonomy)
    (path,) = (root / "frames").glob("*.arrow")
    table = pa.ipc.open_file(path.read_bytes()).read_all().select(OLD_FRAMES_SCHEMA.names)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, OLD_FRAMES_SCHEMA) as writer:
        writer.write_table(table.cast(OLD_FRAMES_SCHEMA))
    (path,) = (root / "labels").glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["prelabelled"]), path)
    assert append(root, taxonomy, [frame(2, "train", UNSURE)], GrowthParams()) is None
    log = Log(root, taxonomy)
    assert (log.frame(0).split, log.frame(0).choice.origin) == ("test", "unknown")
    assert log.frame(0).jpeg == one.jpeg
    with pytest.raises(UserError, match="no gate set yet"):
        read_gate_set(log)


def test_only_groups_with_a_fair_sample_become_val_or_test(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Of 100 groups 20 are fair: 15 + 15 of 100 are wanted: val and test have 10 each, train none.

    A group that an unsure upload shares with a random one may judge: it stays whole.
    """
    origins = [Origin(f"{number:064x}"[::-1], 0, "bin1", f"b{number}") for number in range(100)]
    origins += [Origin(f"{100:064x}"[::-1], 0, "bin1", "b0")]  # of the burst of the first, and not at random
    fair = [number % 5 == 0 for number in range(100)] + [False]
    with open_to_append(tmp_path / "data", taxonomy) as log:
        boxes = np.zeros((101, len(taxonomy.classes)), np.int64)
        groups, splits = assign_groups_and_splits(log, origins, boxes, SplitParams(), may_judge=fair)
    judged = {number for number in range(100) if splits[number] != "train"}
    assert judged == set(range(0, 100, 5))
    assert sorted(splits[number] for number in judged).count("test") == 10
    assert (groups[100], splits[100]) == (groups[0], splits[0])


def test_a_group_keeps_its_split_though_it_may_only_train_now() -> None:
    """What is test today stays test."""
    boxes = np.ones((2, 1), np.int64)
    chosen = assign_splits(["old", "new"], boxes, {"old": "test"}, train_only={"old", "new"})
    assert chosen == {"old": "test", "new": "train"}


def test_the_gate_set_grows_at_a_version_step_only(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """One frame makes the first version; two more are too few for the next, the third makes it."""
    root, params = tmp_path / "data", GrowthParams(gate_frames=3)
    first = [frame(1, "test", RANDOM), frame(2, "test", UNSURE), frame(3, "train", RANDOM)]
    assert append(root, taxonomy, first, params) == "gate-00001"
    assert append(root, taxonomy, [frame(4, "test", RANDOM), frame(5, "test", RANDOM)], params) is None
    assert [one.sha256 for one in read_gate_set(Log(root, taxonomy)).frames] == [first[0].sha256]
    assert append(root, taxonomy, [frame(6, "test", RANDOM)], params) == "gate-00003"
    log = Log(root, taxonomy)
    assert gate_versions(root) == ["gate-00001", "gate-00003"]
    old, new = read_gate_set(log, "gate-00001"), read_gate_set(log)
    assert (len(old.frames), len(new.frames)) == (1, 4)
    assert old.digest != new.digest
    assert "gate-00003: 4 frames to judge models on (4 exploration)" in describe(log)
    with pytest.raises(UserError, match="'gate-00002' is none of gate-00001, gate-00003"):
        read_gate_set(log, "gate-00002")


def test_a_withdrawn_frame_leaves_with_the_reason(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """So does one whose label was taken back; the version's file stays, and the digest tells them apart."""
    root, frames = tmp_path / "data", [frame(number, "test", RANDOM) for number in range(3)]
    append(root, taxonomy, frames, GrowthParams())
    before = read_gate_set(Log(root, taxonomy))
    append_withdrawn(root, {frames[0].sha256}, "a face", taxonomy)
    append_turn(root, "bins", [], [(frames[1].sha256, None)], taxonomy)
    after = read_gate_set(Log(root, taxonomy))
    assert after.left == {
        frames[0].sha256: "withdrawn: a face",
        frames[1].sha256: "its label was taken back",
    }
    assert [one.sha256 for one in after.frames] == [frames[2].sha256]
    assert len(after.origins) == 1
    assert after.digest != before.digest


@pytest.mark.parametrize("imports", [True, False])
def test_imported_frames_count_if_the_parameter_says_so(
    tmp_path: Path, taxonomy: Taxonomy, imports: bool
) -> None:
    """Each frame's origin stands beside it, so that a verdict can say of what its frames are."""
    frames = [frame(1, "test", RANDOM), frame(2, "test", IMPORTED), frame(3, "test", HELD, "bin2")]
    frames += [frame(4, "test", HELD, "bin3"), frame(5, "train", UNSURE, "bin3")]
    append(tmp_path / "data", taxonomy, frames, GrowthParams(gate_imports=imports))
    gate = read_gate_set(Log(tmp_path / "data", taxonomy))
    origins = {one.file_name: origin for one, origin in zip(gate.frames, gate.origins, strict=True)}
    # Training has seen bin3, so its frame is an ordinary exploration frame.
    expected = {"1.jpg": "exploration", "3.jpg": "held_out", "4.jpg": "exploration"}
    assert origins == expected | ({"2.jpg": "import"} if imports else {})


def test_a_turn_says_when_val_or_test_starves(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """One test frame of 20 is less than half of 15 %, which is 1.5; two val frames are not."""
    frames = [frame(number, "train", UNSURE) for number in range(17)]
    frames += [frame(20, "test", RANDOM), frame(21, "val", RANDOM), frame(22, "val", RANDOM)]
    append(tmp_path / "data", taxonomy, frames, GrowthParams())
    sentence = describe_shortfall(Log(tmp_path / "data", taxonomy), SplitParams())
    assert sentence is not None
    assert sentence.startswith("test has 1 of 20 labelled frames, and 15% are wanted: ")
    assert describe_shortfall(Log(tmp_path / "data", taxonomy), SplitParams(val=0.1, test=0.1)) is None
