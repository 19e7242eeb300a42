from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from dataset import SPLITS, Log, append_turn
from dataset.splits import assign_groups_and_splits, assign_splits
from dataset.splits.groups import KnownGroups, Origin, group_frames, pairs_within
from dataset.splits.params import SplitParams
from tests.dataset.sample_images import drawn
from tests.dataset.test_log import frame, labels
from trashnet.images import perceptual_hash
from trashnet.taxonomy import Taxonomy

CLASSES = 6
FRAMES = st.lists(
    st.tuples(st.integers(0, 15), st.lists(st.integers(0, 3), min_size=CLASSES, max_size=CLASSES)),
    max_size=30,
)


def table(frames: list[Any]) -> tuple[list[str], Any]:
    """Group names and box counts of frames given as (group, counts)."""
    return [f"g{group}" for group, _ in frames], np.array([counts for _, counts in frames], np.int64).reshape(
        -1, CLASSES
    )


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(FRAMES, min_size=1, max_size=4), seed=st.randoms(use_true_random=False))
def test_splits_over_many_turns(turns: list[Any], seed: Any) -> None:
    """Recorded splits never change, frame order is irrelevant, classes of 3 groups reach the test split."""
    recorded: dict[str, Any] = {}
    frames_so_far: list[Any] = []
    for turn in turns:
        frames_so_far += turn
        groups, boxes = table(frames_so_far)
        chosen = assign_splits(groups, boxes, recorded)
        assert chosen.keys() == set(groups)
        assert all(chosen[group] == split for group, split in recorded.items())
        shuffled = seed.sample(frames_so_far, len(frames_so_far))
        assert assign_splits(*table(shuffled), recorded) == chosen
        for column in range(CLASSES):
            holders = {group for group, counts in zip(groups, boxes, strict=True) if counts[column]}
            if len(holders) >= 3 and holders - recorded.keys():
                assert "test" in {chosen[group] for group in holders}
        recorded = chosen


def test_every_class_of_three_groups_is_in_all_splits() -> None:
    """If classes do not compete, 3 groups suffice for train, val and test, and 1 group goes to train."""
    groups = [f"{column}-{n}" for column in range(CLASSES) for n in range(3)] + ["lonely"]
    boxes = np.vstack(
        [
            np.repeat(np.eye(CLASSES + 1, dtype=np.int64)[:CLASSES], 3, axis=0),
            np.eye(CLASSES + 1, dtype=np.int64)[CLASSES:],
        ]
    )
    chosen = assign_splits(groups, boxes, {})
    for column in range(CLASSES):
        assert {chosen[f"{column}-{n}"] for n in range(3)} == set(SPLITS)
    assert chosen["lonely"] == "train"


def test_fractions_come_out_near_the_target() -> None:
    """Of 57 classes from 200 to 1, those of 20 boxes or more and the frames come within 5 points of 15 %."""
    rng = np.random.default_rng(3)
    rates = np.geomspace(0.5, 0.0025, 57)
    boxes = rng.poisson(rates, (4000, 57))
    groups = [f"{n}" for n in range(4000)]
    for turns in (1, 20):
        recorded: dict[str, Any] = {}
        for end in np.linspace(0, 4000, turns + 1).astype(int)[1:]:
            recorded = assign_splits(groups[:end], boxes[:end], recorded)
        split = np.array([recorded[group] for group in groups])
        total = boxes.sum(axis=0)
        for name in ("val", "test"):
            share = boxes[split == name].sum(axis=0) / total
            assert np.abs(share[total >= 20] - 0.15).max() < 0.05
            assert abs((split == name).mean() - 0.15) < 0.02


def test_backgrounds_alone() -> None:
    """Frames without any box are shared out by number: 20 of them as 14, 3 and 3."""
    chosen = list(assign_splits([str(n) for n in range(20)], np.zeros((20, 4), np.int64), {}).values())
    assert [chosen.count(split) for split in SPLITS] == [14, 3, 3]
    assert assign_splits([], np.zeros((0, 4), np.int64), {}) == {}


HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    base=HASHES,
    flips=st.lists(st.sets(st.integers(0, 63), max_size=9), max_size=20),
    distance=st.integers(0, 16),
)
def test_the_search_finds_what_comparing_all_finds(
    base: list[int], flips: list[set[int]], distance: int
) -> None:
    """Multi-index hashing finds exactly the pairs that comparing every hash with every other does."""
    queries = [
        (base[i % len(base)] if base else 0) ^ sum(1 << bit for bit in bits) for i, bits in enumerate(flips)
    ]
    i, j, bits = pairs_within(np.array(queries, np.uint64), np.array(base, np.uint64), distance)
    brute = [
        (q, b, (x ^ y).bit_count())
        for q, x in enumerate(queries)
        for b, y in enumerate(base)
        if (x ^ y).bit_count() <= distance
    ]
    assert list(zip(i.tolist(), j.tolist(), bits.tolist(), strict=True)) == brute


A = 0x0123_4567_89AB_CDEF
NEAR_A, FAR_FROM_A = A ^ 0b11, A ^ 0xFFFF_FFFF  # 2 bits and 32 bits away


def test_frames_of_a_group_explicit_burst_or_alike() -> None:
    """An explicit group, one burst of one bin, and near hashes connect frames; nothing else does."""
    new = [
        Origin("a1", A),
        Origin("a2", NEAR_A),
        Origin("b1", FAR_FROM_A, "bin", "1"),
        Origin("b2", 0, "bin", "1"),
        Origin("c1", 0, "bin", "2", group="said"),
        Origin("c2", 0, group="said"),
        Origin("d1", 0, "bin"),
        Origin("d2", 0, burst="1"),
    ]
    groups = group_frames(new, KnownGroups(), 6)
    assert groups == ["a1", "a1", "b1", "b1", "said", "said", "d1", "d2"]
    assert group_frames(new[::-1], KnownGroups(), 6) == groups[::-1]
    assert group_frames(new[:2], KnownGroups(), 1) == ["a1", "a2"]


def test_a_bridge_joins_the_nearest_recorded_group() -> None:
    """Recorded groups never merge: the nearer one wins, and an explicit group or burst beats any hash."""
    known = KnownGroups(
        np.array([A, A ^ 0b11111], np.uint64),
        ["old1", "old2"],
        {"old1": "old1", "old2": "old2", "alias": "old2"},
        {("bin", "9"): "old1"},
    )
    assert group_frames([Origin("x", A ^ 0b1)], known, 6) == ["old1"]  # 1 bit from old1, 4 bits from old2
    assert group_frames([Origin("x", A ^ 0b1111)], known, 6) == ["old2"]
    assert group_frames([Origin("x", A, group="alias")], known, 6) == ["old2"]
    assert group_frames([Origin("x", A ^ 0b1111, "bin", "9")], known, 6) == ["old1"]
    assert group_frames([Origin("x", A ^ 0b1111), Origin("y", A)], known, 6) == ["old2", "old1"]
    assert group_frames([Origin("x", FAR_FROM_A)], known, 6) == ["x"]


def test_flat_images_do_not_group() -> None:
    """Black, white, noisy and faintly shaded frames have no hash, so no near-duplicates."""
    noise = np.random.default_rng(0).normal(20, 3, (240, 320)).clip(0, 255).astype(np.uint8)
    shade = np.tile(np.linspace(100, 110, 320), (240, 1)).astype(np.uint8)
    for flat in (
        Image.new("RGB", (320, 240)),
        Image.new("L", (320, 240), 255),
        Image.fromarray(noise),
        Image.fromarray(shade),
    ):
        assert perceptual_hash(flat) == 0
    assert group_frames(
        [Origin("a", 0), Origin("b", 0)], KnownGroups(np.zeros(1, np.uint64), ["old"]), 6
    ) == ["a", "b"]
    assert perceptual_hash(drawn(1)) != 0


