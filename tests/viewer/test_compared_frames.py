"""What a challenger loses and wins, frame by frame, against arithmetic done by hand.

Three frames: one with a can and a cigarette, one with a can, one empty. The champion finds both cans and a
thing that is not there on the empty frame; the challenger takes the first can for a cigarette, finds the
cigarette, and misses the second can.
"""

from pathlib import Path

import numpy as np
import pytest

from dataset import Frame, Labels, Log, append_turn
from evaluation import Predictions
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy
from viewer.compared_frames import ComparedFrames, GateFrameLabels, ModelOnFrames, most_lost

CAN, CIGARETTE = "Drink can", "Cigarette"
LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 10.0, 10.0)
Thing = tuple[tuple[float, float, float, float], str, float]


@pytest.fixture
def labels(tmp_path: Path, taxonomy: Taxonomy) -> GateFrameLabels:
    """The three frames; nobody decodes them."""
    things = [[(LEFT, CAN), (RIGHT, CIGARETTE)], [(LEFT, CAN)], []]
    frames, pairs = [], []
    for number, on_frame in enumerate(things):
        sha = f"{number}" * 64
        frames.append(Frame(sha, b"x", 32, 32, "test", f"g{number}", number, f"{number}.jpg", bin_id="bin"))
        boxes = np.array([box for box, _ in on_frame]).reshape(-1, 4)
        class_ids = np.array([taxonomy.id_of[name] for _, name in on_frame], np.int64)
        pairs.append((sha, Labels(boxes, class_ids, np.zeros(len(class_ids), bool))))
    append_turn(tmp_path / "data", "bins", frames, pairs, taxonomy)
    return GateFrameLabels.collect(Log(tmp_path / "data", taxonomy).frames("test"), taxonomy)


def model(labels: GateFrameLabels, taxonomy: Taxonomy, *found: list[Thing]) -> ModelOnFrames:
    """A model that detects these things, frame by frame, and acts from a score of 0.5 on."""
    detections = [
        Detections(
            np.array([thing[0] for thing in things], np.float32).reshape(-1, 4),
            np.array([taxonomy.id_of[thing[1]] for thing in things], np.int64),
            np.array([thing[2] for thing in things], np.float32),
        )
        for things in found
    ]
    predictions = Predictions.from_detections(labels.truth.images, detections)
    return ModelOnFrames.match(labels, predictions, 0.5, taxonomy)


@pytest.fixture
def compared(labels: GateFrameLabels, taxonomy: Taxonomy) -> ComparedFrames:
    """Champion and challenger as told above; detections below 0.5 do not count."""
    assert taxonomy.default_stream == "landfill"
    champion = model(
        labels, taxonomy, [(LEFT, CAN, 0.9), (RIGHT, CAN, 0.6)], [(LEFT, CAN, 0.8)], [(LEFT, CAN, 0.7)]
    )
    challenger = model(
        labels, taxonomy, [(LEFT, CIGARETTE, 0.9), (RIGHT, CIGARETTE, 0.6)], [(LEFT, CAN, 0.4)], []
    )
    return ComparedFrames(labels, champion, challenger)


def test_items_are_lost_and_won_one_by_one(compared: ComparedFrames) -> None:
    """Both cans are lost, the second one because 0.4 does not count; the cigarette is won."""
    assert compared.lost().tolist() == [True, False, True]
    assert compared.won().tolist() == [False, True, False]
    assert compared.rival is not None
    assert compared.rival.false.tolist() == [0, 0, 1]
    assert compared.challenger.false.tolist() == [0, 0, 0]


def test_frames_that_differ_most_come_first(compared: ComparedFrames) -> None:
    """Two changes on the first frame, one on the second, on the third only a false detection."""
    assert compared.order("most difference first").tolist() == [0, 1, 2]
    assert compared.order("most won first").tolist() == [0, 2, 1]  # fewer false detections are a gain too
    assert compared.order("most lost first").tolist() == [0, 1, 2]
    assert compared.order("as stored").tolist() == [0, 1, 2]


def test_only_frames_of_the_chosen_items_are_left_and_only_these_items_count(
    compared: ComparedFrames,
) -> None:
    """Cigarettes are on the first frame alone; cans on two, and of them one is lost on each."""
    slices = {(part.kind, part.name): part for part in compared.labels.slices(1)}
    cans, cigarettes = slices["class", CAN], slices["class", CIGARETTE]
    assert compared.order("most won first", cigarettes).tolist() == [0]
    assert compared.order("most lost first", cans).tolist() == [0, 1]
    assert most_lost(compared, cans, 1) == [0]
    assert most_lost(compared, cigarettes, 4) == []


def test_an_item_of_a_class_is_lost_where_it_is_not_recognised(
    labels: GateFrameLabels, taxonomy: Taxonomy
) -> None:
    """A missed cigarette arrives in landfill by default: lost for its class, not lost for its stream."""
    seen = model(labels, taxonomy, [(LEFT, CAN, 0.9), (RIGHT, CIGARETTE, 0.9)], [], [])
    missed = model(labels, taxonomy, [(LEFT, CAN, 0.9)], [], [])
    compared = ComparedFrames(labels, seen, missed)
    slices = {(part.kind, part.name): part for part in labels.slices(1)}
    assert not compared.lost().any()
    assert not compared.lost(slices["stream", "landfill"]).any()
    assert compared.lost(slices["class", CIGARETTE]).tolist() == [False, True, False]
    assert most_lost(compared, slices["class", CIGARETTE], 4) == [0]


def test_the_table_says_where_each_model_sends_each_item(
    compared: ComparedFrames, taxonomy: Taxonomy
) -> None:
    """A missed item goes to the default stream."""
    rows = compared.item_rows(1, taxonomy)
    assert rows == [
        {
            "Item": CAN,
            "Belongs to": "recycling",
            "Champion": "recycling · Drink can 0.80",
            "Challenger": "landfill · not seen",
            "Change": "lost",
        }
    ]
    assert [row["Change"] for row in compared.item_rows(0, taxonomy)] == ["lost", "won"]
    assert compared.item_rows(2, taxonomy) == []


def test_a_first_model_is_shown_by_what_it_does_not_sort_right(
    compared: ComparedFrames, taxonomy: Taxonomy
) -> None:
    """Without a champion nothing is won, and the items that go wrong come first."""
    alone = ComparedFrames(compared.labels, None, compared.challenger)
    assert alone.lost().tolist() == [True, False, True]
    assert not alone.won().any()
    assert [row["Change"] for row in alone.item_rows(0, taxonomy)] == ["not right", "right"]
    assert "Champion" not in alone.item_rows(0, taxonomy)[0]


def test_the_detections_of_a_frame_are_those_that_count(compared: ComparedFrames) -> None:
    """The challenger's can of 0.4 is not drawn."""
    assert len(compared.challenger.detections(1)) == 0
    assert compared.challenger.detections(0).scores == pytest.approx([0.9, 0.6])


def test_a_gate_set_without_an_item_has_an_order_too(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """An empty frame, and no frame at all."""
    frame = Frame("e" * 64, b"x", 32, 32, "test", "g", 0, "e.jpg")
    empty = Labels(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, bool))
    append_turn(tmp_path / "data", "bins", [frame], [(frame.sha256, empty)], taxonomy)
    frames = Log(tmp_path / "data", taxonomy).frames("test")
    for part, order in ((frames, [0]), (frames[:0], [])):
        labels = GateFrameLabels.collect(part, taxonomy)
        one = model(labels, taxonomy, *([[]] * len(part)))
        assert ComparedFrames(labels, one, one).order("most difference first").tolist() == order
        assert labels.slices(1) == []
