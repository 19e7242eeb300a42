"""The scores of parts of a split: by box size, by number of items in the frame, by bin."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.coco import CocoMetrics, coco_metrics
from evaluation.flat_arrays import AREA_RANGES, GroundTruth, Predictions
from evaluation.intervals import ClusteredProportion
from evaluation.scorecard import Proportion, SliceScore

MAX_BIN_SLICES = 50  # the bins with most frames: nobody reads a longer table


def score_slices(
    truth: GroundTruth,
    predictions: Predictions,
    right: NDArray[np.bool_],
    group: NDArray[np.int64],
    coco: CocoMetrics,
    bins: Sequence[str | None],
) -> Iterable[SliceScore]:
    """Score each part of the split as the whole.

    Args:
        truth: The boxes of all images.
        predictions: The detections on the same images.
        right: bool ``(N,)``, whether a ground-truth box went to its own stream.
        group: int64 ``(N,)``, the number of its frame's group.
        coco: The metrics of the whole split.
        bins: Per image the bin that captured it, ``None`` where nobody knows; may be empty.
    """
    item = ~truth.crowd
    area = truth.boxes[:, 2] * truth.boxes[:, 3]
    for size, (low, high) in AREA_RANGES.items():
        here = item & (area >= low) & (area < high)
        yield SliceScore(
            kind="box size",
            value=size,
            frames=len(np.unique(truth.image[here])),
            accuracy=Proportion.from_groups(ClusteredProportion.count(right, group, here)),
            ap=coco.summary[f"ap_{size}"],
            ap50=coco.mean_ap(0.5, size),
        )
    items_in = np.bincount(truth.image[item], minlength=len(truth.images))
    by_items = {
        "none": items_in == 0,
        "1": items_in == 1,
        "2 to 4": (items_in >= 2) & (items_in <= 4),
        "5 or more": items_in >= 5,
    }
    yield from (
        _score_images("items in frame", value, np.flatnonzero(here), truth, predictions, right, group, coco)
        for value, here in by_items.items()
    )
    for bin_id, _ in Counter(b for b in bins if b is not None).most_common(MAX_BIN_SLICES):
        positions = np.array([i for i, b in enumerate(bins) if b == bin_id])
        yield _score_images("bin", bin_id, positions, truth, predictions, right, group, coco)


def _score_images(
    kind: str,
    value: str,
    positions: NDArray[np.int64],
    truth: GroundTruth,
    predictions: Predictions,
    right: NDArray[np.bool_],
    group: NDArray[np.int64],
    coco: CocoMetrics,
) -> SliceScore:
    here = np.isin(truth.image, positions) & ~truth.crowd
    metrics = coco_metrics(truth.take(positions), predictions.take(positions), coco.class_ids)
    return SliceScore(
        kind=kind,  # type: ignore[arg-type]
        value=value,
        frames=len(positions),
        accuracy=Proportion.from_groups(ClusteredProportion.count(right, group, here)),
        ap=metrics.summary["ap"],
        ap50=metrics.summary["ap50"],
    )
