"""Triage's numbers against arithmetic done by hand, and triage on a real store and ledger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ingest import IngestParams, deduplicate, receive, waiting
from selection import SelectionParams, choose, score_frames
from selection.acquisition import (
    Disagreement,
    disagreement,
    entropy,
    overlap,
    rarest,
    rarities,
    uncertainty,
    weigh,
)
from selection.sampling import AUDIT, Candidate, diverse, spread
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.detectors import Detections
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

PARAMS = SelectionParams()


def seen(label: str, score: float, *box: float) -> dict[str, Any]:
    """One detection."""
    return {"label": label, "score": score, "box": list(box or (0, 0, 10, 10))}


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
        ([0.5, 0.5, 0.5, 0.99], 1.0),  # a sure one more takes nothing away
        ([0.25, 0.5], (0.811278 + 1) / 3),
        ([0.09], 0.0),  # below the floor of 0.1: noise
    ],
)
def test_uncertainty_is_the_mean_entropy_of_three_boxes(scores: list[float], expected: float) -> None:
    """Many undecided boxes are worth more than one."""
    assert uncertainty([seen("Shoe", score) for score in scores], PARAMS) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 10, 10), 50 / 150),  # intersection 50, union 150
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),  # touching
        ((0, 0, 10, 10), (20, 20, 5, 5), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),  # without area
    ],
)
def test_overlap(one: Sequence[float], other: Sequence[float], expected: float) -> None:
    """Intersection over union."""
    assert overlap(one, other) == pytest.approx(expected)


def test_disagreement_counts_things_that_only_one_sees_or_names_otherwise() -> None:
    """Teacher 4 boxes, student 3: two pairs (one renamed), two alone with the teacher, one with the student: 4 of 5 differ."""
    teacher = [
        seen("Shoe", 0.9, 0, 0, 10, 10),
        seen("Battery", 0.8, 20, 0, 10, 10),
        seen("Pop tab", 0.5, 40, 0, 4, 4),
        seen("Shoe", 0.4, 60, 0, 9, 9),
    ]
    student = [
        seen("Shoe", 0.7, 0, 0, 10, 9),
        seen("Drink can", 0.6, 21, 0, 10, 10),
        seen("Shoe", 0.5, 80, 0, 9, 9),
        seen("Shoe", 0.29, 60, 0, 9, 9),
    ]
    assert disagreement(teacher, student, PARAMS) == Disagreement(4, 5)
    assert disagreement(teacher, teacher, PARAMS) == Disagreement(0, 4)
    assert disagreement([], [], PARAMS).share == 0


def test_rarity_is_the_repeat_factor_of_lvis() -> None:
    """Of 10,000 boxes, t = 0.01: 100 boxes or fewer are rarest, 400 are worth sqrt(100 / 400) = 0.5; a class never counted is rarest."""
    rarity = rarities({"Cigarette": 9500, "Shoe": 400, "Battery": 100, "Aerosol": 0}, PARAMS)
    assert rarity == {"Cigarette": pytest.approx((100 / 9500) ** 0.5), "Shoe": 0.5, "Battery": 1.0}
    boxes = [seen("Shoe", 0.6), seen("Battery", 0.31), seen("Aerosol", 0.09)]
    assert rarest(boxes, rarity, PARAMS) == (
        "Battery",
        0.31,
    )  # 0.31 * 1 > 0.6 * 0.5; the aerosol is below the floor
    assert rarest([seen("Aerosol", 0.4)], rarity, PARAMS) == ("Aerosol", 0.4)
    assert rarest(boxes, rarities({}, PARAMS), PARAMS) == ("", 0)


def test_a_score_is_the_mean_of_its_parts_and_says_them() -> None:
    """Doubt (0.893173 + 0.811278) / 3 = 0.568150, rare 0.31, disagreement 2 of 3: their mean is 0.514939."""
    teacher = [seen("Battery", 0.31, 0, 0, 10, 10), seen("Shoe", 0.75, 20, 0, 10, 10)]
    student = [seen("Shoe", 0.9, 20, 0, 10, 10), seen("Shoe", 0.9, 50, 0, 10, 10)]
    worth = weigh(teacher, student, {"Shoe": 0.2}, PARAMS)
    assert worth.score == pytest.approx((0.568150 + 0.31 + 2 / 3) / 3, abs=1e-5)
    assert (
        worth.explanation
        == "teacher and student disagree on 2 of 3 boxes; undecided: Battery 0.31; rare class: Battery 0.31"
    )
    assert weigh([], [], {}, PARAMS) == weigh([], None, {}, PARAMS)
    assert weigh([], [], {}, PARAMS).explanation == "nothing stands out"
    assert weigh(None, None, {}, PARAMS).explanation == "no model yet: chosen for diversity"


def candidate(name: str, score: float, level: float, burst: str | None = None) -> Candidate:
    """A frame of one grey level."""
    return Candidate(name, score, ("bin01", burst) if burst else None, np.full(192, level, np.float32))


def test_twenty_views_of_one_bottle_are_one_choice() -> None:
    """Gains at first: a 1.1, b 1.0, c 0.4. After a: b (its burst, 10 levels away) 1.0 * 0.1 * 10/40 = 0.025; so c is next."""
    frames = [candidate("a", 1.0, 0, "x"), candidate("b", 0.9, 10, "x"), candidate("c", 0.3, 200, "y")]
    assert diverse(frames, Counter(), 2, PARAMS) == ["a", "c"]
    assert diverse(frames, Counter(), 9, PARAMS) == ["a", "c", "b"]
    assert diverse(frames, Counter({("bin01", "x"): 1}), 1, PARAMS) == ["c"]  # a: 1.1 * 0.1 = 0.11 < 0.4
    assert diverse([], Counter(), 2, PARAMS) == []


def test_without_scores_diversity_alone_decides() -> None:
    """Farthest first: after level 0 comes level 39 (gain 39/40), then 20 (gain 19/40 or 20/40: the nearer of both counts), then 1."""
    frames = [candidate("a", 0, 0), candidate("b", 0, 1), candidate("c", 0, 20), candidate("d", 0, 39)]
    assert diverse(frames, Counter(), 4, PARAMS) == ["a", "d", "c", "b"]


def test_frames_for_audit_stand_among_the_others() -> None:
    """Two among four stand after one and a third and two and two thirds of them."""
    assert spread(["a", "b", "c", "d"], ["x", "y"]) == ["a", "x", "b", "y", "c", "d"]
    assert spread([], ["x"]) == ["x"]
    assert spread(["a"], []) == ["a"]


class Fixed:
    """A detector that finds the same on every picture: the seam is the ledger, what a model finds is other rooms' business."""

    def __init__(self, name: str, *found: tuple[int, float]) -> None:
        """``found``: class ids and scores, boxes side by side."""
        self.name, self._found, self.asked = name, found, 0

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """One answer per picture."""
        self.asked += len(images)
        boxes = np.array([[20 * i, 0, 10, 10] for i in range(len(self._found))], np.float32).reshape(-1, 4)
        ids, scores = (np.array([pair[i] for pair in self._found]) for i in (0, 1))
        return [Detections(boxes, ids.astype(np.int64), scores.astype(np.float32)) for _ in images]