def test_re_encodes_group_and_other_scenes_do_not(tmp_path: Path) -> None:
    """A picture saved smaller and coarser is within 6 bits of itself; of 100 pictures no two others are."""
    hashes = [perceptual_hash(drawn(seed, 320, 240)) for seed in range(100)]
    i, _, _ = pairs_within(np.array(hashes, np.uint64), np.array(hashes, np.uint64), 6)
    assert len(i) == 100
    for seed in range(20):
        path = tmp_path / "x.jpg"
        drawn(seed, 320, 240).resize((200, 150)).save(path, quality=40)
        with Image.open(path) as again:
            assert (perceptual_hash(again) ^ hashes[seed]).bit_count() <= 6


def test_a_line_drawing_has_a_hash() -> None:
    """The guard against flat images accepts an image of one dark object on a bright ground."""
    image = Image.new("L", (320, 240), 230)
    ImageDraw.Draw(image).ellipse((60, 40, 200, 180), fill=40)
    assert perceptual_hash(image) != 0


def test_new_frames_follow_their_group_across_turns(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A later frame gets its group's split; a wished split counts only if a new group agrees on it."""
    root = tmp_path / "data"
    old = [
        frame(2, split="test", group="g", phash=A, bin_id="b", burst="1"),
        frame(3, split="val", group="h", extra={"group": "theirs"}),
    ]
    append_turn(root, "t", old, [(old[0].sha256, labels((1, 1, 1, 5, 5)))], taxonomy)
    new = [
        Origin("1", 0, "b", "1"),
        Origin("2", NEAR_A),
        Origin("3", 0, group="theirs"),
        Origin("4", 0, group="n"),
        Origin("5", 0, group="n"),
        Origin("6", 0, group="m"),
        Origin("7", 0, group="m"),
    ]
    wanted: Any = ["train", None, "train", "val", "val", "test", "val"]
    boxes = np.zeros((7, 57), np.int64)
    groups, splits = assign_groups_and_splits(Log(root, taxonomy), new, boxes, SplitParams(), wanted=wanted)
    assert groups == ["g", "g", "h", "n", "n", "m", "m"]
    assert splits[:5] == ["test", "test", "val", "val", "val"]
    assert splits[5:] == ["train", "train"]  # no agreement: train misses most frames


def test_many_frames_alike() -> None:
    """A stuck camera's thousands of frames are one group; so are 20,000 that equal one in the log."""
    rng = np.random.default_rng(0)
    flipped = [A ^ (1 << int(a)) ^ (1 << int(b)) for a, b in rng.integers(0, 64, (3000, 2))]
    assert (
        len(
            set(
                group_frames([Origin(f"{n:05d}", phash) for n, phash in enumerate(flipped)], KnownGroups(), 6)
            )
        )
        == 1
    )
    count = 20_000
    groups = group_frames(
        [Origin(f"{n:05d}", A) for n in range(count)],
        KnownGroups(np.full(count, A, np.uint64), ["old"] * count),
        6,
    )
    assert set(groups) == {"old"}


@settings(max_examples=60, deadline=None)
@given(
    bits=st.lists(st.sets(st.integers(0, 9), max_size=6), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_new_groups_are_what_near_duplicates_connect(bits: list[set[int]], order: Any) -> None:
    """Without recorded groups, groups are the connected components of "at most 2 bits apart"."""
    hashes = [A ^ sum(1 << bit for bit in chosen) for chosen in bits]
    new = [Origin(f"{n:02d}", phash) for n, phash in enumerate(hashes)]
    group = list(range(len(new)))  # components by hand: relabel until nothing changes
    for _ in new:
        for i, x in enumerate(hashes):
            for j, y in enumerate(hashes):
                if (x ^ y).bit_count() <= 2:
                    group[i] = group[j] = min(group[i], group[j])
    shuffled = order.sample(new, len(new))
    named = dict(
        zip((frame.sha256 for frame in shuffled), group_frames(shuffled, KnownGroups(), 2), strict=True)
    )
    assert [named[frame.sha256] for frame in new] == [f"{first:02d}" for first in group]
