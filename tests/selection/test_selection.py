"""Acquisition scores and sampling against arithmetic done by hand, and both on a real store and ledger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.support.inbox import pending_uploads
from ingest import IngestParams, deduplicate, receive
from selection import ScoringModels, SelectionParams, sample_frames, score_frames
from selection.acquisition import (
    ModelDisagreement,
    entropy,
    model_disagreement,
    rarest_box,
    rarities,
    score_frame,
    uncertainty,
)
from selection.sampling import interleave, select_diverse
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.boxes import Box
from trashnet.detectors import Detections
from trashnet.ledger import EXPLORATION, Ledger, ScoredFrame
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

PARAMS = SelectionParams()


def detection(label: str, score: float, x: float = 0, y: float = 0, w: float = 10, h: float = 10) -> Box:
    """One detection."""
    return Box(label, x, y, w, h, score)


@pytest.mark.parametrize(
    ("score", "bits"),
    [
        (0.5, 1.0),
        (0.0, 0.0),
        (1.0, 0.0),
        (0.25, 0.811278),  # 0.25 * 2 + 0.75 * 0.415037
        (0.75, 0.811278),
    ],
)
def test_entropy_is_greatest_at_one_half(score: float, bits: float) -> None:
    """Binary entropy in bits, the same on both sides of 0.5."""
    assert entropy(score) == pytest.approx(bits, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], 0.0),
        ([0.5], 1 / 3),  # two of the three most undecided boxes are not there
        ([0.5, 0.5, 0.5], 1.0),
        ([0.5, 0.5, 0.5, 0.99], 1.0),  # one more certain box lowers nothing
        ([0.25, 0.5], (0.811278 + 1) / 3),
        ([0.09], 0.0),  # below the floor of 0.1: noise
    ],
)
def test_uncertainty_is_the_mean_entropy_of_three_boxes(scores: list[float], expected: float) -> None:
    """Boxes that are missing count as entropy 0, so several undecided boxes score higher than one."""
    assert uncertainty([detection("Shoe", score) for score in scores], PARAMS) == pytest.approx(
        expected, abs=1e-6
    )


def test_disagreement_counts_items_that_one_model_misses_or_labels_otherwise() -> None:
    """Teacher 4 boxes, student 3: two pairs (one renamed), two alone with the teacher, one with the student:
    4 of 5 differ.
    """
    teacher = [
        detection("Shoe", 0.9, 0, 0, 10, 10),
        detection("Battery", 0.8, 20, 0, 10, 10),
        detection("Pop tab", 0.5, 40, 0, 4, 4),
        detection("Shoe", 0.4, 60, 0, 9, 9),
    ]
    student = [
        detection("Shoe", 0.7, 0, 0, 10, 9),
        detection("Drink can", 0.6, 21, 0, 10, 10),
        detection("Shoe", 0.5, 80, 0, 9, 9),
        detection("Shoe", 0.29, 60, 0, 9, 9),
    ]
    assert model_disagreement(teacher, student, PARAMS) == ModelDisagreement(4, 5)
    assert model_disagreement(teacher, teacher, PARAMS) == ModelDisagreement(0, 4)
    assert model_disagreement([], [], PARAMS).share == 0


def test_rarity_is_the_repeat_factor_of_lvis() -> None:
    """Of 10,000 boxes, t = 0.01: 100 boxes or fewer are rarest, 400 give sqrt(100 / 400) = 0.5.

    A class without boxes is rarest.
    """
    rarity = rarities({"Cigarette": 9500, "Shoe": 400, "Battery": 100, "Aerosol": 0}, PARAMS)
    assert rarity == {"Cigarette": pytest.approx((100 / 9500) ** 0.5), "Shoe": 0.5, "Battery": 1.0}
    boxes = [detection("Shoe", 0.6), detection("Battery", 0.31), detection("Aerosol", 0.09)]
    assert rarest_box(boxes, rarity, PARAMS) == (
        "Battery",
        0.31,
    )  # 0.31 * 1 > 0.6 * 0.5; the aerosol is below the floor
    assert rarest_box([detection("Aerosol", 0.4)], rarity, PARAMS) == ("Aerosol", 0.4)
    assert rarest_box(boxes, rarities({}, PARAMS), PARAMS) == ("", 0)


def test_a_score_is_the_mean_of_its_parts_and_the_explanation_names_them() -> None:
    """Uncertainty (0.893173 + 0.811278) / 3 = 0.568150, rarity 0.31, disagreement 2/3: mean 0.514939."""
    teacher = [detection("Battery", 0.31, 0, 0, 10, 10), detection("Shoe", 0.75, 20, 0, 10, 10)]
    student = [detection("Shoe", 0.9, 20, 0, 10, 10), detection("Shoe", 0.9, 50, 0, 10, 10)]
    scored = score_frame(teacher, student, {"Shoe": 0.2}, PARAMS)
    assert scored.score == pytest.approx((0.568150 + 0.31 + 2 / 3) / 3, abs=1e-5)
    assert (
        scored.explanation
        == "teacher and student disagree on 2 of 3 boxes; undecided: Battery 0.31; rare class: Battery 0.31"
    )
    assert score_frame([], [], {}, PARAMS) == score_frame([], None, {}, PARAMS)
    assert score_frame([], [], {}, PARAMS).explanation == "nothing stands out"
    assert score_frame(None, None, {}, PARAMS).explanation == "no model yet: chosen for diversity"


def frame(name: str, score: float, level: int, burst: str | None = None) -> ScoredFrame:
    """A frame of one grey level."""
    return ScoredFrame(name, score, ("bin01", burst) if burst else None, bytes([level] * 192))


def test_a_second_view_of_a_burst_is_chosen_after_a_frame_of_another() -> None:
    """The first gains are a 1.1, b 1.0, c 0.4.

    After a: b (its burst, 10 levels away) 1.0 * 0.1 * 10/40 = 0.025; so c is next.
    """
    frames = [frame("a", 1.0, 0, "x"), frame("b", 0.9, 10, "x"), frame("c", 0.3, 200, "y")]
    assert select_diverse(frames, Counter(), 2, PARAMS) == ["a", "c"]
    assert select_diverse(frames, Counter(), 9, PARAMS) == ["a", "c", "b"]
    assert select_diverse(frames, Counter({("bin01", "x"): 1}), 1, PARAMS) == [
        "c"
    ]  # a: 1.1 * 0.1 = 0.11 < 0.4
    assert select_diverse([], Counter(), 2, PARAMS) == []


def test_without_scores_diversity_alone_decides() -> None:
    """Farthest first: after level 0 comes level 39 (gain 39/40), then 20 (gain 19/40 or 20/40: the nearer of
    both counts), then 1.
    """
    frames = [frame("a", 0, 0), frame("b", 0, 1), frame("c", 0, 20), frame("d", 0, 39)]
    assert select_diverse(frames, Counter(), 4, PARAMS) == ["a", "d", "c", "b"]


def test_exploration_frames_are_spread_evenly_among_the_others() -> None:
    """Two exploration frames among four get positions 4/3 and 8/3: after the first and after the second."""
    assert interleave(["a", "b", "c", "d"], ["x", "y"]) == ["a", "x", "b", "y", "c", "d"]
    assert interleave([], ["x"]) == ["x"]
    assert interleave(["a"], []) == ["a"]


class Fixed:
    """A detector of 100 pixels a side that finds the same on every picture.

    The seam is the ledger: what a model finds is other rooms' business.
    """

    def __init__(self, name: str, *found: tuple[int, float]) -> None:
        """``found``: class ids and scores, boxes side by side."""
        self.name, self._found, self.asked, self.image_size = name, found, 0, 100

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """One answer per picture."""
        self.asked += len(images)
        boxes = np.array([[20 * i, 0, 10, 10] for i in range(len(self._found))], np.float32).reshape(-1, 4)
        ids, scores = (np.array([pair[i] for pair in self._found]) for i in (0, 1))
        return [Detections(boxes, ids.astype(np.int64), scores.astype(np.float32)) for _ in images]


def ingest(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams, count: int, **values: Any
) -> None:
    """Bring in some frames, three of a burst."""
    for number in range(count):
        when = NOON + timedelta(minutes=number)
        upload(
            store,
            jpeg(scene(number)),
            sidecar(captured_at=when.isoformat(), burst=f"b{number // 3}", **values),
        )
    receive(store, ledger, pending_uploads(store), taxonomy, params)
    deduplicate(store, ledger, params)


def test_frames_are_scored_once_per_model(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """A frame is looked at once; another teacher looks again.

    There is room for two tasks with ten candidates each. The ledger keeps its boxes, its name, the score and
    why.
    """
    ingest(store, ledger, taxonomy, params, 5, release="r7")
    selection, counts = PARAMS.model_copy(update={"batch_size": 2}), {"Cigarette": 1000}
    battery = taxonomy.id_of["Battery"]
    teacher, student = Fixed("t1", (battery, 0.5)), Fixed("r7", (battery, 0.9))
    models = ScoringModels(teacher, student, taxonomy)
    assert score_frames(store, ledger, models, counts, selection, 2) == (5, 5)
    assert (teacher.asked, student.asked) == (
        5,
        0,
    )  # the bins ran the student's release: their own boxes are its boxes
    assert score_frames(store, ledger, models, counts, selection, 2) == (0, 0)
    row = frames_in_state(ledger, "accepted")[0]
    assert row.prediction == (Box("Battery", 0, 0, 10, 10, 0.5),)
    assert (row.model, row.explanation) == (
        "t1",
        "teacher and student disagree on 2 of 2 boxes; rare class: Battery 0.50; undecided: Battery 0.50",
    )
    assert row.score == pytest.approx((1 / 3 + 0.5 + 1) / 3)
    other = Fixed("r8", (battery, 0.5))
    models = ScoringModels(Fixed("t2", (battery, 0.5)), other, taxonomy)
    assert score_frames(store, ledger, models, counts, selection, 2) == (0, 5)
    assert other.asked == 5


def test_a_frame_whose_object_is_lost_is_set_aside(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """One lost object does not stop scoring; the ledger says what is gone."""
    ingest(store, ledger, taxonomy, params, 2)
    lost = frames_in_state(ledger, "accepted")[0]
    store.remove(str(lost.key))
    score_frames(store, ledger, ScoringModels(Fixed("t1"), None, taxonomy), {}, PARAMS, 2)
    assert ledger.count_by_state() == {"accepted": 1, "quarantined": 1}
    assert replace(ledger.frame(lost.sha256) or lost).quarantine_reason == "lost"


def test_cold_start(store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams) -> None:
    """With no model yet, frames are sampled for diversity, some of them at random, and the same each time."""
    ingest(store, ledger, taxonomy, params, 30, release=None, detections=[])
    selection = PARAMS.model_copy(update={"exploration_share": 0.2})
    assert score_frames(store, ledger, ScoringModels(None, None, taxonomy), {}, selection, 10) == (30, 0)
    sampled = sample_frames(ledger, selection, seed=1, count=10)
    assert len(sampled) == len(set(sampled)) == 10
    assert sample_frames(ledger, selection, seed=1, count=10) == sampled
    assert sample_frames(ledger, selection, seed=2, count=10) != sampled
    rows = [ledger.frame(sha256) for sha256 in sampled]
    explanations = Counter(row.explanation for row in rows if row)
    assert explanations == {
        f"{EXPLORATION}; no model yet: chosen for diversity": 2,
        "no model yet: chosen for diversity": 8,
    }
    bursts = Counter(row.burst for row in rows if row and not str(row.explanation).startswith(EXPLORATION))
    assert set(bursts.values()) == {1}  # 10 bursts of 3 views: none is asked about twice
    assert len(sample_frames(ledger, selection, seed=1, count=99)) == 30
