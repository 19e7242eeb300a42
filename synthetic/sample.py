"""The sample data set: drawn scenes from simulated bins, in bursts, with a long-tailed class distribution."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.append import append_turn
from dataset.frame import Frame, Labels, Split
from dataset.splits.assignment import assign_splits
from dataset.turn_files import turns_of
from synthetic.params import SampleParams
from synthetic.scenes import FLOORS, compose_scene, draw_light, draw_scene, draw_view
from trashnet.choice import IMPORT
from trashnet.images import perceptual_hash
from trashnet.taxonomy import Taxonomy

__all__ = ["SampleParams", "draw_sample", "draw_scene"]

MIN_BOXES = 3  # boxes of each class, in as many groups: one each for train, val and test
FIRST_DAY = datetime(2026, 1, 5, 6, tzinfo=UTC)
MIN_BURSTS_FOR_PROCESSES = 64  # drawing fewer takes less time than starting processes
# Class ids by decreasing number of boxes in TACO; classes that are not listed follow in the order of ids.
COMMONEST_FIRST = (
    57, 56, 35, 5, 12, 29, 7, 38, 48, 53, 21, 1, 14, 55, 33, 6, 20, 27, 10,
    40, 16, 8, 43, 39, 17, 4, 18, 47, 34, 37, 31, 44, 11, 30, 25, 49, 28, 15,
    41, 26, 13, 52, 51, 22, 36, 23, 9, 54, 3, 50, 42, 32, 46, 19, 2, 45, 24,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Burst:
    """One scene: its number (which sets its time), its bin, its number of views, and its items' classes."""

    number: int
    bin: int
    views: int
    class_ids: tuple[int, ...]

    @property
    def group(self) -> str:
        """The group of its frames."""
        return f"bin{self.bin:02d}/b{self.number:05d}"


def draw_sample(log_root: Path, taxonomy: Taxonomy, params: SampleParams) -> str:
    """Append one turn of drawn scenes to a log and return the turn's name.

    Boxes per class fall geometrically from ``largest_class`` to ``smallest_class``, times ``scale``; every
    class has at least 3, in 3 groups. The same parameters give the same bytes. If the log holds this sample
    already, it does not change.
    """
    bursts = _plan_bursts(params, taxonomy)
    draw = partial(_draw_burst, params=params, taxonomy=taxonomy)
    splits = _splits(bursts, len(taxonomy.classes))
    labels: list[tuple[str, Labels]] = []

    def frames(drawn: Iterable[list[tuple[Frame, Labels]]]) -> Iterator[Frame]:
        for frame, boxes in chain.from_iterable(drawn):
            labels.append((frame.sha256, boxes))
            yield replace(frame, split=splits[frame.group])

    with ExitStack() as stack:
        if len(bursts) < MIN_BURSTS_FOR_PROCESSES:
            drawn: Iterable[list[tuple[Frame, Labels]]] = map(draw, bursts)
        else:
            pool = stack.enter_context(
                ProcessPoolExecutor(
                    mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
                )
            )
            drawn = pool.map(draw, bursts, chunksize=8)
        # The labels are a generator because the list is complete only after all frames have been drawn.
        turn = append_turn(log_root, "sample", frames(drawn), (pair for pair in labels), taxonomy)
    return turn or turns_of(log_root)[-1]


def planned_box_counts(params: SampleParams, num_classes: int) -> NDArray[np.int64]:
    """Compute the boxes to draw of each class, int64 ``(num_classes,)``, the commonest first."""
    steps = np.arange(num_classes) / max(num_classes - 1, 1)
    counts = params.scale * params.largest_class * (params.smallest_class / params.largest_class) ** steps
    return np.maximum(MIN_BOXES, np.round(counts)).astype(np.int64)


