import hashlib
import os
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import SPLITS, Frame, Frames, Labels, Log, append_turn, turns_of
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy, WasteClass


def frame(number: int, payload: bytes = b"", **more: Any) -> Frame:
    """A frame whose bytes are no image: the log does not look at them."""
    data = f"frame {number}".encode() + payload
    sha = hashlib.sha256(data).hexdigest()
    values = {
        "split": SPLITS[number % 3],
        "group": f"group {number}",
        "phash": number,
        "file_name": f"{number}.jpg",
    }
    return Frame(sha, data, 64, 48, **values | more)


def labels(*boxes: tuple[int, float, float, float, float], crowd: bool = False, **more: Any) -> Labels:
    """Boxes as (class id, x, y, w, h)."""
    return Labels(
        np.array([box[1:] for box in boxes], float).reshape(-1, 4),
        np.array([box[0] for box in boxes], np.int64),
        np.full(len(boxes), crowd),
        **more,
    )


NUMBERS = st.integers(0, 6)
BOXES = st.lists(
    st.tuples(st.integers(1, 57), *[st.floats(0, 30, width=32)] * 2, *[st.floats(0.5, 30, width=32)] * 2).map(
        tuple
    ),
    max_size=3,
)
# Labels of a frame, or None, which takes them back.
TURNS = st.lists(
    st.tuples(st.sets(NUMBERS), st.dictionaries(NUMBERS, st.none() | BOXES, max_size=4)), max_size=5
)


@settings(max_examples=40, deadline=None)
@given(turns=TURNS)
def test_the_fold_equals_a_dict(turns: list[Any], taxonomy: Taxonomy) -> None:
    """Whatever is appended in whatever order, the log says what a dict says that is updated turn by turn."""
    with TemporaryDirectory() as folder:
        root, split_of, boxes_of = Path(folder) / "data", {}, {}
        for new, labelled in turns:
            split_of |= {frame(n).sha256: frame(n).split for n in new}
            given_labels = {
                frame(n).sha256: None if boxes is None else labels(*boxes)
                for n, boxes in labelled.items()
                if frame(n).sha256 in split_of
            }
            append_turn(root, "t", [frame(n) for n in sorted(new)], given_labels.items(), taxonomy)
            boxes_of = {sha: new for sha, new in (boxes_of | given_labels).items() if new is not None}
            assert append_turn(root, "t", [frame(n) for n in new], given_labels.items(), taxonomy) is None
        if not turns:
            return
        log = Log(root, taxonomy)
        assert {f.sha256: f.split for f in log.frames(labelled=False)} == split_of
        folded = {f.sha256: f.labels for f in log.frames()}
        assert folded.keys() == boxes_of.keys()
        assert all(folded[sha] is not None and folded[sha].same_boxes(boxes_of[sha]) for sha in folded)
        counts = np.zeros(57, int)
        for one in boxes_of.values():
            np.add.at(counts, one.class_ids - 1, 1)
        assert log.box_counts().tolist() == counts.tolist()


