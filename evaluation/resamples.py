"""COCO's AP of resampled frames: matched once, and then only counted again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from evaluation.coco import IOU_THRESHOLDS, RECALLS, coco_evaluation
from evaluation.flat_arrays import GroundTruth, Predictions

COLUMNS = 512  # resamples counted at a time: bounds the memory at some ten MB


@dataclass(frozen=True)
class CocoMatches:
    """Which detections COCO counts as hits, for every class and IoU threshold, boxes of every size.

    ``rows``: int64 ``(P,)``, rows of the predictions in the order of their classes and, within one, as COCO
    counts them, best first; those beyond 100 an image and class are left out. ``hit`` and ``ignored``: bool
    ``(10, P)``; what lies in a crowd is ignored. ``class_ids``: int64 ``(K,)``; ``starts``: int64
    ``(K + 1,)``, class ``k`` has ``rows[starts[k]:starts[k + 1]]``.
    """

    class_ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def match_as_coco(truth: GroundTruth, predictions: Predictions, class_ids: NDArray[np.int64]) -> CocoMatches:
    """Match as COCO's evaluation does (Lin et al. 2014): within a class, best score first."""
    wanted = np.unique(class_ids)
    rows: list[list[int]] = [[] for _ in wanted]
    hits: list[list[NDArray[np.bool_]]] = [[] for _ in wanted]
    ignored: list[list[NDArray[np.bool_]]] = [[] for _ in wanted]
    kept = np.flatnonzero(np.isin(predictions.class_ids, wanted))
    if truth.images and len(kept):
        judge = coco_evaluation(truth, predictions, wanted)
        judge.params.area_rng, judge.params.area_rng_lbl = [[0.0, 1e10]], ["all"]
        judge.params.max_dets = [100]
        judge.evaluate()
        index_of = {int(c): k for k, c in enumerate(wanted)}
        for cell in judge.eval_imgs:
            if cell is not None and cell["dtIds"]:
                k = index_of[cell["category_id"]]
                rows[k] += cell["dtIds"]
                hits[k].append(np.array(cell["dtMatched"], np.bool_))
                ignored[k].append(np.array(cell["dtIgnore"], np.bool_))
    empty = np.empty((len(IOU_THRESHOLDS), 0), np.bool_)
    found = [kept[np.array(ids, np.int64) - 1] for ids in rows]
    orders = [np.argsort(-predictions.scores[r], kind="stable") for r in found]
    return CocoMatches(
        wanted,
        np.concatenate([[0], np.cumsum([len(r) for r in found])]).astype(np.int64),
        np.concatenate([np.empty(0, np.int64), *(r[o] for r, o in zip(found, orders, strict=True))]),
        _ordered(empty, hits, orders),
        _ordered(empty, ignored, orders),
    )


def _ordered(
    empty: NDArray[np.bool_], tables: list[list[NDArray[np.bool_]]], orders: list[NDArray[np.int64]]
) -> NDArray[np.bool_]:
    classes = (np.concatenate([empty, *table], axis=1) for table in tables)
    return np.concatenate([empty, *(c[:, o] for c, o in zip(classes, orders, strict=True))], axis=1)


@dataclass(frozen=True)
class WeightedCurve:
    """The precision-recall curve of one class (or of several, pooled) under any weights of groups.

    A weighted curve is a pair of cumulative sums over detections in the order of their scores. Precision only
    falls between two hits, so its envelope needs the hits alone, and one sparse product counts what lies
    between them.

    ``hit_group``: ``(H,)``, the group of each hit; ``shown``: sparse ``(H, G)``, how many detections of each
    group come after the hit before this one, this one included.
    """

    hit_group: NDArray[np.int64]
    shown: sparse.csr_array

    @classmethod
    def of(cls, group: NDArray[np.int64], hit: NDArray[np.bool_], groups: int) -> "WeightedCurve":
        """``group``: int64 ``(M,)``; ``hit``: bool ``(M,)``, both the best first."""
        hits = int(hit.sum())
        next_hit: NDArray[np.int64] = np.cumsum(hit) - hit
        before_last = np.asarray(next_hit < hits)
        cells = (np.ones(int(before_last.sum())), (next_hit[before_last], group[before_last]))
        return cls(group[hit], sparse.csr_array(cells, shape=(hits, groups)))

    def average_precision(
        self, weights: NDArray[np.float64], boxes: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Interpolated at COCO's 101 recalls, ``(B,)``; NaN where a resample has no box.

        ``weights``: ``(G, B)``; ``boxes``: ``(B,)``, ground-truth boxes under these weights.
        """
        found = np.cumsum(weights[self.hit_group], axis=0)
        shown = np.cumsum(self.shown @ weights, axis=0)
        precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            reached = np.searchsorted(RECALLS, found / boxes, side="right")
        share = np.diff(reached, axis=0, prepend=0)
        return np.where(boxes > 0, (share * envelope).sum(axis=0) / len(RECALLS), np.nan)


@dataclass(frozen=True)
class ApSamples:
    """AP of every class at every column of weights, float64 ``(K, S)``: at IoU 0.5 and over all ten
    thresholds. NaN where a resample has no item of the class.
    """

    ap50: NDArray[np.float64]
    ap: NDArray[np.float64]


def resample_ap(
    matches: CocoMatches,
    truth: GroundTruth,
    predictions: Predictions,
    group: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> ApSamples:
    """Every class's AP where each group of frames counts as often as it was drawn.

    A frame that is drawn twice counts like two frames.

    Args:
        group: int64 ``(frames,)``, the number of each frame's group.
        weights: ``(G, S)``, how often each group is drawn (:func:`evaluation.intervals.group_weights`).
    """
    weights = weights.astype(np.float64)
    shape = (len(matches.class_ids), weights.shape[1])
    ap50, ap = np.full(shape, np.nan), np.full(shape, np.nan)
    for k, class_id in enumerate(matches.class_ids):
        item = (truth.class_ids == class_id) & ~truth.crowd
        items = np.bincount(group[truth.image[item]], minlength=len(weights)) @ weights
        there = slice(matches.starts[k], matches.starts[k + 1])
        of_row = group[predictions.image[matches.rows[there]]]
        curves = [
            WeightedCurve.of(of_row[~ignored], hit[~ignored], len(weights))
            for hit, ignored in zip(matches.hit[:, there], matches.ignored[:, there], strict=True)
        ]
        for first in range(0, shape[1], COLUMNS):
            columns = slice(first, first + COLUMNS)
            known = items[columns] > 0
            values = np.stack([c.average_precision(weights[:, columns], items[columns]) for c in curves])
            ap50[k, columns] = np.where(known, values[0], np.nan)
            ap[k, columns] = np.where(known, values.mean(axis=0), np.nan)
    return ApSamples(ap50, ap)


def mean_ap(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the classes that a resample has items of, ``(K, S)`` to ``(S,)``; NaN where of none."""
    known = ~np.isnan(samples)
    count = known.sum(axis=0)
    total = np.where(known, samples, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
