"""COCO's own numbers from hotcoco's Rust, equal to pycocotools to the last bit; a test holds them to it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import AREA_RANGES, GroundTruth, Predictions

if TYPE_CHECKING:
    from hotcoco import COCOeval

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
DETECTION_LIMITS = (1, 10, 100)
AREAS = ("all", *AREA_RANGES)
# COCO's twelve, in its order: (name, is precision, IoU threshold or all ten, area, most detections per image
# and class)
SUMMARY_METRICS: tuple[tuple[str, bool, float | None, str, int], ...] = (
    ("ap", True, None, "all", 100),
    ("ap50", True, 0.5, "all", 100),
    ("ap75", True, 0.75, "all", 100),
    ("ap_small", True, None, "small", 100),
    ("ap_medium", True, None, "medium", 100),
    ("ap_large", True, None, "large", 100),
    ("ar_1", False, None, "all", 1),
    ("ar_10", False, None, "all", 10),
    ("ar_100", False, None, "all", 100),
    ("ar_small", False, None, "small", 100),
    ("ar_medium", False, None, "medium", 100),
    ("ar_large", False, None, "large", 100),
)


@dataclass(frozen=True)
class CocoMetrics:
    """What COCO's evaluation says of one model on one split.

    ``precision``: float64 ``(10 IoU thresholds, 101 recalls, K classes, 4 areas, 3 detection limits)``;
    ``recall``: float64 ``(10, K, 4, 3)``; ``scores``: as ``precision``, the score at which that recall is
    reached. -1 marks a class without test boxes (in that area range): COCO's sign for "nothing to say", which
    the properties below turn into ``None``. ``class_ids``: ``(K,)``; ``test_boxes``: ``(K,)``, crowds not
    counted.
    """

    class_ids: NDArray[np.int64]
    test_boxes: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]

    @cached_property
    def summary(self) -> dict[str, float | None]:
        """COCO's twelve headline numbers by name; ``None`` where no class has a test box of that size."""
        return {
            name: self._mean(precision, iou, area, limit)
            for name, precision, iou, area, limit in SUMMARY_METRICS
        }

    def _mean(
        self, precision: bool, iou: float | None, area: str, limit: int, k: int | None = None
    ) -> float | None:
        table = self.precision if precision else self.recall
        chosen = slice(None) if iou is None else [int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))]
        classes = slice(None) if k is None else slice(k, k + 1)
        values = table[chosen][..., classes, AREAS.index(area), DETECTION_LIMITS.index(limit)]
        values = values[values > -1]
        return float(np.mean(values)) if values.size else None

    def ap(self, class_id: int, iou: float | None = None, area: str = "all") -> float | None:
        """AP of one class, at one IoU threshold or over all ten; ``None`` without test boxes."""
        return self._mean(True, iou, area, 100, self._index(class_id))

    def ar(self, class_id: int, iou: float | None = None, area: str = "all") -> float | None:
        """The recall of one class with up to 100 detections per image, whatever their score.

        ``None`` without test boxes.
        """
        return self._mean(False, iou, area, 100, self._index(class_id))

    def mean_ap(self, iou: float | None = None, area: str = "all") -> float | None:
        """Mean AP of the classes that have test boxes in this area range; ``None`` where none has."""
        return self._mean(True, iou, area, 100)

    def boxes(self, class_id: int) -> int:
        """The test boxes behind a class's numbers."""
        return int(self.test_boxes[self._index(class_id)])

    def curve(self, iou: float, class_id: int | None = None) -> NDArray[np.float64] | None:
        """Interpolated precision at recall 0, 0.01, ... 1, ``(101,)``: of a class, or the mean of all classes
        that have test boxes.
        """
        rows = self.precision[int(np.argmin(np.abs(IOU_THRESHOLDS - iou))), :, :, 0, -1]
        rows = rows if class_id is None else rows[:, [self._index(class_id)]]
        rows = rows[:, rows[0] > -1]
        return np.asarray(rows.mean(axis=1)) if rows.size else None

    def _index(self, class_id: int) -> int:
        index = int(np.searchsorted(self.class_ids, class_id))
        if index == len(self.class_ids) or self.class_ids[index] != class_id:
            raise KeyError(f"class id {class_id} was not evaluated")
        return index


