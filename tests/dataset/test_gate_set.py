"""The frames that models are compared on: a name, and steps in which they grow."""

from pathlib import Path

import pytest

from dataset import GateSet, Log, append_turn, newest_gate_set
from tests.dataset.test_log import frame, labels
from trashnet.taxonomy import Taxonomy

STEP = 3


def add(root: Path, taxonomy: Taxonomy, name: str, tests: range, others: range = range(0)) -> GateSet:
    """Append a turn with these test frames, and others to train on; the gate set then."""
    frames = [frame(n, split="test", group=f"group {n}") for n in tests]
    frames += [frame(n, split="train", group=f"group {n}") for n in others]
    drawn = [(one.sha256, labels((1, 1, 1, 5, 5))) for one in frames]
    append_turn(root, name, frames, drawn, taxonomy)
    return newest_gate_set(Log(root, taxonomy), STEP)


def names(gate_set: GateSet) -> list[str]:
    """Of its frames' files."""
    return [gate_set.frames[i].file_name for i in range(len(gate_set.frames))]


def test_it_grows_by_steps_and_is_named_after_the_turn_that_completes_one(
    tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """Two test frames more are no step of three; with the third all of them are taken in."""
    root = tmp_path / "data"
    assert add(root, taxonomy, "sample", range(0), range(100, 102)).name == "gate-00000"
    first = add(root, taxonomy, "sample", range(1))
    assert (first.name, names(first), first.origins) == ("gate-00002", ["0.jpg"], {"import": 1})
    same = add(root, taxonomy, "bins", range(1, 3), range(103, 104))
    assert (same.name, names(same)) == ("gate-00002", ["0.jpg"])
    grown = add(root, taxonomy, "bins", range(3, 4))
    assert grown.name == "gate-00004"
    assert names(grown) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert grown.origins == {"import": 1, "bins": 3}


def test_a_test_frame_whose_label_was_taken_back_is_in_none(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Nothing can be said about a frame without labels."""
    root = tmp_path / "data"
    add(root, taxonomy, "bins", range(2))
    append_turn(root, "bins", [], [(frame(0).sha256, None)], taxonomy)
    assert names(newest_gate_set(Log(root, taxonomy), STEP)) == ["1.jpg"]


@pytest.mark.parametrize("step", [1, 3, 50])
def test_appending_frames_to_train_on_changes_nothing(tmp_path: Path, taxonomy: Taxonomy, step: int) -> None:
    """Name and frames stay whatever else the dataset takes in."""
    root = tmp_path / "data"
    add(root, taxonomy, "bins", range(5))
    before = newest_gate_set(Log(root, taxonomy), step)
    add(root, taxonomy, "bins", range(0), range(100, 110))
    after = newest_gate_set(Log(root, taxonomy), step)
    assert (after.name, names(after), after.origins) == (before.name, names(before), before.origins)