def test_a_frame_comes_back_whole(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Every column of a frame and all its labels survive; its bytes are a view into the mapped file."""
    one = frame(1, bin_id="b7", burst="12", extra={"a": [1, None]}, phash=2**64 - 1)
    given = labels((3, 0.1, 0.2, 1 / 3, 7.5), annotator="ann", extra=({"area": 1.25, "id": 4},))
    append_turn(tmp_path / "data", "t", [one], [(one.sha256, given)], taxonomy)
    back = Log(tmp_path / "data", taxonomy).frame(0)
    assert isinstance(back.jpeg, memoryview)
    assert (bytes(back.jpeg), back.phash, back.bin_id, back.burst, back.extra) == (
        one.jpeg,
        2**64 - 1,
        "b7",
        "12",
        {"a": [1, None]},
    )
    assert back.labels is not None
    assert back.labels.boxes.tolist() == [[0.1, 0.2, 1 / 3, 7.5]]
    assert (back.labels.annotator, back.labels.extra) == ("ann", ({"area": 1.25, "id": 4},))


def test_box_counts_by_hand(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Of a corrected frame only the newest boxes count, crowds never do, and splits are counted apart."""
    root, train, val = tmp_path / "data", frame(0), frame(1)
    box = (1.0, 1.0, 5.0, 5.0)
    append_turn(
        root,
        "a",
        [train, val],
        [(train.sha256, labels((1, *box), (1, *box))), (val.sha256, labels((2, *box)))],
        taxonomy,
    )
    append_turn(root, "b", [], [(train.sha256, labels((5, *box), (1, *box)))], taxonomy)
    append_turn(root, "c", [frame(2)], [(frame(2).sha256, labels((7, *box), crowd=True))], taxonomy)
    log = Log(root, taxonomy)
    assert {i + 1: int(n) for i, n in enumerate(log.box_counts()) if n} == {1: 1, 2: 1, 5: 1}
    assert {i + 1: int(n) for i, n in enumerate(log.box_counts("train")) if n} == {1: 1, 5: 1}
    assert log.box_counts("test").sum() == 0


def test_frames_slice_add_and_travel(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Lists of frames behave like lists: slices, sums, negative indices and pickles give the same frames."""
    append_turn(tmp_path / "a", "t", [frame(n) for n in range(5)], [], taxonomy)
    append_turn(tmp_path / "b", "t", [frame(n) for n in range(5, 8)], [], taxonomy)
    both = Log(tmp_path / "a", taxonomy).frames(labelled=False) + Log(tmp_path / "b", taxonomy).frames(
        labelled=False
    )
    names = [f"{n}.jpg" for n in range(8)]
    assert [f.file_name for f in both] == names
    assert [f.file_name for f in both[1::3]] == names[1::3]
    assert both[-1].file_name == "7.jpg"
    assert [f.file_name for f in pickle.loads(pickle.dumps(both.take(np.array([6, 2]))))] == [
        "6.jpg",
        "2.jpg",
    ]
    assert len(Frames([])) == 0
    with pytest.raises(IndexError):
        both[8]


def test_opening_copies_no_image(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Opening, counting and listing leave the images in the file: Arrow allocates little."""
    payload = os.urandom(200_000)
    numbers = range(100)
    made = [frame(n, payload) for n in numbers]
    append_turn(tmp_path / "data", "t", made, [(f.sha256, labels((1, 1, 1, 5, 5))) for f in made], taxonomy)
    del made
    before = pa.total_allocated_bytes()
    log = Log(tmp_path / "data", taxonomy)
    log.box_counts()
    kept = [log.frames()[n].jpeg for n in numbers]  # all at once: views, not copies
    assert pa.total_allocated_bytes() - before < 0.05 * sum(len(jpeg) for jpeg in kept)


@pytest.mark.heavy
def test_a_kill_at_any_line_of_an_append_changes_nothing(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A process killed at any line of append_turn leaves the log unchanged or whole; the next one works."""
    before = tmp_path / "before" / "data"
    append_turn(before, "first", [frame(0)], [(frame(0).sha256, labels((1, 1, 1, 5, 5)))], taxonomy)
    after = ["0.jpg", "1.jpg", "2.jpg"]
    line, finished, outcomes = 0, False, set()
    while not finished:
        root = tmp_path / str(line) / "data"
        shutil.copytree(before, root)
        child = os.fork()
        if child == 0:
            _append_and_die(root, taxonomy, line)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        log = Log(root, taxonomy)
        names = [f.file_name for f in log.frames(labelled=False)]
        assert names in (["0.jpg"], after), f"killed at line {line}"
        outcomes.add(len(names))
        append_turn(root, "second", [frame(1), frame(2)], [(frame(2).sha256, labels())], taxonomy)
        assert [f.file_name for f in Log(root, taxonomy).frames(labelled=False)] == after
        assert {path.stem for path in (root / "frames").iterdir()} == set(turns_of(root))
        shutil.rmtree(root.parent)
        line += 1
    assert outcomes == {1, 3}
    assert line > 50


def _append_and_die(root: Path, taxonomy: Taxonomy, lines: int) -> None:
    seen: set[tuple[str, int]] = set()

    def count(stack: FrameType, event: str, _: Any) -> Any:
        if not stack.f_code.co_filename.endswith(("dataset/append.py", "trashnet/files.py")):
            return None
        if event == "line":
            seen.add((stack.f_code.co_filename, stack.f_lineno))
            if len(seen) > lines:
                os._exit(9)
        return count

    sys.settrace(count)
    append_turn(root, "second", [frame(1), frame(2)], [(frame(2).sha256, labels())], taxonomy)
    sys.settrace(None)
    os._exit(0)


def test_an_append_that_raises_leaves_no_trace(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """When the frames' source fails half-way, not even a temporary file stays."""
    root = tmp_path / "data"
    append_turn(root, "first", [frame(0)], [], taxonomy)
    before = sorted(str(path) for path in root.rglob("*"))

    def failing() -> Any:
        yield frame(1)
        raise RuntimeError("the disk it comes from is gone")

    with pytest.raises(RuntimeError):
        append_turn(root, "second", failing(), [], taxonomy)
    with pytest.raises(UserError, match="neither in"):
        append_turn(root, "second", [frame(1)], [(frame(2).sha256, labels())], taxonomy)
    assert sorted(str(path) for path in root.rglob("*")) == before


def test_concurrent_appends_wait_for_each_other(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Four processes that append at once make one sequence of turns, and no frame is lost."""
    root = tmp_path / "data"
    children = []
    for child in range(4):
        if (pid := os.fork()) == 0:
            for turn in range(3):
                append_turn(root, f"c{child}", [frame(10 * child + turn)], [], taxonomy)
            os._exit(0)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert [int(turn.split("-")[0]) for turn in turns_of(root)] == list(range(1, 13))
    assert sorted(f.file_name for f in Log(root, taxonomy).frames(labelled=False)) == sorted(
        f"{10 * c + t}.jpg" for c in range(4) for t in range(3)
    )


def test_a_changed_meaning_is_refused(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A log opens with a taxonomy that has grown, and not with one in which an id means another class."""
    root = tmp_path / "data"
    append_turn(root, "t", [frame(0)], [(frame(0).sha256, labels((2, 1, 1, 5, 5)))], taxonomy)
    grown = (*taxonomy.classes, WasteClass(id=58, name="Umbrella", supercategory="Other", stream="landfill"))
    Log(root, Taxonomy(streams=taxonomy.streams, classes=grown))
    renamed = [replace(c, name="Accumulator") if c.id == 2 else c for c in taxonomy.classes]
    with pytest.raises(UserError, match="id 2: was 'Battery', is 'Accumulator'"):
        Log(root, Taxonomy(streams=taxonomy.streams, classes=tuple(renamed)))
    with pytest.raises(UserError, match="id 2: was 'Battery', is 'gone'"):
        Log(root, Taxonomy(streams=taxonomy.streams, classes=taxonomy.classes[:1]))
    Log(
        root, Taxonomy(streams=taxonomy.streams, classes=taxonomy.classes[:-1])
    )  # no box is of the last class


def test_bad_labels_and_names_are_refused(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Unknown class ids, bad boxes, unknown splits and odd turn names never reach the log."""
    root, one = tmp_path / "data", frame(0)
    for boxes, match in (
        ((58, 1.0, 1.0, 5.0, 5.0), "no class with id"),
        ((1, 1.0, 1.0, 0.0, 5.0), "no area"),
        ((1, float("nan"), 1.0, 5.0, 5.0), "not a number"),
    ):
        with pytest.raises(UserError, match=match):
            append_turn(root, "t", [one], [(one.sha256, labels(boxes))], taxonomy)
    with pytest.raises(UserError, match="none of train, val, test"):
        append_turn(root, "t", [frame(0, split="training")], [], taxonomy)
    with pytest.raises(UserError, match="turn name"):
        append_turn(root, "../t", [one], [], taxonomy)
    assert turns_of(root) == []


def test_a_torn_group_is_refused(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A frame cannot enter in another split than its group's, neither in a later turn nor within one."""
    root = tmp_path / "data"
    append_turn(root, "t", [frame(0, split="train", group="g")], [], taxonomy)
    with pytest.raises(UserError, match="all frames of a group are in one split"):
        append_turn(root, "t", [frame(1, split="test", group="g")], [], taxonomy)
    with pytest.raises(UserError, match="all frames of a group are in one split"):
        append_turn(
            root, "t", [frame(1, split="test", group="h"), frame(2, split="val", group="h")], [], taxonomy
        )


def test_merged_branches(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A frame appended on two merged branches counts once; a group in two splits is an error."""
    for name, mine in (
        ("a", [frame(0), frame(1)]),
        ("b", [frame(1), frame(2)]),
        ("c", [frame(3, group="group 0", split="test")]),
    ):
        append_turn(tmp_path / name, name, mine, [(mine[0].sha256, labels((1, 1, 1, 5, 5)))], taxonomy)
    for path in [*(tmp_path / "b").rglob("*.arrow"), *(tmp_path / "b").rglob("*.parquet")]:
        shutil.copy(path, tmp_path / "a" / path.parent.name)
    log = Log(tmp_path / "a", taxonomy)
    assert [f.file_name for f in log.frames(labelled=False)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [f.file_name for f in log.frames()] == ["0.jpg", "1.jpg"]
    assert bytes(log.frame(2).jpeg) == frame(2).jpeg
    for path in [*(tmp_path / "c").rglob("*.arrow"), *(tmp_path / "c").rglob("*.parquet")]:
        shutil.copy(path, tmp_path / "a" / path.parent.name)
    with pytest.raises(UserError, match="more than one split"):
        Log(tmp_path / "a", taxonomy).frames("train")


def test_damage_is_named(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A missing or damaged file of a turn is named, with what restores it."""
    root = tmp_path / "data"
    with pytest.raises(UserError, match="no dataset log here"):
        Log(root, taxonomy)
    turn = append_turn(root, "t", [frame(0)], [(frame(0).sha256, labels())], taxonomy)
    path = root / "frames" / f"{turn}.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"(?s)frames of turn .*dvc checkout"):
        Log(root, taxonomy)
    path.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        Log(root, taxonomy)
    path.write_bytes(whole)
    (root / "labels" / f"{turn}.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="labels of turn"):
        Log(root, taxonomy)


def test_the_last_turn(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """After turn 99999 the log says that it is full: a sixth digit would sort before its predecessors."""
    root = tmp_path / "data"
    turn = append_turn(root, "t", [frame(0)], [], taxonomy)
    assert turn is not None
    for path in (root / "frames" / f"{turn}.arrow", root / "labels" / f"{turn}.parquet"):
        path.rename(path.with_name(path.name.replace("00001", "99999")))
    with pytest.raises(UserError, match="a log holds at most 99999 turns"):
        append_turn(root, "t", [frame(1)], [], taxonomy)
    assert len(Log(root, taxonomy)) == 1


def test_labels_that_are_taken_back_leave_the_frame_without_labels(
    tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """It stays in the log and can be labelled again; it is not a background frame, which has no boxes."""
    root = tmp_path / "data"
    one, two = frame(1), frame(2)
    append_turn(
        root, "a", [one, two], [(one.sha256, labels((5, 1, 2, 3, 4))), (two.sha256, labels())], taxonomy
    )
    assert append_turn(root, "b", [], [(one.sha256, None)], taxonomy) is not None
    assert append_turn(root, "b", [], [(one.sha256, None), (frame(9).sha256, None)], taxonomy) is None
    log = Log(root, taxonomy)
    assert [f.sha256 for f in log.frames()] == [two.sha256]
    assert len(log.frames(labelled=False)) == 2
    assert log.labels(log.row_of[one.sha256]) is None
    assert int(log.box_counts().sum()) == 0
    append_turn(root, "c", [], [(one.sha256, labels((5, 1, 2, 3, 4)))], taxonomy)
    assert int(Log(root, taxonomy).box_counts().sum()) == 1
