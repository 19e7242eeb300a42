"""Sorting utility and the score threshold that it chooses, against arithmetic done by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.params import EvaluationParams
from evaluation.sorting_accuracy import match_items
from evaluation.utility import choose_sort_score, frame_utilities, frames_right, utilities_by_score
from tests.evaluation.test_sorting_accuracy import AWAY, HERE, THERE, found_of, truth_of
from trashnet.taxonomy import Taxonomy, WasteClass

# as in the tests of sorting accuracy: 1 and 2 are recycling, 3 is landfill, 4 is organics
TAXONOMY = Taxonomy(
    (
        WasteClass(1, "can", "metal", "recycling"),
        WasteClass(2, "bottle", "glass", "recycling"),
        WasteClass(3, "film", "plastic", "landfill"),
        WasteClass(4, "peel", "food", "organics"),
    ),
    {"recycling": "#0000ff", "landfill": "#777777", "organics": "#00ff00"},
    default_stream="landfill",
)
PARAMS = EvaluationParams(wrong_cost=1.0, false_cost=0.5)


def utilities(
    truth: GroundTruth, found: Predictions, params: EvaluationParams = PARAMS, taxonomy: Taxonomy = TAXONOMY
) -> list[float]:
    """Per frame, everything found being acted on."""
    return frame_utilities(truth, found, match_items(truth, found), taxonomy, params).tolist()


def test_what_each_outcome_earns() -> None:
    """Right, right within the stream, wrong, missed into the default stream, missed elsewhere, false."""
    truth = truth_of((0, 1, HERE), (0, 1, THERE), (0, 3, AWAY), (1, 3, HERE), (1, 4, THERE))
    found = found_of((0, 1, HERE, 0.9), (0, 2, THERE, 0.8), (0, 4, AWAY, 0.7), (1, 1, AWAY, 0.6))
    # frame 0: a can as can +1, a can as bottle (same stream) +1, a film as peel -1            -> 1
    # frame 1: a film missed goes to landfill +1, so does a peel -1, a false detection -0.5  -> -0.5
    assert utilities(truth, found) == [1.0, -0.5]
    # twice the price for a wrong item: frame 0: 1 + 1 - 2; frame 1: 1 - 2 - 0.5
    assert utilities(truth, found, EvaluationParams(wrong_cost=2, false_cost=0.5)) == [0.0, -1.5]


def test_without_a_default_stream_a_missed_item_is_wrong() -> None:
    """A taxonomy from before version 0.4 says nothing of missed items: none of them counts as right."""
    old = Taxonomy(TAXONOMY.classes, TAXONOMY.streams)
    assert utilities(truth_of((0, 3, HERE), (1, 4, HERE)), found_of(), taxonomy=old) == [-1.0, -1.0]


def test_crowds_and_what_lies_in_them_cost_nothing() -> None:
    """A crowd region is no item, and a detection in it is not false."""
    truth = truth_of((0, 1, HERE), crowds=(0,))
    assert utilities(truth, found_of((0, 1, HERE, 0.9))) == [0.0, 0.0]


def test_a_frame_is_right_when_everything_in_it_is() -> None:
    """One wrong item or one false detection spoils it; an empty frame in which nothing is seen is right."""
    truth = truth_of((0, 1, HERE), (0, 3, AWAY), (1, 1, HERE), (1, 4, THERE), (2, 1, HERE), images=4)
    found = found_of((0, 2, HERE, 0.9), (1, 1, HERE, 0.9), (2, 1, HERE, 0.9), (2, 1, AWAY, 0.4), images=4)
    # 0: can right, film missed into landfill; 1: the peel is missed; 2: a false detection; 3: empty
    right = frames_right(truth, found, match_items(truth, found), TAXONOMY)
    assert right.tolist() == [True, False, False, True]


def test_the_threshold_by_hand() -> None:
    """Lowering the threshold first gains an item, then costs two false detections, then gains too little."""
    truth = truth_of((0, 1, HERE), (0, 4, THERE), (1, 1, HERE))
    found = found_of(
        (0, 1, HERE, 0.9), (0, 1, AWAY, 0.6), (1, 2, HERE, 0.6), (1, 1, AWAY, 0.5), (0, 3, THERE, 0.2)
    )
    # nothing acted on: three items in landfill that do not belong there: -3
    # from 0.9: a can right: -1; from 0.6: one more right (+2) and a false detection (-0.5): 0.5
    # from 0.5: a false detection: 0; from 0.2: the peel goes to landfill, as it did when missed: 0
    matches = match_items(truth, found)
    scores, sums = utilities_by_score(truth, found, matches, TAXONOMY, PARAMS)
    assert scores.tolist() == [1.0, 0.9, 0.6, 0.5, 0.2]
    assert sums.tolist() == pytest.approx([-3, -1, 0.5, 0, 0])
    assert choose_sort_score(truth, found, TAXONOMY, PARAMS) == 0.6


def test_of_equal_thresholds_the_highest() -> None:
    """What gains nothing is not acted on."""
    truth = truth_of((0, 3, HERE), (1, 1, HERE))
    found = found_of((1, 1, HERE, 0.8), (0, 3, HERE, 0.3))  # a film in landfill is right either way
    assert choose_sort_score(truth, found, TAXONOMY, PARAMS) == 0.8


def test_a_model_that_only_does_harm_is_not_acted_on() -> None:
    """Where every detection is false, or there is none, the threshold is 1."""
    truth = truth_of((0, 3, HERE))
    assert choose_sort_score(truth, found_of((0, 1, HERE, 0.9), (1, 1, AWAY, 0.8)), TAXONOMY, PARAMS) == 1.0
    assert choose_sort_score(truth, found_of(), TAXONOMY, PARAMS) == 1.0


def test_without_items_nothing_is_chosen() -> None:
    """No box, or crowds alone, are nothing to choose by."""
    assert choose_sort_score(truth_of(), found_of((0, 1, HERE, 0.9)), TAXONOMY, PARAMS) is None
    assert choose_sort_score(truth_of((0, 1, HERE), crowds=(0,)), found_of(), TAXONOMY, PARAMS) is None


spots = st.sampled_from([HERE, THERE, AWAY])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), spots, st.booleans()), max_size=8),
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 4), spots, st.sampled_from([0.1, 0.3, 0.30001, 1.0])),
        max_size=12,
    ),
)
def test_every_threshold_gives_what_judging_at_it_gives(items: list[Any], detections: list[Any]) -> None:
    """The sums made in one pass are those of acting on ``above(threshold)``, matched anew."""
    items = sorted(items, key=lambda row: row[0])
    truth = truth_of(*(row[:3] for row in items), crowds=tuple(i for i, row in enumerate(items) if row[3]))
    found = found_of(*detections)
    scores, sums = utilities_by_score(truth, found, match_items(truth, found), TAXONOMY, PARAMS)
    for score, total in zip(scores, sums, strict=True):
        assert sum(utilities(truth, found.above(score))) == pytest.approx(total)
    assert np.all(np.diff(scores) < 0)
