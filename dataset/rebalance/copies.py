"""Rebalancing: augmented copies of training frames, made by threads or processes, written as a log."""

import hashlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.append import append_turn
from dataset.frame import Frame, Labels
from dataset.log import Frames, Log
from dataset.rebalance.augmentation import Augmenter, seed_of
from dataset.rebalance.params import RebalanceParams
from dataset.rebalance.plan import plan_copies
from dataset.rebalance.report import RebalanceReport, make_report, write_report
from trashnet.errors import UserError
from trashnet.progress import track
from trashnet.taxonomy import Taxonomy

CHUNK_SIZE = 32  # copies that a worker makes before it returns them: a few megabytes
MAX_CHUNKS_PER_WORKER = 3  # submitted at a time; bounds the memory of copies that wait to be read in order
MIN_COPIES_FOR_PROCESSES = 3_000  # threads finish fewer before processes have imported their libraries


def rebalance(
    log: Log, out: Path, params: RebalanceParams, seed: int, *, workers: int | None = None
) -> RebalanceReport:
    """Copy and augment labelled training frames until every class has enough images.

    A class has enough with ``target_images`` images, or when all its originals have ``max_copies`` copies.
    Validation and test frames are not read, and background frames are not copied. The same log, parameters
    and seed give the same bytes.

    Args:
        log: The dataset.
        out: Becomes a log of the copies alone, with ``class_counts.csv`` and ``report.json`` (written last);
            an existing folder is replaced. The copies' split is ``train``, and a copy's group is its
            original's.
        params: The target, the limits, and how much a copy may differ from its original.
        seed: What all copies are drawn from.
        workers: How many threads or processes make copies; by default as many as cores.

    Raises:
        UserError: If the train split has no labelled frame.
    """
    frames = log.frames("train")
    if not len(frames):
        raise UserError(f"{log.root}: no labelled frame in the train split. `trashnet import` adds some.")
    images, boxes = _count_classes(frames, log.taxonomy)
    plan = plan_copies(images, params, seed)
    staged = out.parent / f".{out.name}.part"
    shutil.rmtree(staged, ignore_errors=True)
    copies = make_copies(frames, plan.copies, params, seed, workers or len(os.sched_getaffinity(0)))
    copied_images, copied_boxes = _write_log(copies, int(plan.copies.sum()), staged, log.taxonomy)
    report = make_report(log.taxonomy, params, plan, images, boxes, copied_images, copied_boxes)
    write_report(report, staged)
    shutil.rmtree(out, ignore_errors=True)
    staged.rename(out)
    return report


def _count_classes(frames: Frames, taxonomy: Taxonomy) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Count without crowds: which classes each frame shows, bool ``(N, classes)``, and boxes per class."""
    images = np.zeros((len(frames), len(taxonomy.classes)), bool)
    boxes = np.zeros(len(taxonomy.classes), np.int64)
    for row in range(len(frames)):
        if (labels := frames.labels(row)) is not None:
            indices = _class_indices(labels)
            images[row, indices] = True
            np.add.at(boxes, indices, 1)
    return images, boxes


def _class_indices(labels: Labels) -> NDArray[np.int64]:
    return labels.class_ids[~labels.crowd] - 1


def _write_log(
    copies: Iterator[tuple[Frame, Labels]], num_copies: int, root: Path, taxonomy: Taxonomy
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write the copies as one turn of a new log, and return their images and boxes per class."""
    images = np.zeros(len(taxonomy.classes), np.int64)
    boxes = np.zeros(len(taxonomy.classes), np.int64)
    labels: list[tuple[str, Labels]] = []

    def frames() -> Iterator[Frame]:
        for frame, frame_labels in track(copies, num_copies, "rebalance", "image"):
            indices = _class_indices(frame_labels)
            images[np.unique(indices)] += 1
            np.add.at(boxes, indices, 1)
            labels.append((frame.sha256, frame_labels))
            yield frame

    # The labels are a generator because the list is complete only after all frames have been written.
    if append_turn(root, "copies", frames(), (pair for pair in labels), taxonomy) is None:
        for folder in ("frames", "labels"):
            (root / folder / ".keep").touch()  # no class needed a copy; DVC and git drop empty folders
    (root.parent / f".{root.name}.lock").unlink(missing_ok=True)  # its folder is about to be renamed
    return images, boxes


