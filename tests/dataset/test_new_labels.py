"""What a training learnt from that an earlier one had not: which boxes, which turns, how they were chosen."""

from pathlib import Path

import numpy as np
import pytest

from dataset import Labels, Log, append_turn
from dataset.new_labels import chosen_in_words, new_labels
from dataset.withdrawal import append_withdrawn
from tests.dataset.test_gate_set import RANDOM, UNSURE, frame
from trashnet.choice import FrameChoice
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


def labels(*class_ids: int) -> Labels:
    """A box of each of these classes."""
    boxes = np.array([[1.0 + i, 1, 2, 2] for i in range(len(class_ids))]).reshape(-1, 4)
    return Labels(boxes, np.array(class_ids, np.int64), np.zeros(len(class_ids), bool))


@pytest.fixture
def root(tmp_path: Path, taxonomy: Taxonomy) -> Path:
    """Three turns: two frames; then two more, one of them a test frame, and a correction; then one."""
    root = tmp_path / "data"
    one, two = frame(1, "train", UNSURE, "a"), frame(2, "train", RANDOM, "b")
    append_turn(root, "first", [one, two], [(one.sha256, labels(1)), (two.sha256, labels(2))], taxonomy)
    three, four = frame(3, "train", UNSURE, "a"), frame(4, "test", RANDOM, "a")
    second = [(three.sha256, labels(1, 1, 2)), (four.sha256, labels(1)), (one.sha256, labels(1, 2))]
    append_turn(root, "second", [three, four], second, taxonomy)
    five = frame(5, "train", RANDOM, "c")
    append_turn(root, "third", [five], [(five.sha256, labels(1))], taxonomy)
    return root


def test_only_the_train_split_of_later_turns_is_new(root: Path, taxonomy: Taxonomy) -> None:
    """The second turn brings three boxes on a new frame and two by a correction; the test frame teaches
    nobody.
    """
    turns = Log(root, taxonomy).turns
    found = new_labels(Log(root, taxonomy, turns[:2]), turns[:1])
    assert sorted(found.class_index.tolist()) == [0, 0, 0, 1, 1]
    (share,) = found.shares(np.ones(5, bool))
    assert (share.turn, share.boxes, share.frames, share.corrected) == (turns[1], 5, 2, 1)
    assert share.chosen == {"uploaded by its bin, chosen for its score": 2}
    assert share.bins == {"a": 2}
    assert found.of_bin("a").all()
    assert not found.of_bin("b").any()


def test_turns_are_ordered_by_what_they_brought(root: Path, taxonomy: Taxonomy) -> None:
    """Of class 1 the second turn brought three boxes on two frames, the third turn one."""
    log = Log(root, taxonomy)
    found = new_labels(log, log.turns[:1])
    of_class = found.class_index == 0
    assert [(share.turn, share.boxes) for share in found.shares(of_class)] == [
        (log.turns[1], 3),
        (log.turns[2], 1),
    ]
    best = found.frames(of_class, 2)
    assert [log.column("sha256")[row] for row in best] == [
        frame(3, "train", UNSURE).sha256,
        frame(1, "train", UNSURE).sha256,
    ]


def test_without_an_earlier_training_every_label_is_new(root: Path, taxonomy: Taxonomy) -> None:
    """Seven boxes of four frames; nothing is corrected, because nothing was learnt before."""
    found = new_labels(Log(root, taxonomy), ())
    shares = found.shares(np.ones(len(found.row), bool))
    assert sum(share.boxes for share in shares) == 7
    assert sum(share.corrected for share in shares) == 0


def test_a_log_opens_as_an_earlier_training_saw_it(root: Path, taxonomy: Taxonomy) -> None:
    """With the first turn alone it has two frames and their first labels; what is withdrawn stays so."""
    turns, first = Log(root, taxonomy).turns, frame(1, "train", UNSURE).sha256
    before = Log(root, taxonomy, turns[:1])
    assert (len(before), before.turns) == (2, turns[:1])
    assert len(before.labels(before.row_of[first]) or ()) == 1
    append_withdrawn(root, [first], "a face", taxonomy)
    assert first not in Log(root, taxonomy, turns[:1]).row_of


def test_a_turn_that_the_log_lacks_is_named(root: Path, taxonomy: Taxonomy) -> None:
    """Nothing is credited on half of the data."""
    with pytest.raises(UserError, match="00009-bins-abc"):
        Log(root, taxonomy, ["00009-bins-abc"])


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (RANDOM, "drawn at random"),
        (FrameChoice("exploration", "held_out"), "drawn at random, of a held-out bin"),
        (FrameChoice("import"), "imported"),
        (FrameChoice("exploration", "score"), "uploaded at random, chosen for its score"),
        (FrameChoice("model", "exploration"), "uploaded by its bin, drawn at random"),
        (FrameChoice(None, "score"), "unknown"),
    ],
)
def test_how_a_frame_was_chosen_is_said_in_words(choice: FrameChoice, words: str) -> None:
    """Each of the two choices is named."""
    assert chosen_in_words(choice) == words
