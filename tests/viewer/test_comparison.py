"""The stream of each item, and when the models agree on it."""

import numpy as np
import pytest

from dataset import Labels
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy
from viewer.comparison import compare_streams, find_items, item_rows, sort_photo

LEFT, RIGHT = (0, 0, 100, 100), (200, 0, 100, 100)
Found = tuple[tuple[float, float, float, float], str, float]


def detections(taxonomy: Taxonomy, *found: Found) -> Detections:
    """Detections from (box, class name, score)."""
    return Detections(
        np.array([f[0] for f in found], np.float32).reshape(-1, 4),
        np.array([taxonomy.id_of[f[1]] for f in found], np.int64),
        np.array([f[2] for f in found], np.float32),
    )


def test_two_classes_of_one_stream_agree(taxonomy: Taxonomy) -> None:
    """Drink can and food can are two classes of the stream recycling."""
    items = find_items(
        {
            "A": detections(taxonomy, (LEFT, "Drink can", 0.9)),
            "B": detections(taxonomy, (LEFT, "Food Can", 0.6)),
        },
        taxonomy,
    )
    assert len(items) == 1
    comparison = compare_streams(items, ["A", "B"])
    assert comparison.kind == "agree"
    assert comparison.sentence == "Both models send it to **recycling**."


def test_two_streams_disagree_and_the_sentence_names_each_models_stream(taxonomy: Taxonomy) -> None:
    """Two models predict recycling for the item, the third landfill."""
    can, cigarette = (
        detections(taxonomy, (LEFT, "Drink can", 0.9)),
        detections(taxonomy, (LEFT, "Cigarette", 0.6)),
    )
    comparison = compare_streams(find_items({"A": can, "B": cigarette, "C": can}, taxonomy), ["A", "B", "C"])
    assert comparison.kind == "disagree"
    assert comparison.sentence == "The models disagree. A and C: **recycling**; B: **landfill**."


def test_a_model_that_misses_the_item_disagrees(taxonomy: Taxonomy) -> None:
    """An item that a model does not detect would not be sorted, which differs from the other's stream."""
    comparison = compare_streams(
        find_items(
            {"A": detections(taxonomy, (LEFT, "Drink can", 0.9)), "B": detections(taxonomy)}, taxonomy
        ),
        ["A", "B"],
    )
    assert comparison.kind == "disagree"
    assert "B: not seen" in comparison.sentence


def test_boxes_that_overlap_by_half_are_one_item_and_others_are_not(taxonomy: Taxonomy) -> None:
    """Shifted by a third: 66.7 × 100 of 133.3 × 100, IoU 0.5. Shifted by half: 50 of 150, IoU 0.33."""
    for shift, count in ((33, 1), (50, 2)):
        a, b = (
            detections(taxonomy, (LEFT, "Shoe", 0.9)),
            detections(taxonomy, ((shift, 0, 100, 100), "Shoe", 0.8)),
        )
        assert len(find_items({"A": a, "B": b}, taxonomy)) == count


def test_models_that_are_surer_of_different_items_agree_all_the_same(taxonomy: Taxonomy) -> None:
    """Both models detect both items and predict the same streams; the order of the scores has no effect."""
    a = detections(taxonomy, (LEFT, "Drink can", 0.9), (RIGHT, "Pizza box", 0.5))
    b = detections(taxonomy, (RIGHT, "Pizza box", 0.8), (LEFT, "Drink can", 0.4))
    items = find_items({"A": a, "B": b}, taxonomy)
    assert (
        compare_streams(items, ["A", "B"]).sentence
        == "Both models send 2 items to **recycling** and **organics**, each to the same."
    )


def test_the_sentence_counts_the_items_that_the_models_agree_on(taxonomy: Taxonomy) -> None:
    """Only one model detects the second of two items."""
    a = detections(taxonomy, (LEFT, "Drink can", 0.9), (RIGHT, "Pizza box", 0.5))
    items = find_items({"A": a, "B": detections(taxonomy, (LEFT, "Drink can", 0.9))}, taxonomy)
    assert compare_streams(items, ["A", "B"]).kind == "partly"
    assert "agree on 1 of the 2 items" in compare_streams(items, ["A", "B"]).sentence


def test_a_models_prediction_is_its_best_detection_of_the_item(taxonomy: Taxonomy) -> None:
    """Two detections on one box are one item; the class with the higher score counts."""
    items = find_items(
        {"A": detections(taxonomy, (LEFT, "Cigarette", 0.7), (LEFT, "Drink can", 0.5))}, taxonomy
    )
    assert [item.predictions["A"].class_name for item in items] == ["Cigarette"]


def test_no_detections_give_a_sentence_that_says_so(taxonomy: Taxonomy) -> None:
    """The photo is empty, or no score reaches the confidence threshold."""
    comparison = compare_streams(
        find_items(
            {"A": detections(taxonomy), "B": detections(taxonomy), "C": detections(taxonomy)}, taxonomy
        ),
        ["A", "B", "C"],
    )
    assert comparison.kind == "nothing"
    assert comparison.sentence.startswith("All models find nothing")


def test_the_sentence_of_one_model_alone_mentions_no_agreement(taxonomy: Taxonomy) -> None:
    """If the other models are missing there is nothing to compare."""
    items = find_items({"SSD int8": detections(taxonomy, (LEFT, "Battery", 0.9))}, taxonomy)
    assert compare_streams(items, ["SSD int8"]).sentence == "SSD int8 sends it to **special**."


def test_the_table_of_items_holds_each_models_prediction(taxonomy: Taxonomy) -> None:
    """The table has one row per item, the highest score first."""
    a = detections(taxonomy, (LEFT, "Drink can", 0.9), (RIGHT, "Pizza box", 0.5))
    rows = item_rows(
        find_items({"A": a, "B": detections(taxonomy, (LEFT, "Drink can", 0.625))}, taxonomy), ["A", "B"]
    )
    assert rows == [
        {
            "Item": 1,
            "A": "recycling · Drink can 0.90",
            "B": "recycling · Drink can 0.62",
            "One stream": "yes",
        },
        {"Item": 2, "A": "organics · Pizza box 0.50", "B": "not seen", "One stream": "no"},
    ]


def test_the_items_of_a_photo_are_counted_as_in_the_scorecard(taxonomy: Taxonomy) -> None:
    """Of three items one goes to its stream (as another class), one to a wrong stream, and one is missed.

    There is one false detection.
    """
    boxes = np.array([LEFT, RIGHT, (400, 0, 50, 50)], float)
    ids = np.array([taxonomy.id_of[name] for name in ("Drink can", "Pizza box", "Shoe")])
    found = detections(
        taxonomy, (LEFT, "Food Can", 0.9), (RIGHT, "Cigarette", 0.8), ((0, 300, 50, 50), "Battery", 0.7)
    )
    counts = sort_photo(Labels(boxes, ids, np.zeros(3, bool)), found, taxonomy)
    assert (counts.right, counts.wrong, counts.missed, counts.false_detections) == (1, 1, 1, 1)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_detection_belongs_to_an_item(taxonomy: Taxonomy, count: int) -> None:
    """No detection is lost when items are formed."""
    found = detections(taxonomy, *[((150.0 * i, 0, 100, 100), "Shoe", 0.9 - i / 10) for i in range(count)])
    assert len(find_items({"A": found}, taxonomy)) == count
