"""Which frames belong together, so that no split judges a model on what it was trained on.

Frames of one group: those a source says belong together (an explicit group), those of one burst of one bin,
and near-duplicates by perceptual hash. Groups grow: a new frame that belongs to a group already in the log
joins it, and so takes its split.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from dataset.log import Log

CANDIDATES_AT_ONCE = 1 << 22  # bounds the memory of a search: 4 million pairs of 8-byte numbers
GROUP_KEY = "group"  # in a frame's extra: the group its source gave it, where it joined another one


@dataclass(frozen=True, slots=True)
class Origin:
    """What decides a frame's group. ``phash`` 0 means that the image is too flat to have a hash, and it has no near-duplicates."""

    sha256: str
    phash: int
    bin_id: str | None = None
    burst: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class KnownGroups:
    """The groups a log has: by frame (``phashes`` uint64 and ``groups``, both ``(N,)``), by name a source gave, by bin and burst."""

    phashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    groups: Sequence[str] = ()
    by_name: dict[str, str] = field(default_factory=dict)
    by_burst: dict[tuple[str, str], str] = field(default_factory=dict)


def known_groups(log: Log) -> KnownGroups:
    """The groups recorded in a log."""
    groups = log.column("group")
    known = KnownGroups(
        np.asarray(log.column("phash"), np.uint64), groups, {group: group for group in groups}
    )
    for bin_id, burst, group in zip(log.column("bin_id"), log.column("burst"), groups, strict=True):
        if bin_id is not None and burst is not None:
            known.by_burst.setdefault((bin_id, burst), group)
    for extra, group in zip(log.column("extra"), groups, strict=True):
        if f'"{GROUP_KEY}"' in extra and isinstance(name := json.loads(extra).get(GROUP_KEY), str):
            known.by_name.setdefault(name, group)
    return known