def make_copies(
    frames: Frames, copies: NDArray[np.int64], params: RebalanceParams, seed: int, workers: int
) -> Iterator[tuple[Frame, Labels]]:
    """Yield augmented copies with their labels, in the order of their originals.

    Args:
        frames: The N originals.
        copies: How often to copy each original, int64 ``(N,)``.
        params: How much a copy may differ, and its JPEG quality.
        seed: Each copy is a function of the seed, its original and its number.
        workers: How many threads or processes make copies; the result does not depend on it.
    """
    chunks = _chunks(copies)
    if workers == 1:
        copier = _Copier(frames, params, seed)
        for chunk in chunks:
            yield from copier.make_copies(chunk)
        return
    with _executor(workers, int(copies.sum()), (frames, params, seed)) as executor:
        pending: deque[Future[list[tuple[Frame, Labels]]]] = deque()
        for chunk in chunks:
            pending.append(executor.submit(_make_copies_in_worker, chunk))
            if len(pending) >= MAX_CHUNKS_PER_WORKER * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _chunks(copies: NDArray[np.int64]) -> Iterator[list[tuple[int, int]]]:
    """Yield lists of originals' indices with how often to copy each, about ``CHUNK_SIZE`` copies per list."""
    chunk: list[tuple[int, int]] = []
    for index in np.flatnonzero(copies).tolist():
        chunk.append((index, int(copies[index])))
        if sum(count for _, count in chunk) >= CHUNK_SIZE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Copier:
    """Makes copies of frames; each is a function of the seed, its original and its number."""

    def __init__(self, frames: Frames, params: RebalanceParams, seed: int) -> None:
        self._frames = frames
        self._augmenter = Augmenter(params)
        self._quality = params.jpeg_quality
        self._seed = seed

    def make_copies(self, chunk: Sequence[tuple[int, int]]) -> list[tuple[Frame, Labels]]:
        made = []
        for index, count in chunk:
            original = self._frames[index]
            image, labels = original.image(), original.labels
            if labels is None:
                raise ValueError(f"frame {original.sha256} lost its labels while it was copied")
            keep = set(labels.class_ids[~labels.crowd].tolist())
            for number in range(1, count + 1):
                seed = seed_of(self._seed, original.sha256, number)
                copy, copy_labels = self._augmenter.copy(image, labels, keep, seed)
                made.append((self._frame(original, copy, number), copy_labels))
        return made

    def _frame(self, original: Frame, image: NDArray[np.uint8], number: int) -> Frame:
        encoded, buffer = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not encoded:
            raise ValueError(f"copy {number} of frame {original.sha256} could not be encoded")
        jpeg = _with_comment(buffer.tobytes(), f"copy {number} of {original.sha256}")
        path = Path(original.file_name)
        return Frame(
            sha256=hashlib.sha256(jpeg).hexdigest(),
            jpeg=jpeg,
            width=image.shape[1],
            height=image.shape[0],
            split="train",
            group=original.group,
            phash=original.phash,  # of the original, since the hash tells where a frame came from
            file_name=str(path.with_name(f"{path.stem}.copy{number:02d}.jpg")),
            bin_id=original.bin_id,
            burst=original.burst,
            captured_at=original.captured_at,
            extra={**original.extra, "copy_of": original.sha256, "copy": number},
        )


def _with_comment(jpeg: bytes, comment: str) -> bytes:
    """Add a JPEG comment: a frame is named by its bytes, so copies with equal pixels need different ones."""
    text = comment.encode("ascii")
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


# Every thread (the only one of a worker process) has its own copier, which holds a random generator.
_worker = threading.local()


def _init_thread(frames: Frames, params: RebalanceParams, seed: int) -> None:
    _worker.copier = _Copier(frames, params, seed)


def _init_process(frames: Frames, params: RebalanceParams, seed: int) -> None:
    cv2.setNumThreads(1)  # the processes use all cores
    _init_thread(frames, params, seed)


def _make_copies_in_worker(chunk: list[tuple[int, int]]) -> list[tuple[Frame, Labels]]:
    copier: _Copier = _worker.copier
    return copier.make_copies(chunk)


def _executor(workers: int, num_copies: int, initargs: tuple[Frames, RebalanceParams, int]) -> Executor:
    """Choose threads for few copies (most of the work holds no lock), and processes for many.

    Processes are not forked, because a child that inherits OpenCV's thread pool hangs. Instead, a server
    process imports albumentations once and is forked.
    """
    if num_copies < MIN_COPIES_FOR_PROCESSES:
        return ThreadPoolExecutor(workers, initializer=_init_thread, initargs=initargs)
    context = get_context("forkserver")
    context.set_forkserver_preload(["dataset.rebalance.augmentation"])
    return ProcessPoolExecutor(workers, context, initializer=_init_process, initargs=initargs)
