"""Sorting accuracy, contamination, Wilson's interval and the causes of errors, against arithmetic done by
hand.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.error_causes import CAUSES, count_causes, find_causes
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.sorting_accuracy import (
    IGNORED,
    MISSED,
    UNMATCHED,
    Share,
    confusion_pairs,
    count_sorted_items,
    find_worst_confusions,
    match_items,
    wilson_interval,
)
from trashnet.boxes import iou

Box = tuple[float, float, float, float]
STREAMS = {1: "recycling", 2: "recycling", 3: "landfill", 4: "organics"}
HERE, THERE, AWAY = (0.0, 0.0, 10.0, 10.0), (100.0, 0.0, 10.0, 10.0), (200.0, 0.0, 10.0, 10.0)


def truth_of(*rows: tuple[int, int, Box], crowds: tuple[int, ...] = (), images: int = 2) -> GroundTruth:
    """Ground truth from ``(image, class id, box)``, images ascending."""
    return GroundTruth(
        tuple(f"frame{i}" for i in range(images)),
        np.array([r[0] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([i in crowds for i in range(len(rows))], np.bool_),
    )


def found_of(*rows: tuple[int, int, Box, float], images: int = 2) -> Predictions:
    """Predictions from ``(image, class id, box, score)``."""
    return Predictions.from_arrays(
        tuple(f"frame{i}" for i in range(images)),
        np.array([r[0] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[3] for r in rows], np.float64),
    )


@pytest.mark.parametrize(
    ("a", "b", "crowd", "expected"),
    [
        (
            (0, 0, 10, 10),
            (5, 0, 10, 10),
            False,
            50 / 150,
        ),  # intersection 5 x 10 = 50, union 100 + 100 - 50 = 150
        ((0, 0, 10, 10), (0, 0, 10, 20), False, 0.5),  # 100 / 200
        ((0, 0, 10, 10), (10, 0, 10, 10), False, 0.0),  # they only touch
        ((0, 0, 10, 10), (0, 0, 100, 100), True, 1.0),  # inside a crowd: over the detection's own 100
        ((0, 0, 10, 10), (5, 0, 100, 100), True, 0.5),  # half in it
        ((0, 0, 0, 0), (0, 0, 0, 0), False, 0.0),  # nothing over nothing is nothing
    ],
)
def test_overlap(a: Box, b: Box, crowd: bool, expected: float) -> None:
    """Intersection over union, and over the detection alone for a crowd."""
    assert iou(np.array([a], float), np.array([b], float), np.array([crowd])).item() == pytest.approx(
        expected
    )


def test_where_items_go() -> None:
    """Five items: one right as itself, one right as another class of its stream, one wrong, two missed.

    One false detection.
    """
    truth = truth_of((0, 1, HERE), (0, 1, THERE), (0, 3, AWAY), (1, 4, HERE), (1, 4, THERE))
    found = found_of(
        (0, 1, HERE, 0.9),  # right
        (0, 2, THERE, 0.8),  # another class, the same stream: right
        (0, 1, AWAY, 0.7),  # landfill goes to recycling: wrong
        (
            1,
            3,
            (0.0, 0.0, 10.0, 30.0),
            0.9,
        ),  # IoU 100 / 300: meets nothing, so the item is missed and this is a false detection
    )
    sorting = count_sorted_items(truth, found, match_items(truth, found), STREAMS)
    assert (sorting.items, sorting.right, sorting.wrong, sorting.missed, sorting.false_detections) == (
        5,
        2,
        1,
        2,
        1,
    )
    assert sorting.accuracy == Share(2, 5)
    assert sorting.accuracy_of_found == Share(2, 3)
    recycling, landfill, organics = (sorting.streams[s] for s in ("recycling", "landfill", "organics"))
    # recycling received three items, of which the landfill one does not belong: contamination 1/3
    assert (
        recycling.items,
        recycling.right,
        recycling.received,
        recycling.foreign,
        recycling.false_detections,
    ) == (2, 2, 3, 1, 0)
    # landfill received nothing; the false detection would have gone there and contaminates nothing
    assert (landfill.items, landfill.right, landfill.missed, landfill.received, landfill.foreign) == (
        1,
        0,
        0,
        0,
        0,
    )
    assert landfill.false_detections == 1
    assert (organics.items, organics.missed, organics.received) == (2, 2, 0)


def test_one_detection_per_item_and_the_best_one_chooses() -> None:
    """The higher score takes the item it overlaps most, even from a lower one that fits better.

    What is left over is false.
    """
    truth = truth_of((0, 1, HERE), (0, 3, (4.0, 0.0, 10.0, 10.0)))
    found = found_of(
        (0, 3, (1.0, 0.0, 10.0, 10.0), 0.9), (0, 1, HERE, 0.8), (0, 3, (4.0, 0.0, 10.0, 10.0), 0.7)
    )
    # 0.9 overlaps HERE by 90/110 and the second by 70/130 = 0.54: it takes HERE. 0.8 then has only the
    # second, at 60/140 = 0.43 < 0.5: false. 0.7 takes the second.
    matches = match_items(truth, found)
    assert matches.item_indices.tolist() == [0, UNMATCHED, 1]
    assert matches.detection_indices.tolist() == [0, 2]


def test_crowds_are_no_items_and_excuse_what_lies_in_them() -> None:
    """A detection at least half inside a crowd is left out of every count.

    One that meets an item in it still counts as a match.
    """
    truth = truth_of((0, 1, (0.0, 0.0, 50.0, 50.0)), (0, 3, HERE), crowds=(0,))
    found = found_of(
        (0, 3, HERE, 0.9), (0, 3, (30.0, 30.0, 10.0, 10.0), 0.8), (0, 3, (45.0, 0.0, 20.0, 10.0), 0.7)
    )
    matches = match_items(truth, found)
    assert matches.detection_indices.tolist() == [IGNORED, 0]
    assert matches.item_indices.tolist() == [
        1,
        IGNORED,
        UNMATCHED,
    ]  # the third has 5 of its 20 columns in the crowd: 0.25
    sorting = count_sorted_items(truth, found, matches, STREAMS)
    assert (sorting.items, sorting.right, sorting.false_detections) == (1, 1, 1)


boxes = st.tuples(st.integers(0, 12), st.integers(0, 3), st.integers(4, 12), st.integers(4, 12)).map(
    lambda b: tuple(map(float, b))
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), boxes), max_size=8).map(
        lambda rows: sorted(rows, key=lambda r: r[0])
    ),
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 4), boxes, st.sampled_from([0.1, 0.3, 0.5, 0.9])),
        max_size=12,
    ),
    st.sampled_from([0.0, 0.2, 0.3, 0.6, 1.0]),
    st.booleans(),
)
def test_a_threshold_after_matching_is_one_before_it(
    truth_rows: list, found_rows: list, score: float, crowd: bool
) -> None:  # type: ignore[type-arg]
    """Leaving out low scores before matching or after it gives the same, and every item and detection is
    counted once.
    """
    truth, found = truth_of(*truth_rows, crowds=(0,) if crowd else ()), found_of(*found_rows)
    after, before = match_items(truth, found).above(found, score), match_items(truth, found.above(score))
    assert after.detection_indices.tolist() == before.detection_indices.tolist()
    assert after.item_indices.tolist() == before.item_indices.tolist()
    sorting = count_sorted_items(truth, found.above(score), before, STREAMS)
    assert sorting.right + sorting.wrong + sorting.missed == sorting.items == (~truth.crowd).sum()
    assert sum(s.received for s in sorting.streams.values()) == sorting.right + sorting.wrong
    assert sum(s.foreign for s in sorting.streams.values()) == sorting.wrong
    assert sum(s.items for s in sorting.streams.values()) == sorting.items
    met = before.item_indices[before.item_indices >= 0]
    assert len(set(met.tolist())) == len(met) == sorting.right + sorting.wrong
    assert (before.detection_indices == MISSED).sum() == sorting.missed


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (
            8,
            10,
            0.4902,
            0.9433,
        ),  # Wilson's interval of 8 of 10, as statsmodels and R's prop.test(correct=UNMATCHED) give it
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson(hits: int, of: int, low: float, high: float) -> None:
    """The 95% interval of a share, known values."""
    assert wilson_interval(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_nothing_is_nothing() -> None:
    """No items means no accuracy, which is not an accuracy of 0."""
    assert Share(0, 0).value is None


def test_every_cause_once() -> None:
    """One detection for each of TIDE's causes, and the items that nothing comes near are missed."""
    truth = truth_of((0, 1, HERE), (0, 1, THERE), (0, 3, AWAY), (1, 4, HERE), (1, 4, THERE), (1, 2, AWAY))
    found = found_of(
        (0, 1, HERE, 0.9),  # hit
        (0, 1, HERE, 0.8),  # duplicate: the item is taken
        (0, 1, (100.0, 0.0, 10.0, 30.0), 0.7),  # localisation: 100 / 300 with its own class
        (0, 2, AWAY, 0.6),  # classification: IoU 1 with an item of class 3
        (1, 3, (0.0, 0.0, 10.0, 30.0), 0.9),  # both: 1/3 with an item of class 4
        (1, 3, (150.0, 0.0, 10.0, 10.0), 0.8),  # background
    )
    causes = find_causes(truth, found)
    assert causes.detection_causes == [
        "hit",
        "duplicate",
        "localisation",
        "classification",
        "both",
        "background",
    ]
    # THERE (localisation) and AWAY (classification) of image 0 are accounted for; image 1's three are missed,
    # also where "both" came near
    assert causes.missed.tolist() == [False, False, False, True, True, True]
    counts = count_causes(truth, found, causes)
    assert counts[1] == {"hit": 1, "duplicate": 1, "localisation": 1}
    assert counts[3] == {"classification": 1, "background": 1}, (
        "laid to the class of the item; where there is none, to the class claimed"
    )
    assert counts[4] == {"both": 1, "missed": 2}
    assert counts[2] == {"missed": 1}
    assert sum(sum(c[cause] for c in counts.values()) for cause in CAUSES) == 8


def test_confusions_are_ordered_and_show_frames() -> None:
    """The most frequent mistake first, its frames by confidence.

    Misses, false detections and right answers are not confusions.
    """
    truth = truth_of((0, 1, HERE), (0, 1, THERE), (0, 4, AWAY), (1, 1, HERE), (1, 2, AWAY))
    found = found_of(
        (0, 3, HERE, 0.6),
        (0, 1, THERE, 0.9),
        (0, 1, AWAY, 0.9),
        (1, 3, HERE, 0.8),
        (1, 3, (300.0, 0.0, 5.0, 5.0), 0.9),
    )
    worst = find_worst_confusions(confusion_pairs(truth, found, match_items(truth, found)), limit=5)
    assert [(c.actual, c.predicted, c.count, c.frames) for c in worst] == [
        (1, 3, 2, ("frame1", "frame0")),
        (4, 1, 1, ("frame0",)),
    ]
