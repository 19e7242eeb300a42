"""From the dataset log to batches of raw pixels: letterbox or augmentation, padding, worker processes."""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dataset import Frames
from training.efficientdet.augmentation import Augmentation
from training.efficientdet.params import EfficientDetParams, TransformParams
from trashnet.letterbox import letterbox

# The boxes of a batch are padded to a multiple of this: fewer different shapes for the allocator of the GPU.
BOX_PADDING_MULTIPLE = 8
PREFETCH_FACTOR = 4  # batches that each worker keeps ready
MIN_BOX_SIDE = 2.0  # pixels of the network's input; nothing can be learned from a thinner sliver
log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One image as the network takes it.

    ``image``: uint8 ``(S, S, 3)``; ``boxes``: float32 ``(N, 4)``, (x0, y0, x1, y1) in its pixels;
    ``classes``: int64 ``(N,)``; ``frame_index``: index in the split; ``scale``: from pixels of the frame to
    pixels of the image, NaN where the image was augmented.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    frame_index: int
    scale: float


class Batch(NamedTuple):
    """Samples stacked for the network.

    ``images``: uint8 ``(B, S, S, 3)``; ``boxes``: float32 ``(B, M, 4)``, (y0, x0, y1, x1) in pixels of the
    image; ``classes``: int64 ``(B, M)``, the class index, -1 for padding; ``frame_index`` and ``scale``:
    ``(B,)``, as in :class:`Sample`.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    frame_index: Tensor
    scale: Tensor


class EpochSampler(Sampler[tuple[int, int]]):
    """This process's share of a shuffled epoch, as ``(epoch, index)``.

    The epoch travels with the index, so that the augmentation of a sample depends on seed, epoch and frame
    alone: not on which worker loads it, nor on whether training was interrupted. Shuffled shares are made
    equal by repeating a few frames; shares in order are not.
    """

    def __init__(
        self, size: int, seed: int, rank: int = 0, world_size: int = 1, *, shuffle: bool = True
    ) -> None:
        self.size, self.seed, self.rank, self.world_size, self.shuffle = size, seed, rank, world_size, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of an epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return math.ceil(self.size / self.world_size)
        return len(range(self.rank, self.size, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.size)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
            # Every process takes the same number of steps, or they would wait for each other for ever.
            order = np.resize(order, len(self) * self.world_size)
        return iter([(self.epoch, int(i)) for i in order[self.rank :: self.world_size]])


class DetectionDataset(Dataset[Sample]):
    """Samples by ``(epoch, index)``: augmented if ``transforms`` are given, else letterboxed.

    Crowd boxes are left out. Frames without boxes stay, as backgrounds.
    """

    def __init__(
        self, frames: Frames, image_size: int, seed: int, transforms: TransformParams | None
    ) -> None:
        self.frames, self.image_size, self.seed = frames, image_size, seed
        self.augment = None if transforms is None else Augmentation(transforms, image_size)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        frame = self.frames[index]
        assert frame.labels is not None  # Log.frames() gives labelled frames
        keep = ~frame.labels.crowd
        corners = frame.labels.boxes[keep]  # a copy
        corners[:, 2:] += corners[:, :2]
        classes = frame.labels.class_ids[keep] - 1
        if self.augment is None:
            image, scale = letterbox(frame.image(), self.image_size)
            height, width = frame.height * scale, frame.width * scale
            corners = (corners * scale).clip(0, [width, height, width, height])
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            image, corners, kept = self.augment(frame.image(), corners, rng)
            classes, scale = classes[kept], math.nan
        large = (corners[:, 2:] - corners[:, :2] >= MIN_BOX_SIDE).all(axis=1)
        return Sample(image, corners[large].astype(np.float32), classes[large], index, scale)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; boxes are padded with zeros, their classes with -1."""
    max_boxes = max(len(s.boxes) for s in samples)
    padded = max(BOX_PADDING_MULTIPLE, math.ceil(max_boxes / BOX_PADDING_MULTIPLE) * BOX_PADDING_MULTIPLE)
    boxes = np.zeros((len(samples), padded, 4), np.float32)
    classes = np.full((len(samples), padded), -1, np.int64)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.boxes)] = sample.boxes[:, [1, 0, 3, 2]]
        classes[row, : len(sample.classes)] = sample.classes
    return Batch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        boxes=torch.from_numpy(boxes),
        classes=torch.from_numpy(classes),
        frame_index=torch.tensor([s.frame_index for s in samples]),
        scale=torch.tensor([s.scale for s in samples], dtype=torch.float64),
    )


def worker_count(requested: int | None, batch_size: int, image_size: int, processes: int = 1) -> int:
    """How many loader processes to start.

    ``None`` means all cores that this process may use, shared with the other training ``processes``. There
    are fewer, with a warning, where shared memory has no room for their batches.
    """
    if requested == 0:
        return 0
    workers = requested or max(1, len(os.sched_getaffinity(0)) // processes)
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else math.inf
    batch_bytes = batch_size * image_size**2 * 3
    fitting = int(min(workers, free / processes // (PREFETCH_FACTOR * batch_bytes)))
    if fitting < workers:
        log.warning(
            f"/dev/shm has room for {fitting} of {workers} loader processes; "
            "give the container more (docker run --shm-size)."
        )
    return fitting


def make_loader(
    frames: Frames,
    params: EfficientDetParams,
    seed: int,
    *,
    training: bool,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> "DataLoader[Sample]":
    """Batches of one split: shuffled and augmented for training, letterboxed and in order for validation."""
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = worker_count(params.workers, params.batch_size, params.image_size, local_processes)
    sampler = EpochSampler(len(frames), seed, rank, world_size, shuffle=training)
    return DataLoader(
        DetectionDataset(frames, params.image_size, seed, params.transforms if training else None),
        batch_size=params.batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_disable_opencv_threads,
        pin_memory=pin_memory,
        drop_last=training and len(sampler) >= params.batch_size,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH_FACTOR if workers else None,
    )


def _disable_opencv_threads(_worker: int) -> None:
    # There are as many workers as cores already, and OpenCV's thread pool does not survive a fork.
    cv2.setNumThreads(0)