def coco_metrics(
    ground_truth: GroundTruth, predictions: Predictions, class_ids: NDArray[np.int64]
) -> CocoMetrics:
    """COCO's box metrics (Lin et al. 2014; the twelve numbers of cocodataset.org/#detection-eval).

    ``class_ids``: the classes to judge; detections of others are left out, as COCO does. Both arguments must
    speak of the same images in the same order, else ``ValueError``. Detections of one image and class with
    equal scores count in the order given, as in pycocotools.
    """
    if ground_truth.images != predictions.images:
        raise ValueError("ground truth and predictions speak of different images")
    wanted = np.unique(class_ids)
    counts = np.array([(ground_truth.class_ids[~ground_truth.crowd] == c).sum() for c in wanted], np.int64)
    if not len(wanted) or not ground_truth.images:
        nothing = -np.ones(
            (len(IOU_THRESHOLDS), len(RECALLS), len(wanted), len(AREAS), len(DETECTION_LIMITS))
        )
        return CocoMetrics(wanted, counts, nothing, nothing[:, 0], nothing)
    judge = coco_evaluation(ground_truth, predictions, wanted)
    judge.evaluate()
    judge.accumulate()
    tables = judge.eval
    assert tables is not None  # accumulate() filled it
    precision, recall, scores = (np.asarray(tables[n], np.float64) for n in ("precision", "recall", "scores"))
    return CocoMetrics(wanted, counts, precision, recall, scores)


def coco_evaluation(
    ground_truth: GroundTruth, predictions: Predictions, class_ids: NDArray[np.int64]
) -> "COCOeval":
    """hotcoco's evaluation of these classes, not yet run.

    It is fed with arrays: a dictionary per detection would take longer than judging them. Detection ``n`` is
    the ``n``-th, from 1, of those of these classes.
    """
    from hotcoco import COCO, COCOeval

    there, found = (np.isin(side.class_ids, class_ids) for side in (ground_truth, predictions))
    truth = COCO.from_arrays(
        # hotcoco wants a size, which boxes are never compared with
        [{"id": i, "width": 1, "height": 1} for i in range(1, len(ground_truth.images) + 1)],
        [{"id": int(c), "name": str(c)} for c in class_ids],
        ground_truth.image[there] + 1,
        ground_truth.class_ids[there],
        ground_truth.boxes[there],
        area=ground_truth.boxes[there, 2] * ground_truth.boxes[there, 3],
        iscrowd=ground_truth.crowd[there].astype(np.int64),
    )
    results = np.column_stack(
        (
            predictions.image[found] + 1,
            predictions.boxes[found],
            predictions.scores[found],
            predictions.class_ids[found],
        )
    )
    return COCOeval(truth, truth.load_res(results), "bbox")


def to_coco_documents(
    ground_truth: GroundTruth, predictions: Predictions, class_ids: NDArray[np.int64]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides as COCO documents that any COCO evaluator reads.

    Image ids are positions from 1, and so are annotation ids: pycocotools takes a match with annotation 0 for
    none.
    """
    images = [{"id": i} for i in range(1, len(ground_truth.images) + 1)]
    categories = [{"id": int(c), "name": str(c)} for c in class_ids]
    truth = [
        {
            "id": n,
            "image_id": i + 1,
            "category_id": c,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(crowd),
        }
        for n, (i, c, box, crowd) in enumerate(
            zip(
                ground_truth.image.tolist(),
                ground_truth.class_ids.tolist(),
                ground_truth.boxes.tolist(),
                ground_truth.crowd.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    results = [
        {
            "id": n,
            "image_id": i + 1,
            "category_id": c,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": score,
        }
        for n, (i, c, box, score) in enumerate(
            zip(
                predictions.image.tolist(),
                predictions.class_ids.tolist(),
                predictions.boxes.tolist(),
                predictions.scores.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    return (
        {"images": images, "categories": categories, "annotations": truth},
        {"images": images, "categories": categories, "annotations": results},
    )