def _plan_bursts(params: SampleParams, taxonomy: Taxonomy) -> list[_Burst]:
    """Distribute classes over scenes so that boxes add up to the planned counts exactly."""
    rng = np.random.default_rng([params.seed, 0])
    ids = [i for i in COMMONEST_FIRST if i in taxonomy.name_of]
    ids += [i for i in taxonomy.name_of if i not in COMMONEST_FIRST]
    remaining = dict(zip(ids, planned_box_counts(params, len(ids)).tolist(), strict=True))
    weights = np.array(params.views) / sum(params.views)
    scenes: list[tuple[int, int, list[int]]] = []  # views, item capacity, items
    while sum(views * capacity for views, capacity, _ in scenes) < sum(remaining.values()):
        views = 1 + int(rng.choice(len(weights), p=weights))
        scenes.append((views, int(rng.integers(params.items[0], params.items[1] + 1)), []))
    for class_id in reversed(ids):  # the rarest first, while all scenes have room
        groups: set[int] = set()
        while remaining[class_id]:
            missing_groups = MIN_BOXES - 1 - len(groups)  # after the next one
            candidates = [
                n
                for n, (views, capacity, items) in enumerate(scenes)
                if len(items) < capacity
                and views + max(missing_groups, 0) <= remaining[class_id]
                and (missing_groups < 0 or n not in groups)
            ]
            if not candidates:
                scenes.append((1, params.items[1], []))
                continue
            n = int(rng.choice(candidates, p=_free_shares(scenes, candidates)))
            scenes[n][2].append(class_id)
            groups.add(n)
            remaining[class_id] -= scenes[n][0]
    scenes += [(1, 0, []) for _ in range(round(params.empty * len(scenes)))]
    order = rng.permutation(len(scenes))
    bins = rng.integers(0, params.bins, len(scenes))
    return [
        _Burst(
            number, int(bins[number]), scenes[n][0], tuple(rng.permutation(scenes[n][2]).astype(int).tolist())
        )
        for number, n in enumerate(order)
        if scenes[n][2] or not scenes[n][1]
    ]


def _free_shares(scenes: list[tuple[int, int, list[int]]], candidates: list[int]) -> NDArray[np.float64]:
    """Compute each candidate's share of their free capacity."""
    free = np.array([scenes[n][1] - len(scenes[n][2]) for n in candidates], float)
    return np.asarray(free / free.sum())


def _draw_burst(burst: _Burst, params: SampleParams, taxonomy: Taxonomy) -> list[tuple[Frame, Labels]]:
    rng = np.random.default_rng([params.seed, 1, burst.number])
    bin_rng = np.random.default_rng([params.seed, 2, burst.bin])
    size = params.image_size
    margin = round(0.03 * size) if burst.views > 1 else 0
    scene = compose_scene(rng, burst.class_ids, size, taxonomy, str(bin_rng.choice(FLOORS)), margin)
    light = draw_light(rng)
    start = FIRST_DAY + timedelta(minutes=7 * burst.number)
    drawn = []
    for number in range(burst.views):
        x, y = rng.integers(0, 2 * margin + 1, 2).tolist()
        image, boxes, class_ids = draw_view(rng, scene, light, (x, y), size)
        frame = _frame(image, params.jpeg_quality, burst, number, start)
        labels = Labels(
            boxes,
            class_ids,
            np.zeros(len(class_ids), bool),
            labelled_at=start + timedelta(days=1),
            annotator="drawn",
        )
        drawn.append((frame, labels))
    return drawn


def _frame(image: NDArray[np.uint8], quality: int, burst: _Burst, number: int, start: datetime) -> Frame:
    encoded, buffer = cv2.imencode(
        ".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    )
    if not encoded:
        raise ValueError(f"{burst.group}: the image could not be encoded")
    jpeg = buffer.tobytes()
    bin_id, name = burst.group.split("/")
    return Frame(
        sha256=hashlib.sha256(jpeg).hexdigest(),
        jpeg=jpeg,
        width=image.shape[1],
        height=image.shape[0],
        split="train",  # replaced by the burst's split in draw_sample
        group=burst.group,
        phash=perceptual_hash(Image.fromarray(image)),
        file_name=f"{burst.group}-{number}.jpg",
        bin_id=bin_id,
        burst=name,
        captured_at=start + timedelta(seconds=2 * number),
        upload_reason=IMPORT,  # drawn, and split by group as an imported data set is
    )


def _splits(bursts: Sequence[_Burst], classes: int) -> dict[str, Split]:
    frames = [burst for burst in bursts for _ in range(burst.views)]
    boxes = np.zeros((len(frames), classes), np.int64)
    for row, burst in enumerate(frames):
        np.add.at(boxes[row], np.array(burst.class_ids, np.int64) - 1, 1)
    return assign_splits([burst.group for burst in frames], boxes, {})
