"""Rebalance the train split: as few augmented copies as lift every rare class to the target, planned by an integer program."""

import csv
import hashlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from tqdm import tqdm

from dataset.append import append_turn
from dataset.log import Frame, Frames, Labels, Log
from dataset.rebalance.augmentation import Augmenter, seed_of
from dataset.rebalance.params import RebalanceParams
from trashnet.errors import UserError
from trashnet.files import atomic_write, write_json
from trashnet.taxonomy import Taxonomy

CHUNK = 32  # copies that a worker makes before it hands them over: a few megabytes
AHEAD = 3  # chunks under way per worker: bounds what waits in memory for its turn
MANY = 3_000  # copies; fewer are made before processes have imported their libraries


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each original is copied.

    ``copies``: int64 ``(N,)``; ``proven``: whether no plan has fewer copies; ``gap``: by how many copies this
    one may exceed the fewest.
    """

    copies: NDArray[np.int64]
    proven: bool
    gap: int


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """One class of the train split before and after. Images show it at least once; crowds count neither as images nor as boxes.

    ``effective``: Kish's effective number of originals, (sum w)^2 / sum w^2 with w = 1 + copies of each
    original of the class: what the copies are worth at most, were each a new photo's equal. ``short``: images
    missing from the target, out of the cap's reach.
    """

    id: int
    name: str
    images: int
    boxes: int
    copied_images: int
    copied_boxes: int
    effective: float
    short: int

    @property
    def total(self) -> int:
        """Images with this class after rebalancing."""
        return self.images + self.copied_images


@dataclass(frozen=True, slots=True)
class RebalanceReport:
    """What rebalancing did, per class and in all."""

    target: int
    originals: int
    copies: int
    most_copies: int
    proven: bool
    gap: int
    classes: tuple[ClassBalance, ...]

    def table(self) -> str:
        """For the terminal: a line per class, the commonest first, and the sum."""
        lines = [f"{'class':26} {'images':>7} {'boxes':>7} {'copies':>7} {'total':>7} {'effective':>9}"]
        for one in sorted(self.classes, key=lambda c: (-c.images, c.id)):
            row = f"{one.name:26} {one.images:7,} {one.boxes:7,} {one.copied_images:7,} {one.total:7,} {one.effective:9.1f}"
            lines.append(row + (f"  short by {one.short:,}" if one.short else ""))
        proof = "proven to be the fewest" if self.proven else f"at most {self.gap:,} more than the fewest"
        short = sum(c.short > 0 for c in self.classes)
        lines.append(
            f"{self.originals:,} originals, {self.copies:,} copies ({proof}; at most {self.most_copies} of one original); "
            f"{len(self.classes) - short} of {len(self.classes)} classes have {self.target:,} images"
        )
        return "\n".join(lines)


def rebalance(
    log: Log, out: Path, params: RebalanceParams, seed: int, *, workers: int | None = None
) -> RebalanceReport:
    """Copy and augment labelled training frames until every class has ``target_images`` images, or its originals are at their cap.

    ``out`` becomes a log of the copies alone, all of split ``train`` and of their originals' groups, with
    ``report.json`` (written last) and ``class_counts.csv``; what was there is replaced. The same log,
    parameters and seed give the same bytes whatever the number of ``workers`` (as many as cores unless
    given). Validation and test frames are not read, background frames not copied.

    Raises :class:`UserError` if the train split has no labelled frame.
    """
    frames = log.frames("train")
    if not len(frames):
        raise UserError(f"{log.root}: no labelled frame in the train split. `trashnet import` brings some.")
    images, boxes = _count(frames, log.taxonomy)
    plan = plan_copies(images, params, seed)
    staged = out.parent / f".{out.name}.part"
    shutil.rmtree(staged, ignore_errors=True)
    copied_images, copied_boxes = _write(
        frames, plan.copies, staged, log.taxonomy, params, seed, workers or _cores()
    )
    report = _report(log.taxonomy, params, plan, images, boxes, copied_images, copied_boxes)
    _write_counts(staged / "class_counts.csv", report)
    write_json(staged / "report.json", asdict(report))
    shutil.rmtree(out, ignore_errors=True)
    staged.rename(out)
    return report


def plan_copies(images: NDArray[np.bool_], params: RebalanceParams, seed: int) -> Plan:
    """Choose how often to copy each original so that rare classes reach the target with the fewest copies.

    ``images``: bool ``(N, classes)``, which classes an original shows. Originals that show the same set of
    classes are one variable of the integer program: x_g copies of group g, 0 <= x_g <= cap * |g|, and for
    every class c: sum of x_g over the groups with c >= target - images_c, or as much as the cap allows. First
    the sum of x is minimised, then, at that sum, the classes' images: so that of equally short plans the one
    with the least inflation of classes that need none is taken. Solved by HiGHS (branch and bound); after
    ``solver_nodes`` nodes the best found, or the rounded-up linear relaxation if that is better, and the plan
    says how far from the bound it may be. A group's copies are spread evenly over its originals.
    """
    shown, group_of, sizes = np.unique(images, axis=0, return_inverse=True, return_counts=True)
    group_of = group_of.reshape(-1)
    have = images.sum(0)
    reachable = np.minimum(params.target_images, have * (1 + params.max_copies))
    demand = np.maximum(reachable - have, 0)
    most = np.where(shown.any(1), params.max_copies * sizes, 0)
    chosen, gap = _fewest(shown, demand, most, params.solver_nodes)
    copies = np.zeros(len(images), np.int64)
    for group in np.flatnonzero(chosen):
        members = np.flatnonzero(group_of == group)
        copies[members] = chosen[group] // len(members)
        left = int(chosen[group] % len(members))
        first = np.random.default_rng([seed, int(group)]).permutation(members)[:left]
        copies[first] += 1
    return Plan(copies, gap == 0, gap)


def _fewest(
    shown: NDArray[np.bool_], demand: NDArray[np.int64], most: NDArray[np.int64], nodes: int
) -> tuple[NDArray[np.int64], int]:
    """Copies per group, int64 ``(groups,)``, and by how many their sum may exceed the least."""
    if not demand.any():
        return np.zeros(len(shown), np.int64), 0
    cover = LinearConstraint(shown.T.astype(float), demand, np.inf)
    limits = Bounds(0, most)
    found = milp(
        np.ones(len(shown)), integrality=1, bounds=limits, constraints=cover, options={"node_limit": nodes}
    )
    candidates = [_whole(found, shown, demand, most)]
    bound = found.mip_dual_bound
    if found.status != 0:
        relaxed = milp(np.ones(len(shown)), integrality=0, bounds=limits, constraints=cover)
        candidates.append(_pruned(np.ceil(relaxed.x - 1e-6).astype(np.int64), shown, demand))
        bound = relaxed.fun if bound is None else max(bound, relaxed.fun)
    best = min((c for c in candidates if c is not None), key=lambda c: int(c.sum()))
    total = int(best.sum())
    gap = 0 if found.status == 0 else max(0, total - int(np.ceil(bound - 1e-6)))
    # Every demand is met, so the images beyond them are, but for a constant, the sum over groups of x_g times
    # the group's classes.
    same_sum = LinearConstraint(np.ones((1, len(shown))), total, total)
    leaner = milp(
        shown.sum(1).astype(float),
        integrality=1,
        bounds=limits,
        constraints=[cover, same_sum],
        options={"node_limit": nodes},
    )
    second = _whole(leaner, shown, demand, most)
    return (best if second is None else second), gap


def _whole(
    found: OptimizeResult, shown: NDArray[np.bool_], demand: NDArray[np.int64], most: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """A solver's answer in integers, if it has one."""
    if found.x is None:
        return None
    chosen: NDArray[np.int64] = np.round(found.x).astype(np.int64)
    if (chosen @ shown < demand).any() or (chosen < 0).any() or (chosen > most).any():
        raise ValueError(f"HiGHS answered with a plan that breaks its constraints: {found.message}")
    return chosen


