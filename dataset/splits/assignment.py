"""The split of a group of frames: chosen once, when its first frame enters the log, and never changed."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from dataset.frame import SPLITS, Split
from dataset.log import Log
from dataset.splits.groups import Origin, group_frames, known_groups
from dataset.splits.params import SplitParams

TRAIN, VAL, TEST = (SPLITS.index(split) for split in SPLITS)
MIN_GROUPS = len(SPLITS)  # a class with fewer cannot be in train, val and test at once
FREE = -1


def assign_splits(
    groups: Sequence[str],
    boxes: NDArray[np.int64],
    recorded: Mapping[str, Split],
    *,
    val: float = 0.15,
    test: float = 0.15,
    train_only: Collection[str] = (),
) -> dict[str, Split]:
    """Choose the split of every group; the result depends on the groups' content, not on order or chance.

    1. As far as groups are free, every class with at least 3 groups gets a test group, then every class a
       train group, then every class with at least 3 groups a val group. The rarest class is first, and it
       gets the group that exceeds the other classes' wanted numbers least. If a class has one free group
       left for both test and train, test gets it: a class that cannot be evaluated is worse than one that
       next week's frames will teach.
    2. The other groups are assigned by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD
       2011, algorithm 1): the class with the fewest free groups is first, and each of its groups goes to the
       split that lacks most of it. Here a group counts with all its boxes, the largest first; recorded groups
       count towards the wanted fractions; the number of frames is balanced like one more class, last.

    Args:
        groups: Group of each of the N frames.
        boxes: Boxes of each frame by class index, int64 ``(N, classes)``.
        recorded: Split of the groups that have one already; it stays.
        val: Fraction of the frames, and of every class's boxes, wanted in val.
        test: Fraction wanted in test.
        train_only: Groups that train unless they have a split already. The fractions above stay those of all
            frames and boxes: where the other groups are too few for them, val and test share these.

    Returns:
        The split by group.
    """
    names, group_index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(names):
        return {}
    counts = np.zeros((len(names), boxes.shape[1] + 1), np.int64)  # the last column counts frames
    np.add.at(counts, group_index, np.hstack([boxes, np.ones((len(boxes), 1), np.int64)]))
    split = np.array([SPLITS.index(recorded[name]) if name in recorded else FREE for name in names.tolist()])
    assignment = _Assignment(names, counts, split, np.array([1 - val - test, val, test]))
    for index in np.flatnonzero((split == FREE) & np.isin(names, list(train_only))).tolist():
        assignment.assign(index, TRAIN)
    num_groups = assignment.groups_per_class()
    assignment.cover_classes(TEST, num_groups >= MIN_GROUPS)
    assignment.cover_classes(TRAIN, num_groups >= 1)
    assignment.cover_classes(VAL, num_groups >= MIN_GROUPS)
    assignment.assign_remaining()
    return {str(name): SPLITS[int(s)] for name, s in zip(names, assignment.split, strict=True)}


def assign_groups_and_splits(
    log: Log,
    origins: Sequence[Origin],
    boxes: NDArray[np.int64],
    params: SplitParams,
    *,
    wanted: Sequence[Split | None] | None = None,
    may_judge: Sequence[bool] | None = None,
) -> tuple[list[str], list[Split]]:
    """Choose group and split of frames that are about to be appended; call it within ``open_to_append``.

    Groups are found by :func:`dataset.splits.groups.group_frames`, and splits by :func:`assign_splits`.

    Args:
        log: The log that the frames will be appended to.
        origins: What decides the groups of the N new frames.
        boxes: Boxes of each new frame by class index, int64 ``(N, classes)``.
        params: How frames are grouped and split.
        wanted: The split that its source gives each frame. It counts if the group is new and all its frames
            agree.
        may_judge: Whether each frame is a fair sample, so that its group may become val or test; by default
            all are. One such frame is enough: a bin uploads frames because its model is unsure in scenes that
            are hard, and without the groups that hold such frames too, val and test would be of easy scenes.

    Returns:
        The groups and the splits, in the order of ``origins``.
    """
    groups = group_frames(origins, known_groups(log), params.group_hash_distance)
    old_groups = log.column("group")
    recorded: dict[str, Split] = dict(zip(old_groups, log.splits.tolist(), strict=True))
    if wanted is not None:
        wanted_splits: dict[str, set[Split | None]] = {}
        for group, split in zip(groups, wanted, strict=True):
            wanted_splits.setdefault(group, set()).add(split)
        for group, splits in wanted_splits.items():
            split = splits.pop()
            if group not in recorded and not splits and split is not None:
                recorded[group] = split
    old_boxes = np.zeros((len(log), boxes.shape[1]), np.int64)
    np.add.at(old_boxes, log.boxes_by_row(), 1)
    fair = set(groups) if may_judge is None else set(compress(groups, may_judge))
    chosen = assign_splits(
        [*old_groups, *groups],
        np.vstack([old_boxes, boxes]),
        recorded,
        val=params.val,
        test=params.test,
        train_only=set(groups) - fair,
    )
    return groups, [chosen[group] for group in groups]


class _Assignment:
    """An assignment of G groups to splits in the making.

    ``counts`` is int64 ``(G, classes + 1)``, the boxes per class and the frames of each group; ``split`` is
    int64 ``(G,)``, the index in ``SPLITS``, or -1 for a free group.
    """

    def __init__(
        self,
        names: NDArray[np.str_],
        counts: NDArray[np.int64],
        split: NDArray[np.int64],
        fractions: NDArray[np.float64],
    ) -> None:
        self.counts, self.split = counts, split
        self.has = counts > 0
        total = counts.sum(axis=0)
        self.weight = 1 / np.maximum(total, 1)
        self.missing = np.outer(fractions, total)
        for s in range(len(SPLITS)):
            self.missing[s] -= counts[split == s].sum(axis=0)
        # Ties are broken by a hash of the name, so that they are spread over bins and dates.
        digests = [
            hashlib.sha256(name.encode()).digest() if free else b""
            for name, free in zip(names.tolist(), split == FREE, strict=True)
        ]
        self.tie_breaker = np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)

    def groups_per_class(self, split: int | None = None) -> NDArray[np.int64]:
        """Count the groups that hold each class, ``(classes,)``: all, or those of one split (-1: free)."""
        has = self.has if split is None else self.has[self.split == split]
        return np.asarray(has[:, :-1].sum(axis=0), np.int64)

    def assign(self, group: int, split: int) -> None:
        """Assign a free group to a split."""
        self.split[group] = split
        self.missing[split] -= self.counts[group]

    def cover_classes(self, split: int, classes: NDArray[np.bool_]) -> None:
        """Assign free groups to ``split`` until it has these classes, the rarest first."""
        covered, free = self.groups_per_class(split), self.groups_per_class(FREE)
        train, total = self.groups_per_class(TRAIN), self.groups_per_class()
        for column in np.lexsort((total, free)).tolist():
            if not classes[column] or covered[column] or not free[column]:
                continue
            candidates = np.flatnonzero((self.split == FREE) & self.has[:, column])
            # If train loses a class's last free group, no model can learn the class.
            last_for_train = (train == 0) & (free == 1) if split != TRAIN else np.zeros(len(free), bool)
            loss_weight = last_for_train * np.where(total >= MIN_GROUPS, len(free) + 1, 1)
            train_loss = self.has[candidates, :-1] @ loss_weight
            counts, missing = self.counts[candidates], self.missing[split]
            excess = np.maximum(counts - np.maximum(missing, 0), 0) @ self.weight
            excess += np.abs(counts[:, column] - missing[column]) * self.weight[column]
            order = np.lexsort((self.tie_breaker[candidates], excess, train_loss))
            best = int(candidates[order[0]])
            self.assign(best, split)
            free = free - self.has[best, :-1]
            covered = covered + self.has[best, :-1]
            train = covered if split == TRAIN else train

    def assign_remaining(self) -> None:
        """Assign every free group to the split that lacks most of its rarest class."""
        while (free := self.split == FREE).any():
            free_groups = self.groups_per_class(FREE)
            rarest = int(np.argmin(np.where(free_groups > 0, free_groups, np.iinfo(np.int64).max)))
            # Groups without any box are assigned by their number of frames, the last column.
            column = rarest if free_groups[rarest] else self.counts.shape[1] - 1
            groups = np.flatnonzero(free & self.has[:, column])
            order = np.lexsort((self.tie_breaker[groups], -self.counts[groups, column]))
            for group in groups[order].tolist():
                missing = self.missing[:, column]
                best = np.flatnonzero(missing == missing.max())
                self.assign(group, int(best[np.argmax(self.missing[best, -1])]))
