"""From ground truth and predictions to outcomes, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation import EvaluationParams
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.gate import PairedOutcomes, gate_frames, model_outcomes
from evaluation.gate.slices import gains
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy, WasteClass

HERE, THERE, AWAY = (0.0, 0.0, 10.0, 10.0), (100.0, 0.0, 10.0, 10.0), (200.0, 0.0, 10.0, 10.0)
TAXONOMY = Taxonomy(
    (
        WasteClass(1, "Drink can", "Can", "recycling"),
        WasteClass(2, "Glass bottle", "Bottle", "recycling"),
        WasteClass(3, "Cigarette", "Cigarette", "landfill"),
    ),
    {"recycling": "#1f77b4", "landfill": "#7f7f7f"},
    default_stream="landfill",
)
PARAMS = EvaluationParams(wrong_cost=1.0, false_cost=0.5)
# two frames: a can, a bottle and a crowd of cans; a cigarette and a can
TRUTH = GroundTruth(
    ("frame0", "frame1"),
    np.array([0, 0, 0, 1, 1]),
    np.array([HERE, THERE, AWAY, HERE, THERE]),
    np.array([1, 2, 1, 3, 1]),
    np.array([False, False, True, False, False]),
)


def found(*rows: tuple[int, int, tuple[float, float, float, float], float]) -> Predictions:
    """Predictions from ``(image, class id, box, score)``."""
    return Predictions.from_arrays(
        TRUTH.images,
        np.array([r[0] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[3] for r in rows], np.float64),
    )


def test_frames_share_what_both_models_see() -> None:
    """Crowds are no items; groups are numbered as they appear; a bin may be unknown."""
    frames = gate_frames(TRUTH, TAXONOMY, ["z", "a"], [None, "bin-7"])
    assert frames.group.tolist() == [0, 1]
    assert frames.bin.tolist() == [-1, 0]
    assert frames.item_frame.tolist() == [0, 0, 1, 1]
    assert frames.item_class.tolist() == [0, 1, 2, 0]
    assert frames.class_boxes.tolist() == [2, 1, 1]
    assert frames.class_stream.tolist() == [0, 0, 1]
    assert frames.frame_items.tolist() == [2, 2]


def test_where_items_go() -> None:
    """Four items: right by its stream, missed, missed but at home in the default stream, and too unsure."""
    frames = gate_frames(TRUTH, TAXONOMY, ["a", "b"], ["bin", "bin"])
    predictions = found(
        (0, 2, HERE, 0.9),  # the can is taken for a bottle: the stream is right, the class is not
        (0, 1, AWAY, 0.8),  # in the crowd: counts nowhere
        (1, 1, THERE, 0.2),  # right, but below the score that the bin acts on
    )
    outcomes = model_outcomes(frames, TRUTH, predictions, 0.3, TAXONOMY, PARAMS)
    # the bottle is missed and goes to landfill: wrong; the cigarette is missed and belongs there: right
    assert outcomes.right.tolist() == [True, False, True, False]
    assert outcomes.recognised.tolist() == [False, False, False, False]
    # 1 - 1 in the first frame; 1 - 1 in the second, where the can is missed
    assert outcomes.utility.tolist() == [0, 0]
    # average precision sees every score: the unsure can is a hit, the bottle on the can is false
    assert outcomes.detections.score.tolist() == [0.2, 0.9]
    assert outcomes.detections.class_index.tolist() == [0, 1]
    assert outcomes.detections.hit.tolist() == [True, False]


def test_gains_by_hand() -> None:
    """1 where only the challenger is right, -1 where only the champion is; roles can be exchanged."""
    frames = gate_frames(TRUTH, TAXONOMY, ["a", "b"], ["bin", "bin"])
    blind, sure = found(), found((0, 1, HERE, 0.9), (1, 2, HERE, 0.9))
    champion = model_outcomes(frames, TRUTH, blind, 0.3, TAXONOMY, PARAMS)
    challenger = model_outcomes(frames, TRUTH, sure, 0.3, TAXONOMY, PARAMS)
    outcomes = PairedOutcomes(frames, champion, challenger, step=2.0)
    # blind: -1 - 1 (both go to landfill), 1 - 1; sure: 1 - 1, -1 - 1
    assert champion.utility.tolist() == [-2, 0]
    assert challenger.utility.tolist() == [0, -2]
    # the can is now right, the cigarette taken for a bottle
    assert outcomes.right_gain.tolist() == [1, 0, -1, 0]
    assert gains(champion, challenger, "stream").tolist() == [1, 0, -1, 0]
    # for its class an item counts as right only if it is detected as it
    assert gains(champion, challenger, "class").tolist() == [1, 0, 0, 0]
    assert outcomes.utility_gain.tolist() == [2, -2]
    assert outcomes.swapped().right_gain.tolist() == [-1, 0, 1, 0]


def test_what_does_not_fit_is_refused() -> None:
    """Missing groups, an unknown class, other images, utilities of other frames."""
    with pytest.raises(UserError, match="groups of 1 and bins of 2"):
        gate_frames(TRUTH, TAXONOMY, ["a"], ["bin", "bin"])
    small = Taxonomy(TAXONOMY.classes[:2], TAXONOMY.streams)
    with pytest.raises(UserError, match=r"label of class 3, but taxonomy\.yaml has 2 classes"):
        gate_frames(TRUTH, small, ["a", "b"], ["bin", "bin"])
    frames = gate_frames(TRUTH, TAXONOMY, ["a", "b"], ["bin", "bin"])
    with pytest.raises(ValueError, match="different images"):
        model_outcomes(frames, TRUTH.take(np.array([1])), found(), 0.3, TAXONOMY, PARAMS)
    whole = model_outcomes(frames, TRUTH, found(), 0.3, TAXONOMY, PARAMS)
    with pytest.raises(ValueError, match="utilities of 3 frames"):
        PairedOutcomes(frames, replace(whole, utility=np.zeros(3)), whole, step=2.0)
