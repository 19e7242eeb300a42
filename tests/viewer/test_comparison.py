"""Where items would go, and when models agree on it."""

import numpy as np
import pytest

from dataset import Labels
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy
from viewer.comparison import compare_streams, find_items, item_rows, sort_photo

LEFT, RIGHT = (0, 0, 100, 100), (200, 0, 100, 100)
Found = tuple[tuple[float, float, float, float], str, float]


def seen(taxonomy: Taxonomy, *found: Found) -> Detections:
    """Detections from (box, class name, score)."""
    return Detections(
        np.array([f[0] for f in found], np.float32).reshape(-1, 4),
        np.array([taxonomy.id_of[f[1]] for f in found], np.int64),
        np.array([f[2] for f in found], np.float32),
    )


def test_two_classes_of_one_stream_agree(taxonomy: Taxonomy) -> None:
    """A drink can taken for a food can lands in the same chamber."""
    items = find_items(
        {"A": seen(taxonomy, (LEFT, "Drink can", 0.9)), "B": seen(taxonomy, (LEFT, "Food Can", 0.6))},
        taxonomy,
    )
    assert len(items) == 1
    together = compare_streams(items, ["A", "B"])
    assert together.kind == "agree"
    assert together.sentence == "Both models send it to **recycling**."


def test_two_streams_disagree_and_the_sentence_says_who_said_what(taxonomy: Taxonomy) -> None:
    """One item, two opinions."""
    can, cigarette = seen(taxonomy, (LEFT, "Drink can", 0.9)), seen(taxonomy, (LEFT, "Cigarette", 0.6))
    together = compare_streams(find_items({"A": can, "B": cigarette, "C": can}, taxonomy), ["A", "B", "C"])
    assert together.kind == "disagree"
    assert together.sentence == "The models disagree. A and C: **recycling**; B: **landfill**."


def test_a_model_that_misses_the_item_disagrees(taxonomy: Taxonomy) -> None:
    """Seeing nothing leaves the item unsorted, which is not what the other says."""
    together = compare_streams(
        find_items({"A": seen(taxonomy, (LEFT, "Drink can", 0.9)), "B": seen(taxonomy)}, taxonomy), ["A", "B"]
    )
    assert together.kind == "disagree"
    assert "B: not seen" in together.sentence


def test_boxes_that_overlap_by_half_are_one_item_and_others_are_not(taxonomy: Taxonomy) -> None:
    """Shifted by a third: 66.7 × 100 of 133.3 × 100, IoU 0.5. Shifted by half: 50 of 150, IoU 0.33."""
    for shift, count in ((33, 1), (50, 2)):
        a, b = seen(taxonomy, (LEFT, "Shoe", 0.9)), seen(taxonomy, ((shift, 0, 100, 100), "Shoe", 0.8))
        assert len(find_items({"A": a, "B": b}, taxonomy)) == count


def test_models_that_are_surer_of_different_items_agree_all_the_same(taxonomy: Taxonomy) -> None:
    """Two items, both seen by both and sent alike; which score is higher plays no part."""
    a = seen(taxonomy, (LEFT, "Drink can", 0.9), (RIGHT, "Pizza box", 0.5))
    b = seen(taxonomy, (RIGHT, "Pizza box", 0.8), (LEFT, "Drink can", 0.4))
    items = find_items({"A": a, "B": b}, taxonomy)
    assert (
        compare_streams(items, ["A", "B"]).sentence
        == "Both models send 2 items to **recycling** and **organics**, each to the same."
    )


def test_agreeing_on_some_items_is_said_with_their_number(taxonomy: Taxonomy) -> None:
    """Of two items one is seen by one model alone."""
    a = seen(taxonomy, (LEFT, "Drink can", 0.9), (RIGHT, "Pizza box", 0.5))
    items = find_items({"A": a, "B": seen(taxonomy, (LEFT, "Drink can", 0.9))}, taxonomy)
    assert compare_streams(items, ["A", "B"]).kind == "partly"
    assert "agree on 1 of the 2 items" in compare_streams(items, ["A", "B"]).sentence


def test_a_models_answer_is_its_best_detection_of_the_item(taxonomy: Taxonomy) -> None:
    """Two classes on one box are one item, and the higher score speaks."""
    items = find_items({"A": seen(taxonomy, (LEFT, "Cigarette", 0.7), (LEFT, "Drink can", 0.5))}, taxonomy)
    assert [item.predictions["A"].class_name for item in items] == ["Cigarette"]


def test_nothing_found_is_said(taxonomy: Taxonomy) -> None:
    """An empty photo, or a confidence that nothing reaches."""
    together = compare_streams(
        find_items({"A": seen(taxonomy), "B": seen(taxonomy), "C": seen(taxonomy)}, taxonomy), ["A", "B", "C"]
    )
    assert together.kind == "nothing"
    assert together.sentence.startswith("All models find nothing")


def test_a_model_alone_speaks_for_itself(taxonomy: Taxonomy) -> None:
    """Where the others are missing there is nothing to agree on."""
    items = find_items({"SSD int8": seen(taxonomy, (LEFT, "Battery", 0.9))}, taxonomy)
    assert compare_streams(items, ["SSD int8"]).sentence == "SSD int8 sends it to **special**."


def test_the_table_of_items_says_who_saw_what(taxonomy: Taxonomy) -> None:
    """One row per item, the surest first."""
    a = seen(taxonomy, (LEFT, "Drink can", 0.9), (RIGHT, "Pizza box", 0.5))
    rows = item_rows(
        find_items({"A": a, "B": seen(taxonomy, (LEFT, "Drink can", 0.625))}, taxonomy), ["A", "B"]
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


def test_a_photo_is_judged_as_the_scorecard_judges(taxonomy: Taxonomy) -> None:
    """Three items: one to its stream (as another class of it), one to a wrong stream, one missed.

    And one false detection.
    """
    boxes = np.array([LEFT, RIGHT, (400, 0, 50, 50)], float)
    ids = np.array([taxonomy.id_of[name] for name in ("Drink can", "Pizza box", "Shoe")])
    found = seen(
        taxonomy, (LEFT, "Food Can", 0.9), (RIGHT, "Cigarette", 0.8), ((0, 300, 50, 50), "Battery", 0.7)
    )
    judged = sort_photo(Labels(boxes, ids, np.zeros(3, bool)), found, taxonomy)
    assert (judged.right, judged.wrong, judged.missed, judged.false_detections) == (1, 1, 1, 1)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_detection_belongs_to_an_item(taxonomy: Taxonomy, count: int) -> None:
    """Nothing found is lost on the way to the verdict."""
    found = seen(taxonomy, *[((150.0 * i, 0, 100, 100), "Shoe", 0.9 - i / 10) for i in range(count)])
    assert len(find_items({"A": found}, taxonomy)) == count
