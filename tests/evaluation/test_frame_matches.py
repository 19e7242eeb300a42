"""Per-frame matches are kept so that two models can be paired, and only on the same frames."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import Log
from evaluation import EvaluationParams, evaluate
from evaluation.flat_arrays import GroundTruth
from evaluation.frame_matches import OUTCOMES, FrameMatches
from evaluation.paired_matches import pair_matches
from evaluation.sorting_accuracy import match_items
from tests.evaluation.test_sorting_accuracy import AWAY, HERE, THERE, found_of, truth_of
from tests.evaluation.test_utility import TAXONOMY, spots
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


def matches_of(truth: GroundTruth, *found: tuple[Any, ...], model: str = "student") -> FrameMatches:
    """A model's matches on two frames of one group, the second of an unknown bin."""
    acted = found_of(*found)
    return FrameMatches.collect(
        model, 0.3, truth, acted, match_items(truth, acted), TAXONOMY, ["g", "g"], ["bin-1", None]
    )


def assert_equal(a: FrameMatches, b: FrameMatches) -> None:
    """Every field is equal, NaN to NaN."""
    for field in fields(FrameMatches):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


TRUTH = truth_of((0, 1, HERE), (0, 3, THERE), (0, 4, AWAY), (1, 1, HERE), crowds=(3,))
FOUND = ((0, 2, HERE, 0.9), (0, 4, THERE, 0.8), (1, 4, AWAY, 0.5), (1, 1, HERE, 0.4))


def test_what_became_of_each_item() -> None:
    """A can as a bottle is right, a film as peel wrong, a peel missed; a false detection stands beside; a
    crowd, and what lies in it, nowhere.
    """
    matches = matches_of(TRUTH, *FOUND)
    assert [OUTCOMES[code] for code in matches.outcomes] == ["right", "wrong", "missed"]
    assert matches.item_frame.tolist() == [0, 0, 0]
    assert matches.item_class_ids.tolist() == [1, 3, 4]
    assert matches.detection_class_ids.tolist() == [2, 4, -1]
    assert matches.item_scores[:2].tolist() == [0.9, 0.8]
    assert np.isnan(matches.item_scores[2])
    assert (matches.false_frame.tolist(), matches.false_class_ids.tolist()) == ([1], [4])
    assert matches.false_scores.tolist() == [0.5]


def test_the_file_has_the_documented_columns(tmp_path: Path) -> None:
    """A row per frame that other programs read without this one; what is not there is null."""
    matches_of(TRUTH, *FOUND).write(tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.to_pylist() == [
        {
            "sha256": "frame0",
            "group": "g",
            "bin_id": "bin-1",
            "items": [
                {"class_id": 1, "outcome": "right", "detection_class_id": 2, "score": 0.9},
                {"class_id": 3, "outcome": "wrong", "detection_class_id": 4, "score": 0.8},
                {"class_id": 4, "outcome": "missed", "detection_class_id": None, "score": None},
            ],
            "false_detections": [],
        },
        {
            "sha256": "frame1",
            "group": "g",
            "bin_id": None,
            "items": [],
            "false_detections": [{"class_id": 4, "score": 0.5}],
        },
    ]
    assert table.schema.metadata[b"digest"].decode() == TRUTH.digest()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), spots), max_size=6),
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), spots, st.floats(0.3, 1)), max_size=8),
)
def test_what_is_written_is_read(tmp_path_factory: Any, items: list[Any], found: list[Any]) -> None:
    """Any matches, none at all included, come back as they were."""
    matches = matches_of(truth_of(*sorted(items, key=lambda row: row[0])), *found)
    path = tmp_path_factory.mktemp("matches") / "m.parquet"
    matches.write(path)
    assert_equal(FrameMatches.read(path), matches)


def test_other_frames_are_not_paired() -> None:
    """Two models are paired on the same frames and labels only, and the refusal names both."""
    one, two = matches_of(TRUTH, *FOUND), matches_of(TRUTH, model="teacher")
    one.require_same_truth(two)
    with pytest.raises(UserError, match="student and teacher were judged on different frames or labels"):
        one.require_same_truth(replace(two, digest="0" * 64))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """Each error names the file and the remedy."""
    with pytest.raises(UserError, match=r"gone\.parquet: no such per-frame matches.*dvc repro"):
        FrameMatches.read(tmp_path / "gone.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match=r"bad\.parquet: not per-frame matches.*dvc repro"):
        FrameMatches.read(tmp_path / "bad.parquet")
    matches_of(TRUTH).write(tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    pq.write_table(table.replace_schema_metadata({"format": "9"}), tmp_path / "new.parquet")
    with pytest.raises(UserError, match="of format 9, not 1"):
        FrameMatches.read(tmp_path / "new.parquet")


def test_evaluation_writes_them_beside_the_scorecard(
    jittering: Callable[..., Any], sample_log: Log, taxonomy: Taxonomy, tmp_path: Path
) -> None:
    """Their counts are the scorecard's, on the same frames and from the same score on."""
    params = EvaluationParams(warm_up=0, resamples=100)
    detector = jittering("clumsy", confuse=0.4, lose=0.2, clutter=3)
    card = evaluate(detector, sample_log, taxonomy, params, tmp_path)
    matches = FrameMatches.read(tmp_path / "matches/clumsy.parquet")
    counts = {name: int((matches.outcomes == code).sum()) for code, name in enumerate(OUTCOMES)}
    sorting = card.sorting
    assert counts == {"right": sorting.right, "wrong": sorting.wrong, "missed": sorting.missed}
    assert len(matches.false_scores) == sorting.false_detections
    assert (matches.digest, matches.sort_score) == (card.split.digest, sorting.score)
    frames = sample_log.frames("test")
    assert matches.groups == tuple(frames[i].group for i in range(len(frames)))


def test_two_models_are_paired_item_by_item() -> None:
    """By hand: the can is right for both; the film only for the other; the peel is missed by one, and goes to
    the default stream, and found by the other.
    """
    one = matches_of(TRUTH, *FOUND)
    other = matches_of(TRUTH, (0, 2, HERE, 0.9), (0, 3, THERE, 0.8), (0, 4, AWAY, 0.7), model="teacher")
    paired = pair_matches(one, other, TAXONOMY)
    missed_is_right = TAXONOMY.stream_of[4] == TAXONOMY.default_stream
    assert paired.before.tolist() == [True, False, missed_is_right]
    assert paired.after.tolist() == [True, True, True]
    table = paired.table(TAXONOMY)
    assert f"| {TAXONOMY.name_of[3]} | 1 | 0 | 1 | 1 | 0 |" in table
    assert TAXONOMY.name_of[1] not in table, "nothing changed there"


def test_across_a_version_step_matches_are_not_paired() -> None:
    """The sentence names both models and what judges them on the same frames."""
    one, other = matches_of(TRUTH, *FOUND), matches_of(TRUTH.take(np.array([0])), *FOUND[:2], model="teacher")
    with pytest.raises(UserError, match="student and teacher were judged on different frames or labels"):
        pair_matches(one, other, TAXONOMY)