def _pruned(
    chosen: NDArray[np.int64], shown: NDArray[np.bool_], demand: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A covering plan without the copies it can spare, those of the most classes spared first."""
    spare = chosen @ shown - demand
    for group in np.argsort(-shown.sum(1), kind="stable"):
        less = min(int(chosen[group]), int(spare[shown[group]].min(initial=chosen[group])))
        chosen[group] -= less
        spare[shown[group]] -= less
    return chosen


def _count(frames: Frames, taxonomy: Taxonomy) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which classes each frame shows, bool ``(N, classes)``, and the boxes per class; crowds left out."""
    images = np.zeros((len(frames), len(taxonomy.classes)), bool)
    boxes = np.zeros(len(taxonomy.classes), np.int64)
    for index in range(len(frames)):
        if (labels := frames.labels(index)) is not None:
            seen = _indices(labels)
            images[index, seen] = True
            np.add.at(boxes, seen, 1)
    return images, boxes


def _indices(labels: Labels) -> NDArray[np.int64]:
    return labels.class_ids[~labels.crowd] - 1


def _write(
    frames: Frames,
    copies: NDArray[np.int64],
    root: Path,
    taxonomy: Taxonomy,
    params: RebalanceParams,
    seed: int,
    workers: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write the copies as one turn of the log ``root``; returns images and boxes per class."""
    images = np.zeros(len(taxonomy.classes), np.int64)
    boxes = np.zeros(len(taxonomy.classes), np.int64)
    labels: list[tuple[str, Labels]] = []

    def made() -> Iterator[Frame]:
        with tqdm(total=int(copies.sum()), desc="rebalance", unit="image", disable=None) as bar:
            for frame, one in _copies(frames, copies, params, seed, workers):
                seen = _indices(one)
                images[np.unique(seen)] += 1
                np.add.at(boxes, seen, 1)
                labels.append((frame.sha256, one))
                yield frame
                bar.update()

    if append_turn(root, "copies", made(), (pair for pair in labels), taxonomy) is None:
        for folder in ("frames", "labels"):
            (root / folder / ".keep").touch()  # no class needed a copy; DVC and git forget empty folders
    (root.parent / f".{root.name}.lock").unlink(missing_ok=True)  # of a folder that is about to be renamed
    return images, boxes


def _copies(
    frames: Frames, copies: NDArray[np.int64], params: RebalanceParams, seed: int, workers: int
) -> Iterator[tuple[Frame, Labels]]:
    """The copies in the order of their originals, made by that many workers."""
    chunks = _chunks(copies)
    if workers == 1:
        maker = _Maker(frames, params, seed)
        for chunk in chunks:
            yield from maker.make(chunk)
        return
    with _pool(workers, int(copies.sum()), (frames, params, seed)) as pool:
        waiting: deque[Future[list[tuple[Frame, Labels]]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_make, chunk))
            if len(waiting) >= AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _chunks(copies: NDArray[np.int64]) -> Iterator[list[tuple[int, int]]]:
    """Originals with how often to copy each, about ``CHUNK`` copies at a time."""
    chunk: list[tuple[int, int]] = []
    for index in np.flatnonzero(copies).tolist():
        chunk.append((index, int(copies[index])))
        if sum(n for _, n in chunk) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Maker:
    """Makes copies of frames; each depends on nothing but the seed, its original and its number."""

    def __init__(self, frames: Frames, params: RebalanceParams, seed: int) -> None:
        self.frames = frames
        self.augmenter = Augmenter(params)
        self.quality = params.jpeg_quality
        self.seed = seed

    def make(self, chunk: Sequence[tuple[int, int]]) -> list[tuple[Frame, Labels]]:
        made = []
        for index, copies in chunk:
            original = self.frames[index]
            image, labels = original.image(), original.labels
            if labels is None:
                raise ValueError(f"frame {original.sha256} lost its labels while it was copied")
            keep = set(labels.class_ids[~labels.crowd].tolist())
            for number in range(1, copies + 1):
                pixels, boxes = self.augmenter.copy(
                    image, labels, keep, seed_of(self.seed, original.sha256, number)
                )
                made.append((self._frame(original, pixels, number), boxes))
        return made

    def _frame(self, original: Frame, pixels: NDArray[np.uint8], number: int) -> Frame:
        encoded, buffer = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        if not encoded:
            raise ValueError(f"copy {number} of frame {original.sha256} could not be encoded")
        jpeg = _noted(buffer.tobytes(), f"copy {number} of {original.sha256}")
        path = Path(original.file_name)
        return Frame(
            sha256=hashlib.sha256(jpeg).hexdigest(),
            jpeg=jpeg,
            width=pixels.shape[1],
            height=pixels.shape[0],
            split="train",
            group=original.group,
            phash=original.phash,  # of the original: what it tells is where this came from
            file_name=str(path.with_name(f"{path.stem}.copy{number:02d}.jpg")),
            bin_id=original.bin_id,
            burst=original.burst,
            captured_at=original.captured_at,
            extra={**original.extra, "copy_of": original.sha256, "copy": number},
        )


def _noted(jpeg: bytes, note: str) -> bytes:
    """The JPEG with a comment: two copies that happen to look alike are two frames all the same, for a frame is named by its bytes."""
    text = note.encode("ascii")
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


_worker = (
    threading.local()
)  # each thread, or a process's only one, has a maker of its own: it keeps the state of a random generator


def _begin(frames: Frames, params: RebalanceParams, seed: int) -> None:
    _worker.maker = _Maker(frames, params, seed)


def _begin_process(frames: Frames, params: RebalanceParams, seed: int) -> None:
    cv2.setNumThreads(1)  # the processes fill the cores
    _begin(frames, params, seed)


def _make(chunk: list[tuple[int, int]]) -> list[tuple[Frame, Labels]]:
    maker: _Maker = _worker.maker
    return maker.make(chunk)


def _pool(workers: int, copies: int, begin: tuple[Frames, RebalanceParams, int]) -> Executor:
    """Threads for what is done before processes are up (most of a copy's work holds no lock), processes for more.

    Processes are not forked: OpenCV's thread pool does not survive it, and the child hangs. A server imports
    albumentations, once.
    """
    if copies < MANY:
        return ThreadPoolExecutor(workers, initializer=_begin, initargs=begin)
    context = get_context("forkserver")
    context.set_forkserver_preload(["dataset.rebalance.augmentation"])
    return ProcessPoolExecutor(workers, context, initializer=_begin_process, initargs=begin)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _report(
    taxonomy: Taxonomy,
    params: RebalanceParams,
    plan: Plan,
    images: NDArray[np.bool_],
    boxes: NDArray[np.int64],
    copied_images: NDArray[np.int64],
    copied_boxes: NDArray[np.int64],
) -> RebalanceReport:
    have = images.sum(0)
    weights = images * (1 + plan.copies)[:, None]
    effective = weights.sum(0) ** 2 / np.maximum((weights**2).sum(0), 1)
    missing = np.maximum(params.target_images - have - copied_images, 0)
    classes = tuple(
        ClassBalance(
            one.id,
            one.name,
            int(have[i]),
            int(boxes[i]),
            int(copied_images[i]),
            int(copied_boxes[i]),
            float(effective[i]),
            int(missing[i]),
        )
        for i, one in enumerate(taxonomy.classes)
    )
    return RebalanceReport(
        params.target_images,
        len(images),
        int(plan.copies.sum()),
        int(plan.copies.max(initial=0)),
        plan.proven,
        plan.gap,
        classes,
    )


def _write_counts(path: Path, report: RebalanceReport) -> None:
    """For ``dvc plots``: images of each class before and after, the commonest first."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["class", "before", "after"])
        writer.writerows(
            (c.name, c.images, c.total) for c in sorted(report.classes, key=lambda c: (-c.images, c.id))
        )