def pairs_within(
    queries: NDArray[np.uint64], base: NDArray[np.uint64], distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of hashes at most ``distance`` bits apart: index into ``queries``, index into ``base``, bits; sorted, none twice.

    Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012, section 3): of ``distance + 1`` bands of bits
    at least one is equal in every such pair, so only hashes that share a band are compared.
    """
    edges = np.linspace(0, 64, distance + 2).astype(np.int64)
    found: list[NDArray[np.int64]] = [np.empty(0, np.int64)]  # pairs as one number each
    for low, high in pairwise(edges):
        shift, mask = np.uint64(low), np.uint64((1 << int(high - low)) - 1)
        band = (base >> shift) & mask
        order = np.argsort(band, kind="stable")
        wanted = (queries >> shift) & mask
        first = np.searchsorted(band[order], wanted, "left")
        counts = np.searchsorted(band[order], wanted, "right") - first
        block = np.cumsum(counts) // CANDIDATES_AT_ONCE
        for part in np.split(np.arange(len(queries)), np.flatnonzero(np.diff(block)) + 1):
            left = np.repeat(part, counts[part])
            before = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            right = order[np.repeat(first[part], counts[part]) + np.arange(len(left)) - before]
            near = np.bitwise_count(queries[left] ^ base[right]) <= distance
            found.append(left[near] * len(base) + right[near])
    one, other = np.divmod(np.unique(np.concatenate(found)), max(len(base), 1))
    return one, other, np.bitwise_count(queries[one] ^ base[other]).astype(np.int64)


def group_frames(new: Sequence[Origin], known: KnownGroups, distance: int) -> list[str]:
    """The group of every new frame; none depends on the order they come in.

    Ties are made strongest first: same explicit group, same bin and burst, then near-duplicates from the
    nearest on (Kruskal's order). Two groups already recorded are never merged: what would bridge them joins
    the one it is tied to first, that is the nearest by hash distance. A new group takes the first explicit
    name among its frames, or else the least SHA-256 (16 digits).
    """
    forest = _Forest()
    for name, group in known.by_name.items():
        forest.anchor(("name", name), group)
    for burst, group in known.by_burst.items():
        forest.anchor(("burst", *burst), group)
    ties: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = []  # strength (less is stronger) and both ends
    for frame in new:
        here = ("frame", frame.sha256)
        if frame.group is not None:
            ties.append((-2, here, ("name", frame.group)))
        if frame.bin_id is not None and frame.burst is not None:
            ties.append((-1, here, ("burst", frame.bin_id, frame.burst)))
    ties += _near_duplicates(new, known, distance)
    for group in set(known.groups):
        forest.anchor(("group", group), group)
    for _, one, other in sorted(ties):
        forest.unite(one, other)
    roots = [forest.root(("frame", frame.sha256)) for frame in new]
    names: dict[tuple[str, ...], str] = {}
    for root, frame in sorted(
        zip(roots, new, strict=True), key=lambda pair: (pair[1].group is None, pair[1].group, pair[1].sha256)
    ):
        names.setdefault(root, forest.anchors.get(root) or frame.group or frame.sha256[:16])
    return [names[root] for root in roots]


def _near_duplicates(
    new: Sequence[Origin], known: KnownGroups, distance: int
) -> Iterable[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    by_hash: dict[int, list[str]] = {}
    for sha256, phash in sorted((frame.sha256, frame.phash) for frame in new if frame.phash):
        by_hash.setdefault(phash, []).append(sha256)
    for same in by_hash.values():
        for sha256 in same[1:]:
            yield 0, ("frame", same[0]), ("frame", sha256)
    hashes = np.array(sorted(by_hash), np.uint64)
    first = [by_hash[phash][0] for phash in hashes.tolist()]
    one, other, bits = pairs_within(hashes, hashes, distance)
    # A stuck camera makes millions of pairs: the ties of a minimum spanning tree lead Kruskal's order to the
    # same groups.
    once = one < other
    ties = csr_array((bits[once], (one[once], other[once])), shape=(len(hashes), len(hashes)))
    tree = minimum_spanning_tree(ties).tocoo()
    for i, j, d in zip(tree.row.tolist(), tree.col.tolist(), tree.data.tolist(), strict=True):
        yield int(d), ("frame", first[i]), ("frame", first[j])
    # Of the recorded groups a frame resembles, only the nearest can ever win it: the others are not worth
    # listing.
    phashes = np.asarray(known.phashes, np.uint64)
    usable = np.flatnonzero(phashes)
    names, rank = np.unique(np.asarray(known.groups, dtype=object)[usable].astype(str), return_inverse=True)
    one, other, bits = pairs_within(hashes, phashes[usable], distance)
    least = np.full(len(hashes), 65)
    np.minimum.at(least, one, bits)
    nearest = bits == least[one]
    chosen = np.full(len(hashes), len(names))
    np.minimum.at(chosen, one[nearest], rank[other[nearest]])
    for i in np.flatnonzero(chosen < len(names)).tolist():
        yield int(least[i]), ("frame", first[i]), ("group", str(names[chosen[i]]))


class _Forest:
    """Disjoint sets of which each may hold one recorded group, its anchor."""

    def __init__(self) -> None:
        self._parent: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.anchors: dict[tuple[str, ...], str] = {}

    def anchor(self, node: tuple[str, ...], group: str) -> None:
        self.anchors[node] = group

    def root(self, node: tuple[str, ...]) -> tuple[str, ...]:
        path = []
        while (parent := self._parent.get(node, node)) != node:
            path.append(node)
            node = parent
        for passed in path:
            self._parent[passed] = node
        return node

    def unite(self, one: tuple[str, ...], other: tuple[str, ...]) -> None:
        one, other = self.root(one), self.root(other)
        if one == other:
            return
        anchor, theirs = self.anchors.get(one), self.anchors.get(other)
        if anchor is not None and theirs is not None and anchor != theirs:
            return
        self._parent[other] = one
        if theirs is not None:
            self.anchors[one] = theirs
