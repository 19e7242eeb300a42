"""Groups of frames that must be in one split, so that no model is tested on what it was trained on.

A group holds the frames that their source puts together (an explicit group), the frames of one burst of one
bin, and near-duplicates by perceptual hash. A new frame that belongs to a group in the log joins that group,
and so gets its split.
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

CANDIDATES_PER_BLOCK = 1 << 22  # bounds the memory of a search: 4 million pairs of 8-byte numbers
GROUP_KEY = "group"  # in a frame's extra: the group its source gave it, if it joined another one

# A frame, an explicit group, a burst or a recorded group; the first word says which.
Node = tuple[str, ...]
Tie = tuple[int, Node, Node]  # rank, the strongest first, and both ends


@dataclass(frozen=True, slots=True)
class Origin:
    """What decides a frame's group; ``phash`` 0 means that the image is too flat for a perceptual hash."""

    sha256: str
    phash: int
    bin_id: str | None = None
    burst: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class KnownGroups:
    """The groups that a log holds, by frame, by the name a source gave, and by bin and burst.

    ``phashes`` is uint64 ``(N,)``, the perceptual hashes of the N frames; ``groups`` has their N groups.
    """

    phashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    groups: Sequence[str] = ()
    by_name: dict[str, str] = field(default_factory=dict)
    by_burst: dict[tuple[str, str], str] = field(default_factory=dict)