def ingest(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams, count: int, **told: Any
) -> None:
    """Bring in some frames, three of a burst."""
    for number in range(count):
        when = NOON + timedelta(minutes=number)
        upload(
            store, jpeg(scene(number)), sidecar(captured_at=when.isoformat(), burst=f"b{number // 3}", **told)
        )
    receive(store, ledger, waiting(store), taxonomy, params)
    deduplicate(store, ledger, params)


def test_frames_are_scored_once_per_model(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """A frame is looked at once; another teacher looks again. The ledger keeps its boxes, its name, the score and why."""
    ingest(store, ledger, taxonomy, params, 5, release="r7")
    triage, counts = PARAMS.model_copy(update={"batch_size": 2}), {"Cigarette": 1000}
    battery = taxonomy.id_of["Battery"]
    teacher, student = Fixed("t1", (battery, 0.5)), Fixed("r7", (battery, 0.9))
    assert score_frames(store, ledger, teacher, student, counts, taxonomy, triage) == 5
    assert (teacher.asked, student.asked) == (
        5,
        0,
    )  # the bins ran the student's release: their own boxes are its boxes
    assert score_frames(store, ledger, teacher, student, counts, taxonomy, triage) == 0
    row = frames_in_state(ledger, "accepted")[0]
    assert row.prediction == [{"label": "Battery", "score": 0.5, "box": [0, 0, 10, 10]}]
    assert (row.model, row.explanation) == (
        "t1",
        "teacher and student disagree on 2 of 2 boxes; rare class: Battery 0.50; undecided: Battery 0.50",
    )
    assert row.score == pytest.approx((1 / 3 + 0.5 + 1) / 3)
    other = Fixed("r8", (battery, 0.5))
    assert score_frames(store, ledger, Fixed("t2", (battery, 0.5)), other, counts, taxonomy, triage) == 5
    assert other.asked == 5


def test_a_frame_whose_object_is_lost_is_set_aside(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """One lost object does not stop triage; the ledger says what is gone."""
    ingest(store, ledger, taxonomy, params, 2)
    lost = frames_in_state(ledger, "accepted")[0]
    store.remove(str(lost.key))
    assert score_frames(store, ledger, Fixed("t1"), None, {}, taxonomy, PARAMS) == 1
    assert replace(ledger.frame(lost.sha256) or lost).quarantine_reason == "lost"


def test_cold_start(store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams) -> None:
    """With no model yet, a turn is chosen for diversity within its budget, some of it blindly, the same each time it is asked."""
    ingest(store, ledger, taxonomy, params, 30, release=None, detections=[])
    triage = PARAMS.model_copy(update={"budget": 10, "exploration_share": 0.2})
    assert score_frames(store, ledger, None, None, {}, taxonomy, triage) == 30
    chosen = choose(ledger, triage, seed=1)
    assert len(chosen) == len(set(chosen)) == 10
    assert choose(ledger, triage, seed=1) == chosen
    assert choose(ledger, triage, seed=2) != chosen
    rows = [ledger.frame(sha256) for sha256 in chosen]
    told = Counter(row.explanation for row in rows if row)
    assert told == {
        f"{AUDIT}; no model yet: chosen for diversity": 2,
        "no model yet: chosen for diversity": 8,
    }
    bursts = Counter(row.burst for row in rows if row and not str(row.explanation).startswith(AUDIT))
    assert set(bursts.values()) == {1}  # 10 bursts of 3 views: none is asked about twice
    assert len(choose(ledger, triage.model_copy(update={"budget": 99}), seed=1)) == 30
