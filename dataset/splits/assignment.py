"""Train, val or test: decided once, when a frame enters the log, for its whole group, and never drawn again."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dataset.frame import SPLITS, Split
from dataset.log import Log
from dataset.splits.groups import Origin, group_frames, known_groups
from dataset.splits.params import SplitParams

TRAIN, VAL, TEST = (SPLITS.index(split) for split in SPLITS)
ENOUGH_GROUPS = 3  # a class with fewer cannot stand in train, val and test at once
FREE = -1


def assign_splits(
    groups: Sequence[str],
    boxes: NDArray[np.int64],
    recorded: Mapping[str, Split],
    *,
    val: float = 0.15,
    test: float = 0.15,
) -> dict[str, Split]:
    """The split of every group, a pure function of what is in the groups: neither order nor a random state enters.

    ``groups``: group of each frame, ``(N,)``; ``boxes``: boxes of each frame by class index, ``(N,
    classes)``; ``recorded``: groups that have their split already and keep it; ``val``, ``test``: the
    fraction wanted of frames and of every class's boxes.

    1. Every class that occurs in at least 3 groups gets a test group, then every class a train group, then
       those of at least 3 a val group, as far as groups are free; rarest class first, by the group that costs
       the other classes least. Should a free group be a class's last chance for both, test wins: a class that
       nobody can judge is worse than one that next week's frames will teach.
    2. The rest by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, algorithm 1):
       the class with the fewest free groups first, each of its groups to the split that misses most of it.
       Here a group counts with all its boxes, largest first; what is recorded counts towards the wanted
       fractions; the number of frames is balanced like one more class, last.
    """
    names, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(names):
        return {}
    tally = np.zeros((len(names), boxes.shape[1] + 1), np.int64)  # the last column counts frames
    np.add.at(tally, inverse, np.hstack([boxes, np.ones((len(boxes), 1), np.int64)]))
    split = np.array([SPLITS.index(recorded[name]) if name in recorded else FREE for name in names.tolist()])
    assignment = _Assignment(names, tally, split, np.array([1 - val - test, val, test]))
    several = assignment.groups_with() >= ENOUGH_GROUPS
    assignment.secure(TEST, several)
    assignment.secure(TRAIN, assignment.groups_with() >= 1)
    assignment.secure(VAL, several)
    assignment.stratify()
    return {str(name): SPLITS[int(s)] for name, s in zip(names, assignment.split, strict=True)}


def assign_groups_and_splits(
    log: Log,
    origins: Sequence[Origin],
    boxes: NDArray[np.int64],
    params: SplitParams,
    *,
    wanted: Sequence[Split | None] | None = None,
) -> tuple[list[str], list[Split]]:
    """Group and split of frames that are about to enter the log, given what it holds; call it within ``open_to_append``.

    ``boxes``: boxes of each new frame by class index, ``(N, classes)``. ``wanted``: the split its source says
    a frame has; heeded where the group is new and all its frames agree. Groups:
    :func:`dataset.splits.groups.group_frames`, splits: :func:`assign_splits`.
    """
    groups = group_frames(origins, known_groups(log), params.group_hash_distance)
    old_groups = log.column("group")
    recorded: dict[str, Split] = dict(zip(old_groups, log.splits.tolist(), strict=True))
    if wanted is not None:
        said: dict[str, set[Split | None]] = {}
        for group, split in zip(groups, wanted, strict=True):
            said.setdefault(group, set()).add(split)
        for group, splits in said.items():
            one = splits.pop()
            if group not in recorded and not splits and one is not None:
                recorded[group] = one
    old_boxes = np.zeros((len(log), boxes.shape[1]), np.int64)
    np.add.at(old_boxes, log.boxes_by_row(), 1)
    chosen = assign_splits(
        [*old_groups, *groups], np.vstack([old_boxes, boxes]), recorded, val=params.val, test=params.test
    )
    return groups, [chosen[group] for group in groups]


class _Assignment:
    """Groups on their way into splits: ``tally`` ``(groups, classes + 1)``, ``split`` ``(groups,)`` with -1 where still free."""

    def __init__(
        self,
        names: NDArray[np.str_],
        tally: NDArray[np.int64],
        split: NDArray[np.int64],
        share: NDArray[np.float64],
    ) -> None:
        self.tally, self.split = tally, split
        self.has = tally > 0
        total = tally.sum(axis=0)
        self.weight = 1 / np.maximum(total, 1)
        self.missing = np.outer(share, total)
        for s in range(len(SPLITS)):
            self.missing[s] -= tally[split == s].sum(axis=0)
        # A fixed shuffle, so that ties fall evenly over bins and dates, however the groups are named.
        digests = [
            hashlib.sha256(name.encode()).digest() if free else b""
            for name, free in zip(names.tolist(), split == FREE, strict=True)
        ]
        self.lot = np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)

    def groups_with(self, split: int | None = None) -> NDArray[np.int64]:
        """Groups that hold each class, ``(classes,)``: all, or those of one split (-1: free)."""
        has = self.has if split is None else self.has[self.split == split]
        return np.asarray(has[:, :-1].sum(axis=0), np.int64)

    def put(self, group: int, split: int) -> None:
        """Give a free group its split."""
        self.split[group] = split
        self.missing[split] -= self.tally[group]

    def secure(self, split: int, classes: NDArray[np.bool_]) -> None:
        """Give every one of these classes that has no group in ``split`` one of its free groups, rarest class first."""
        have, free, train = self.groups_with(split), self.groups_with(FREE), self.groups_with(TRAIN)
        everywhere = self.groups_with()
        for column in np.lexsort((everywhere, free)).tolist():
            if not classes[column] or have[column] or not free[column]:
                continue
            candidates = np.flatnonzero((self.split == FREE) & self.has[:, column])
            # Taking a class's last free group away from train would leave it untaught: rather another
            # candidate.
            last_chance = (train == 0) & (free == 1) if split != TRAIN else np.zeros(len(free), bool)
            untaught = self.has[candidates, :-1] @ (
                last_chance * np.where(everywhere >= ENOUGH_GROUPS, len(free) + 1, 1)
            )
            excess = np.maximum(self.tally[candidates] - np.maximum(self.missing[split], 0), 0) @ self.weight
            excess += (
                np.abs(self.tally[candidates, column] - self.missing[split, column]) * self.weight[column]
            )
            best = int(candidates[np.lexsort((self.lot[candidates], excess, untaught))[0]])
            self.put(best, split)
            held = self.has[best, :-1]
            free = free - held
            have = have + held
            train = have if split == TRAIN else train

    def stratify(self) -> None:
        """Give every group that is still free its split, by what each split still misses."""
        while (free := self.split == FREE).any():
            left = self.groups_with(FREE)
            rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
            column = (
                rarest if left[rarest] else self.tally.shape[1] - 1
            )  # groups without any box: by the number of frames
            group_rows = np.flatnonzero(free & self.has[:, column])
            for group in group_rows[
                np.lexsort((self.lot[group_rows], -self.tally[group_rows, column]))
            ].tolist():
                missing = self.missing[:, column]
                best = np.flatnonzero(missing == missing.max())
                self.put(group, int(best[np.argmax(self.missing[best, -1])]))
