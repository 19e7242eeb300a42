"""The COCO evaluator says exactly what pycocotools says."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.coco import SUMMARY_METRICS, coco_metrics, to_coco_documents
from evaluation.flat_arrays import GroundTruth, Predictions

Row = tuple[int, int, tuple[float, float, float, float]]  # image, class, box


def truth_of(rows: list[Row], crowds: list[bool] | None = None, images: int = 4) -> GroundTruth:
    """Ground truth from rows, in their order within an image."""
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    crowds = crowds or [False] * len(rows)
    return GroundTruth(
        tuple(f"{i:064x}" for i in range(images)),
        np.array([rows[i][0] for i in order], np.int64),
        np.array([rows[i][2] for i in order], np.float64).reshape(-1, 4),
        np.array([rows[i][1] for i in order], np.int64),
        np.array([crowds[i] for i in order], np.bool_),
    )


def predictions_of(rows: list[Row], scores: list[float], images: int = 4) -> Predictions:
    """Predictions from rows."""
    return Predictions.from_arrays(
        tuple(f"{i:064x}" for i in range(images)),
        np.array([r[0] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array(scores, np.float64),
    )


def pycocotools_says(
    truth: GroundTruth, predictions: Predictions, class_ids: np.ndarray
) -> tuple[dict[str, Any], list[float]]:
    """The reference implementation on the same boxes."""
    documents = to_coco_documents(truth, predictions, class_ids)
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for document in documents:
            coco = COCO()
            coco.dataset = document
            coco.createIndex()
            sides.append(coco)
        judge = COCOeval(*sides, "bbox")
        judge.params.imgIds = list(range(1, len(truth.images) + 1))
        judge.params.catIds = class_ids.tolist()
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.eval, list(judge.stats)


def assert_agrees(truth: GroundTruth, predictions: Predictions, class_ids: np.ndarray) -> None:
    """Every cell of every table is equal, not nearly so."""
    ours = coco_metrics(truth, predictions, class_ids)
    reference, stats = pycocotools_says(truth, predictions, np.unique(class_ids))
    for name in ("recall", "precision", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), reference[name], err_msg=name)
    assert [-1.0 if v is None else v for v in ours.summary.values()] == stats
    assert list(ours.summary) == [name for name, *_ in SUMMARY_METRICS]


# Few different places, sizes and scores, so that ties, exact hits, IoUs on a threshold and areas on a border
# are common.
boxes = st.tuples(
    st.sampled_from([0.0, 1.0, 5.0, 16.0, 50.0]),
    st.sampled_from([0.0, 2.0, 40.0]),
    st.sampled_from([0.0, 8.0, 16.0, 32.0, 64.0, 96.0, 97.0]),
    st.sampled_from([8.0, 16.0, 32.0, 33.5, 96.0]),
)
free_boxes = st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0.5, 120), st.floats(0.5, 120))
rows = st.tuples(st.integers(0, 3), st.integers(1, 3), st.one_of(boxes, free_boxes))
scores = st.one_of(st.sampled_from([0.1, 0.5, 0.5000001, 0.9]), st.floats(0, 1))


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.tuples(rows, st.booleans()), max_size=14),
    st.lists(st.tuples(rows, scores), max_size=24),
    st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True),
)
def test_equals_pycocotools_on_random_boxes(truth: list[Any], found: list[Any], class_ids: list[int]) -> None:
    """On any boxes, crowds, scores and choice of classes both evaluators fill every table with the same
    numbers.
    """
    assert_agrees(
        truth_of([r for r, _ in truth], [c for _, c in truth]),
        predictions_of([r for r, _ in found], [s for _, s in found]),
        np.array(class_ids),
    )


A, B = (10.0, 10.0, 40.0, 40.0), (100.0, 10.0, 40.0, 40.0)
CASES: dict[str, tuple[list[Row], list[bool], list[tuple[Row, float]]]] = {
    "nothing at all": ([], [], []),
    "no detections": ([(0, 1, A), (1, 2, B)], [False, False], []),
    "no ground truth": ([], [], [((0, 1, A), 0.9), ((3, 2, B), 0.1)]),
    "a class without ground truth": ([(0, 1, A)], [False], [((0, 1, A), 0.9), ((0, 2, A), 0.8)]),
    "perfect": ([(0, 1, A), (1, 2, B)], [False, False], [((0, 1, A), 0.9), ((1, 2, B), 0.8)]),
    "only crowds": ([(0, 1, A)], [True], [((0, 1, A), 0.9), ((1, 1, A), 0.8)]),
    "many in one crowd": (
        [(0, 1, (0, 0, 200, 200)), (0, 1, A)],
        [True, False],
        [((0, 1, A), 0.9), ((0, 1, B), 0.8), ((0, 1, A), 0.7)],
    ),
    "the same score everywhere": (
        [(0, 1, A), (0, 1, B), (1, 1, A), (2, 1, B)],
        [False] * 4,
        [((i, 1, box), 0.5) for i in (2, 0, 1, 3) for box in (B, A, (15.0, 12.0, 40.0, 40.0))],
    ),
    "areas on the borders": (
        [
            (0, 1, (0, 0, 32, 32)),
            (1, 1, (0, 0, 96, 96)),
            (2, 1, (0, 0, 32, 32.0001)),
            (3, 1, (0, 0, 95.9999, 96)),
        ],
        [False] * 4,
        [
            ((0, 1, (0, 0, 32, 32)), 0.9),
            ((1, 1, (0, 0, 96, 96)), 0.8),
            ((2, 1, (0, 0, 31.9, 32)), 0.7),
            ((3, 1, (0, 0, 97, 97)), 0.6),
        ],
    ),
    "overlaps exactly on thresholds": (
        [(i, 1, (0, 0, 100, 100)) for i in range(4)],
        [False] * 4,
        [((i, 1, (0, 0, 100, w)), 0.9 - i / 10) for i, w in enumerate((50, 55, 75, 95))],
    ),
    "more detections than count": (
        [(0, 1, (float(i), 0, 20, 20)) for i in range(0, 400, 25)],
        [False] * 16,
        [((0, 1, (float(i % 20) * 20, float(i // 20), 20, 20)), 0.5 + (i % 7) / 20) for i in range(260)],
    ),
    "one hit, then a miss, of 240 items": (
        [(i % 4, 1, (float(i * 30), 0, 20, 20)) for i in range(240)],
        [False] * 240,
        [((0, 1, (0, 0, 20, 20)), 0.9), ((0, 1, (0, 500, 20, 20)), 0.8), ((1, 1, (30, 0, 20, 20)), 0.7)],
    ),
    "two hits, then a miss, of 240 items": (
        [(i % 4, 1, (float(i * 30), 0, 20, 20)) for i in range(240)],
        [False] * 240,
        [((0, 1, (0, 0, 20, 20)), 0.9), ((1, 1, (30, 0, 20, 20)), 0.8), ((0, 1, (0, 500, 20, 20)), 0.7)],
    ),
    "boxes without area": (
        [(0, 1, (5, 5, 0, 0)), (0, 1, (5, 5, 0, 9))],
        [False, False],
        [((0, 1, (5, 5, 0, 0)), 0.9)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_pycocotools_where_it_is_awkward(name: str) -> None:
    """The cases in which evaluators are known to part ways are told apart by none of our numbers."""
    truth, crowds, found = CASES[name]
    assert_agrees(
        truth_of(truth, crowds),
        predictions_of([r for r, _ in found], [s for _, s in found]),
        np.array([1, 2]),
    )


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_a_split_of_ordinary_size(seed: int) -> None:
    """Hundreds of items per class, jittered, lost and doubled, with scores of two decimals (so hundreds of
    ties): equal to the last bit.
    """
    draw = np.random.default_rng(seed)
    n, images = 700, 40
    box = np.concatenate([draw.uniform(0, 400, (n, 2)), np.exp(draw.normal(3.7, 0.9, (n, 2)))], axis=1)
    image, class_ids = draw.integers(0, images, n), draw.choice([1, 2, 3], n, p=[0.75, 0.2, 0.05])
    truth = truth_of(
        [(int(i), int(c), tuple(b)) for i, c, b in zip(image, class_ids, box, strict=True)],
        list(draw.random(n) < 0.03),
        images,
    )
    kept = draw.choice(n, 900)
    near = box[kept] * draw.normal(1, 0.08, (900, 4)) + draw.normal(0, 2, (900, 4)).clip(-3, 3)
    named = np.where(draw.random(900) < 0.85, class_ids[kept], draw.integers(1, 5, 900))
    rows = [(int(i), int(c), tuple(b)) for i, c, b in zip(image[kept], named, np.abs(near), strict=True)]
    found = predictions_of(rows, list(draw.random(900).round(2)), images)
    assert_agrees(truth, found, np.array([1, 2, 3]))


def test_ap_by_hand() -> None:
    """Of four items three are found, one false detection stands between them: AP50 is the 101-point area
    under that curve.
    """
    truth = truth_of([(0, 1, A), (0, 1, B), (1, 1, A), (1, 1, B)])
    found = [(0, 1, A), (2, 1, A), (0, 1, B), (1, 1, A)]
    metrics = coco_metrics(truth, predictions_of(found, [0.9, 0.8, 0.7, 0.6]), np.array([1, 2]))
    # recall 1/4 at precision 1; then 2/4 at 2/3 and 3/4 at 3/4, which lifts the former to 3/4; nothing beyond
    # recall 0.75. recalls 0..0.25 are 26 points at 1, 0.26..0.75 are 50 points at 0.75, the other 25 are 0:
    # (26 + 37.5) / 101
    assert metrics.ap(1, iou=0.5) == pytest.approx((26 + 50 * 0.75) / 101)
    assert metrics.summary["ap"] == pytest.approx((26 + 50 * 0.75) / 101), (
        "every box fits exactly, so all IoU thresholds agree"
    )
    assert metrics.ap(2) is None, "a class without test boxes has no AP, which is not an AP of 0"
    assert metrics.boxes(1) == 4


def test_different_images_are_refused() -> None:
    """Predictions on other frames than the ground truth's are a mistake, not a bad model."""
    with pytest.raises(ValueError, match="different images"):
        coco_metrics(truth_of([], images=3), predictions_of([], [], images=4), np.array([1]))