def known_groups(log: Log) -> KnownGroups:
    """Read the groups recorded in a log."""
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
    queries: NDArray[np.uint64], references: NDArray[np.uint64], max_distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find all pairs of a query and a reference whose Hamming distance is at most ``max_distance`` bits.

    Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012, section 3): of ``max_distance + 1`` bands of
    bits at least one is equal in every such pair, so only hashes that share a band are compared.

    Args:
        queries: Hashes, uint64 ``(Q,)``.
        references: Hashes, uint64 ``(R,)``.
        max_distance: Bits, 0 to 63.

    Returns:
        Index into ``queries``, index into ``references``, and distance in bits, each int64 ``(P,)``, sorted
        by both indices and without repetition.

    Example:
        >>> hashes = np.array([0b0000, 0b0011, 0b1111], np.uint64)
        >>> [pairs.tolist() for pairs in pairs_within(hashes[:1], hashes, 2)]
        [[0, 0], [0, 1], [0, 2]]
    """
    edges = np.linspace(0, 64, max_distance + 2).astype(np.int64)
    found: list[NDArray[np.int64]] = [np.empty(0, np.int64)]  # left * len(references) + right
    for low, high in pairwise(edges):
        shift, mask = np.uint64(low), np.uint64((1 << int(high - low)) - 1)
        band = (references >> shift) & mask
        order = np.argsort(band, kind="stable")
        query_band = (queries >> shift) & mask
        first = np.searchsorted(band[order], query_band, "left")
        counts = np.searchsorted(band[order], query_band, "right") - first
        block = np.cumsum(counts) // CANDIDATES_PER_BLOCK
        for part in np.split(np.arange(len(queries)), np.flatnonzero(np.diff(block)) + 1):
            left = np.repeat(part, counts[part])
            before = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            right = order[np.repeat(first[part], counts[part]) + np.arange(len(left)) - before]
            near = np.bitwise_count(queries[left] ^ references[right]) <= max_distance
            found.append(left[near] * len(references) + right[near])
    left, right = np.divmod(np.unique(np.concatenate(found)), max(len(references), 1))
    return left, right, np.bitwise_count(queries[left] ^ references[right]).astype(np.int64)


def group_frames(new: Sequence[Origin], known: KnownGroups, max_distance: int) -> list[str]:
    """Find the group of every new frame; the result does not depend on the frames' order.

    Frames are united in the order of their ties' strength: the same explicit group, the same bin and burst,
    then near-duplicates from the least distance on (Kruskal's order). Two recorded groups are never united: a
    frame between them joins the one of its strongest tie. A new group is named after the first explicit group
    among its frames, or else after the least SHA-256 (16 digits).

    Args:
        new: The frames that are not in the log yet.
        known: The groups that the log holds.
        max_distance: Bits by which the perceptual hashes of near-duplicates may differ.

    Returns:
        The groups, in the order of ``new``.
    """
    sets = _DisjointSets()
    for name, group in known.by_name.items():
        sets.set_group(("name", name), group)
    for burst, group in known.by_burst.items():
        sets.set_group(("burst", *burst), group)
    ties: list[Tie] = []
    for frame in new:
        node = ("frame", frame.sha256)
        if frame.group is not None:
            ties.append((-2, node, ("name", frame.group)))
        if frame.bin_id is not None and frame.burst is not None:
            ties.append((-1, node, ("burst", frame.bin_id, frame.burst)))
    ties += _near_duplicates(new, known, max_distance)
    for group in set(known.groups):
        sets.set_group(("group", group), group)
    for _, a, b in sorted(ties):
        sets.union(a, b)
    roots = [sets.find(("frame", frame.sha256)) for frame in new]
    names: dict[Node, str] = {}
    for root, frame in sorted(
        zip(roots, new, strict=True), key=lambda pair: (pair[1].group is None, pair[1].group, pair[1].sha256)
    ):
        names.setdefault(root, sets.group_of.get(root) or frame.group or frame.sha256[:16])
    return [names[root] for root in roots]


def _near_duplicates(new: Sequence[Origin], known: KnownGroups, max_distance: int) -> Iterable[Tie]:
    by_hash: dict[int, list[str]] = {}
    for sha256, phash in sorted((frame.sha256, frame.phash) for frame in new if frame.phash):
        by_hash.setdefault(phash, []).append(sha256)
    for same in by_hash.values():
        for sha256 in same[1:]:
            yield 0, ("frame", same[0]), ("frame", sha256)
    hashes = np.array(sorted(by_hash), np.uint64)
    first = [by_hash[phash][0] for phash in hashes.tolist()]
    left, right, bits = pairs_within(hashes, hashes, max_distance)
    # A stuck camera makes millions of pairs. Kruskal's order gives the same groups with the ties of a minimum
    # spanning tree alone.
    upper = left < right
    graph = csr_array((bits[upper], (left[upper], right[upper])), shape=(len(hashes), len(hashes)))
    tree = minimum_spanning_tree(graph).tocoo()
    for i, j, d in zip(tree.row.tolist(), tree.col.tolist(), tree.data.tolist(), strict=True):
        yield int(d), ("frame", first[i]), ("frame", first[j])
    # Of the recorded groups that a frame resembles, it can join only the nearest.
    phashes = np.asarray(known.phashes, np.uint64)
    hashed = np.flatnonzero(phashes)
    names, rank = np.unique(np.asarray(known.groups, dtype=object)[hashed].astype(str), return_inverse=True)
    left, right, bits = pairs_within(hashes, phashes[hashed], max_distance)
    min_bits = np.full(len(hashes), 65)
    np.minimum.at(min_bits, left, bits)
    nearest = bits == min_bits[left]
    chosen = np.full(len(hashes), len(names))
    np.minimum.at(chosen, left[nearest], rank[right[nearest]])
    for i in np.flatnonzero(chosen < len(names)).tolist():
        yield int(min_bits[i]), ("frame", first[i]), ("group", str(names[chosen[i]]))


class _DisjointSets:
    """Disjoint sets of nodes (union-find), of which each may belong to one recorded group."""

    def __init__(self) -> None:
        self._parent: dict[Node, Node] = {}
        self.group_of: dict[Node, str] = {}  # recorded group by the root of a set

    def set_group(self, node: Node, group: str) -> None:
        self.group_of[node] = group

    def find(self, node: Node) -> Node:
        """Return the root of the node's set."""
        path = []
        while (parent := self._parent.get(node, node)) != node:
            path.append(node)
            node = parent
        for descendant in path:
            self._parent[descendant] = node
        return node

    def union(self, a: Node, b: Node) -> None:
        """Unite two sets, unless they belong to different recorded groups."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        group, other_group = self.group_of.get(a), self.group_of.get(b)
        if group is not None and other_group is not None and group != other_group:
            return
        self._parent[b] = a
        if other_group is not None:
            self.group_of[a] = other_group
