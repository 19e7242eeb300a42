"""COCO's AP of resampled frames: matched once, and then only counted again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix

from evaluation.coco import IOU_THRESHOLDS, coco_evaluation
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

    A frame that is drawn twice counts like two frames. Recall reaches a point of COCO's grid of 101 in whole
    numbers here, in floating point there, so AP may differ from COCO's by a grid point where a recall is one
    exactly.

    Args:
        group: int64 ``(frames,)``, the number of each frame's group.
        weights: ``(G, S)``, how often each group is drawn (:func:`evaluation.intervals.group_weights`).
    """
    drawn = weights.astype(np.float32)
    shape = (len(matches.class_ids), weights.shape[1])
    ap50, ap = np.full(shape, np.nan), np.full(shape, np.nan)
    for k, class_id in enumerate(matches.class_ids):
        item = (truth.class_ids == class_id) & ~truth.crowd
        items = np.bincount(group[truth.image[item]], minlength=len(weights)).astype(np.float32) @ drawn
        there = slice(matches.starts[k], matches.starts[k + 1])
        of_row = group[predictions.image[matches.rows[there]]]
        curves = [
            _Curve.of(hit, ignored, of_row, len(weights))
            for hit, ignored in zip(matches.hit[:, there], matches.ignored[:, there], strict=True)
        ]
        for first in range(0, shape[1], COLUMNS):
            columns = slice(first, first + COLUMNS)
            known = items[columns] > 0
            values = np.stack([c.average_precision(drawn[:, columns], items[columns]) for c in curves])
            ap50[k, columns] = np.where(known, values[0], np.nan)
            ap[k, columns] = np.where(known, values.mean(axis=0), np.nan)
    return ApSamples(ap50, ap)


@dataclass(frozen=True)
class _Curve:
    """One class at one IoU threshold: the groups of its hits ``(H,)``, best first, and how many false
    detections of each group stand between one hit and the next, sparse ``(H, G)``. What comes after the last
    hit does not touch interpolated precision.
    """

    hit_groups: NDArray[np.int64]
    false: coo_matrix

    @classmethod
    def of(
        cls, hit: NDArray[np.bool_], ignored: NDArray[np.bool_], group: NDArray[np.int64], groups: int
    ) -> "_Curve":
        hit, group = hit[~ignored], group[~ignored]
        before = np.cumsum(hit)
        counts = ~hit & (before < before[-1] if len(before) else False)
        ones = np.ones(int(counts.sum()), np.float32)
        false = coo_matrix((ones, (before[counts], group[counts])), shape=(int(hit.sum()), groups)).tocsr()
        return cls(group[hit], false)

    def average_precision(
        self, drawn: NDArray[np.float32], items: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """COCO's 101-point AP for each column, ``(S,)``."""
        if not len(self.hit_groups):
            return np.zeros(len(items), np.float32)
        hits = np.cumsum(drawn[self.hit_groups], axis=0)
        counted = hits + np.cumsum(self.false @ drawn, axis=0)
        precision = hits / np.maximum(counted, 1)
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        # points of the grid that are reached, recall 0 being the first
        reached = np.floor(100 * hits / np.maximum(items, 1)) + 1
        steps = np.diff(reached, axis=0, prepend=0)
        return np.asarray((precision * steps).sum(axis=0) / 101, np.float32)


def mean_ap(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the classes that a resample has items of, ``(K, S)`` to ``(S,)``; NaN where of none."""
    known = ~np.isnan(samples)
    count = known.sum(axis=0)
    total = np.where(known, samples, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
