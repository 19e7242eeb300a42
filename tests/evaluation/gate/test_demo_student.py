"""The gate on the demo's data and the demo's trained student: real detections, with harms that are known.

The gate set is the whole shipped sample, 612 drawn frames of 12 bins, none of which the student was trained
on. A harm is injected into the detections of its int8 file (``tests/evaluation/harmed_detector.py``), so that
the truth of every comparison is known; the detections themselves, and how they depend on each other within a
burst, are the model's.
"""

import numpy as np
import pytest

from benchmarks.support.gate_simulation import allowed_errors, finding
from benchmarks.support.harmed_detector import Harmed, Recorded
from dataset import Frames
from evaluation import ComparedModel, EvaluationParams, compare_models
from evaluation.evaluator import predict
from evaluation.flat_arrays import GroundTruth
from evaluation.gate import (
    GateFrames,
    GateParams,
    ModelOutcomes,
    PairedOutcomes,
    Verdict,
    gate_frames,
    judge_challenger,
    model_outcomes,
)
from tests.shipped_data import shipped_sample, shipped_student
from trashnet.detectors import Detector, open_detector
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

PARAMS = EvaluationParams()
# recorded detections take no time worth comparing; fewer draws change no level
GATE = GateParams(max_latency_ratio=1000.0, resamples=200, flips=1000)
SCORE = 0.3  # from which the demo's bins act


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Frames:
    """The shipped sample."""
    return shipped_sample(tmp_path_factory.mktemp("sample") / "data", taxonomy).frames()


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Recorded:
    """The demo's int8 file."""
    return Recorded(open_detector(shipped_student(tmp_path_factory.mktemp("student")), taxonomy))


@pytest.fixture(scope="module")
def class_ids(frames: Frames) -> np.ndarray:
    """The class of every item: what shuffled labels are drawn from."""
    return GroundTruth.from_frames(frames).class_ids


def judge(challenger: Detector, champion: Detector | None, frames: Frames, taxonomy: Taxonomy) -> Verdict:
    """What the gate says of two detectors on these frames."""
    rival = ComparedModel("champion", champion, SCORE) if champion else None
    model = ComparedModel("challenger", challenger, SCORE)
    return compare_models(model, rival, None, frames, taxonomy, PARAMS, GATE, seed=1).verdict


def test_a_better_model_that_harms_one_class_of_sixty_boxes_is_blocked_and_the_class_named(
    student: Recorded, frames: Frames, taxonomy: Taxonomy
) -> None:
    """The champion loses a fifth of all detections; the challenger loses none, but takes seven of ten food
    cans for glass cups, which belong into another stream. Utility and AP50 pass, the class blocks.
    """
    can, cup = taxonomy.id_of["Food Can"], taxonomy.id_of["Glass cup"]
    champion = Harmed(student, 2, lose=0.2)
    challenger = Harmed(student, 1, mistake={can: cup}, mistaken=0.7)
    verdict = judge(challenger, champion, frames, taxonomy)
    assert verdict.outcome == "blocks"
    assert (finding(verdict, "utility"), finding(verdict, "ap50")) == ("passes", "passes")
    assert all((f.estimate or 0) > 0 for f in verdict.findings[:2]), "better overall"
    harmed = [f.slice for f in verdict.findings if f.slice is not None]
    assert [(s.kind, s.name, s.boxes) for s in harmed] == [("class", "Food Can", 61)]
    assert any(reason.startswith("Class Food Can got worse") for reason in verdict.reasons)


def test_a_class_that_is_mistaken_within_its_stream_is_named(
    student: Recorded, frames: Frames, taxonomy: Taxonomy
) -> None:
    """Food cans taken for plastic cups are recycled as before, but the model no longer knows food cans."""
    can, cup = taxonomy.id_of["Food Can"], taxonomy.id_of["Disposable plastic cup"]
    challenger = Harmed(student, 1, mistake={can: cup}, mistaken=0.7)
    verdict = judge(challenger, student, frames, taxonomy)
    harmed = [f.slice for f in verdict.findings if f.slice is not None]
    assert [(s.kind, s.name) for s in harmed] == [("class", "Food Can")]
    assert finding(verdict, "utility") != "blocks"


def test_a_model_that_learnt_shuffled_labels_never_passes(
    student: Recorded, frames: Frames, taxonomy: Taxonomy, class_ids: np.ndarray
) -> None:
    """Its boxes are the student's, its classes are drawn as often as they are there; the champion is weak."""
    for seed in range(3):
        shuffled = Harmed(student, seed, shuffle=1.0, class_ids=class_ids)
        assert judge(shuffled, Harmed(student, 9, lose=0.4), frames[:100], taxonomy).outcome == "blocks"
        assert judge(shuffled, None, frames[:100], taxonomy).outcome == "blocks"


def test_a_copy_of_the_champion_passes(student: Recorded, frames: Frames, taxonomy: Taxonomy) -> None:
    """The same file on the same frames: no difference, and frames enough to rule the margins out."""
    verdict = judge(student, student, frames, taxonomy)
    assert verdict.outcome == "passes"
    assert [f.estimate for f in verdict.findings if f.test in ("utility", "ap50")] == [0.0, 0.0]
    assert judge(student, student, frames[:12], taxonomy).outcome == "holds"


class Equals:
    """Models that are equally good by construction: each loses the same share of detections, by chance."""

    def __init__(self, student: Recorded, frames: Frames, taxonomy: Taxonomy) -> None:
        self._student, self._frames, self._taxonomy = student, frames, taxonomy
        self._truth = GroundTruth.from_frames(frames)
        rows = [frames[i] for i in range(len(frames))]
        groups, bins = [row.group for row in rows], [row.bin_id for row in rows]
        self.shared: GateFrames = gate_frames(self._truth, taxonomy, groups, bins)

    def one(self, seed: int) -> ModelOutcomes:
        """One of them."""
        found, _ = predict(Harmed(self._student, seed, lose=0.1), self._frames, 0)
        return model_outcomes(self.shared, self._truth, found, SCORE, self._taxonomy, PARAMS)

    def blocks(self, trials: int, params: GateParams) -> int:
        """How many of so many comparisons of two of them are blocked."""
        outcomes = (
            PairedOutcomes(self.shared, self.one(2 * trial), self.one(2 * trial + 1), 1 + PARAMS.wrong_cost)
            for trial in range(trials)
        )
        verdicts = [judge_challenger(pair, params, trial) for trial, pair in enumerate(outcomes)]
        return sum(verdict.outcome == "blocks" for verdict in verdicts)


@pytest.mark.slow
def test_equally_good_models_are_rarely_blocked(
    student: Recorded, frames: Frames, taxonomy: Taxonomy
) -> None:
    """Sixty comparisons on half of the frames, at the gate's stated rate of false blocks."""
    blocked = Equals(student, frames[:306], taxonomy).blocks(60, GATE)
    print(f"{blocked} of 60 equally good models were blocked")
    assert blocked <= allowed_errors(60, GATE.harm_level)
