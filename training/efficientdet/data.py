"""From the dataset log to batches of raw pixels: letterbox, random changes, padding, worker processes."""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dataset import Frames
from training.efficientdet.params import EfficientDetParams, TransformParams
from trashnet.letterbox import blank, letterbox, resize

PADDED_TO = (
    8  # boxes per image are padded to a multiple of this: fewer different shapes for the GPU's allocator
)
PREFETCH = 4  # batches ready per worker
SMALLEST_BOX = 2.0  # pixels of the model's input; a sliver that small teaches nothing
log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One image as the network takes it: uint8 ``(S, S, 3)``; boxes float32 ``(N, 4)``, ``(x0, y0, x1, y1)`` in its pixels."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    frame: int
    scale: float


class Batch(NamedTuple):
    """``images``: uint8 ``(B, S, S, 3)``; ``boxes``: float32 ``(B, M, 4)``, ``(y0, x0, y1, x1)``; ``classes``: int64 ``(B, M)``.

    Where boxes are padded the class is -1. ``frame``: its place in its split; ``scale``: from the frame's
    pixels to the image's, known only in validation.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    frame: Tensor
    scale: Tensor


class Shuffled(Sampler[tuple[int, int]]):
    """This process's share of a shuffled epoch, as ``(epoch, index)``.

    The epoch travels with the index, so that a sample's random changes depend on seed, epoch and frame alone:
    not on which worker draws it, nor on whether training was interrupted. ``drop_last`` evens the shares out
    by dropping, else by repeating.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world: int = 1, *, shuffle: bool = True) -> None:
        self.size, self.seed, self.rank, self.world, self.shuffle = size, seed, rank, world, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of an epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return (
            math.ceil(self.size / self.world)
            if self.shuffle
            else len(range(self.rank, self.size, self.world))
        )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.size)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
            order = np.resize(
                order, len(self) * self.world
            )  # every process the same number of steps, or they wait for ever
        return iter([(self.epoch, int(i)) for i in order[self.rank :: self.world]])


class Samples(Dataset[Sample]):
    """Samples by ``(epoch, index)``. Crowd boxes are left out; frames without boxes stay, as backgrounds."""

    def __init__(
        self, frames: Frames, image_size: int, seed: int, transforms: TransformParams | None
    ) -> None:
        self.frames, self.image_size, self.seed, self.transforms = frames, image_size, seed, transforms
        self._pixels: Any = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        frame = self.frames[index]
        assert frame.labels is not None  # Log.frames() gives labelled frames
        keep = ~frame.labels.crowd
        corners = frame.labels.boxes[keep].copy()
        corners[:, 2:] += corners[:, :2]
        classes = frame.labels.class_ids[keep] - 1
        if self.transforms is None:
            image, scale = letterbox(frame.image(), self.image_size)
            height, width = frame.height * scale, frame.width * scale
            corners = (corners * scale).clip(0, [width, height, width, height])
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            image, corners, classes = self._changed(frame.image(), corners, classes, rng)
            scale = math.nan
        fits = (corners[:, 2:] - corners[:, :2] >= SMALLEST_BOX).all(axis=1)
        return Sample(image, corners[fits].astype(np.float32), classes[fits], index, scale)

    def _changed(
        self,
        image: NDArray[np.uint8],
        corners: NDArray[np.float64],
        classes: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
        """Random scale and crop, flip, colours; then placed on the canvas. One resampling, and colours change on the small image."""
        assert self.transforms is not None
        piece, corners, kept = scale_and_crop(image, corners, self.image_size, self.transforms, rng)
        if self._pixels is None:
            self._pixels = pixel_changes(self.transforms)
        self._pixels.set_random_seed(int(rng.integers(2**31)))
        piece = self._pixels(image=piece)["image"]
        if rng.random() < self.transforms.flip:
            piece = np.ascontiguousarray(piece[:, ::-1])
            corners[:, [0, 2]] = piece.shape[1] - corners[:, [2, 0]]
        canvas = blank(self.image_size)
        height, width = piece.shape[:2]
        still = self.transforms.scale == (1.0, 1.0)
        top = 0 if still else int(rng.integers(self.image_size - height + 1))
        left = 0 if still else int(rng.integers(self.image_size - width + 1))
        canvas[top : top + height, left : left + width] = piece
        return canvas, corners + np.array([left, top, left, top]), classes[kept]


def scale_and_crop(
    image: NDArray[np.uint8],
    corners: NDArray[np.float64],
    size: int,
    transforms: TransformParams,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
    """Scale an image at random against its letterboxed size and cut out what fits into ``(size, size)``, as EfficientDet's jitter does.

    The cut goes through a box taken at random, so that zooming in does not mean looking at nothing. Boxes are
    cut with the image; one that keeps less than ``min_visibility`` of its area goes. Returns the piece, its
    boxes ``(x0, y0, x1, y1)``, and which were kept.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width) * math.exp(rng.uniform(*np.log(transforms.scale)))
    taken_width, taken_height = min(width, size / scale), min(height, size / scale)
    left, top = rng.uniform(0, width - taken_width), rng.uniform(0, height - taken_height)
    if len(corners):
        x0, y0, x1, y1 = corners[rng.integers(len(corners))]
        focus_x, focus_y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        left = float(np.clip(left, focus_x - taken_width, focus_x).clip(0, width - taken_width))
        top = float(np.clip(top, focus_y - taken_height, focus_y).clip(0, height - taken_height))
    first_x, first_y = int(left), int(top)
    last_x, last_y = min(width, math.ceil(left + taken_width)), min(height, math.ceil(top + taken_height))
    cut = image[first_y:last_y, first_x:last_x]
    to_width, to_height = (
        min(size, max(1, round(cut.shape[1] * scale))),
        min(size, max(1, round(cut.shape[0] * scale))),
    )
    exactly = np.array(
        [to_width / cut.shape[1], to_height / cut.shape[0]] * 2
    )  # after rounding to whole pixels
    moved = (corners - [first_x, first_y, first_x, first_y]) * exactly
    clipped = moved.clip(0, [to_width, to_height, to_width, to_height])
    kept = _area(clipped) >= transforms.min_visibility * _area(moved)
    return resize(cut, to_width, to_height), clipped[kept], kept


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return (corners[:, 2:] - corners[:, :2]).prod(axis=1)  # type: ignore[no-any-return]


def pixel_changes(transforms: TransformParams) -> Any:
    """Changes of brightness, contrast, hue and saturation: an albumentations pipeline."""
    import albumentations as A  # noqa: N812 - its name everywhere

    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=0.25, contrast_limit=0.25, p=transforms.colour),
            A.HueSaturationValue(
                hue_shift_limit=8, sat_shift_limit=30, val_shift_limit=0, p=transforms.colour / 2
            ),
        ]
    )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; boxes are padded with zeros, their classes with -1."""
    most = max(len(s.boxes) for s in samples)
    padded = max(PADDED_TO, math.ceil(most / PADDED_TO) * PADDED_TO)
    boxes = np.zeros((len(samples), padded, 4), np.float32)
    classes = np.full((len(samples), padded), -1, np.int64)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.boxes)] = sample.boxes[:, [1, 0, 3, 2]]
        classes[row, : len(sample.classes)] = sample.classes
    return Batch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        boxes=torch.from_numpy(boxes),
        classes=torch.from_numpy(classes),
        frame=torch.tensor([s.frame for s in samples]),
        scale=torch.tensor([s.scale for s in samples], dtype=torch.float64),
    )


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)  # as many workers as cores already; and OpenCV's thread pool does not survive a fork


def worker_count(wanted: int | None, batch_size: int, image_size: int, share: int = 1) -> int:
    """Worker processes: all cores this process may use, over ``share`` processes; fewer, with a notice, where shared memory is short."""
    if wanted == 0:
        return 0
    workers = wanted or max(1, len(os.sched_getaffinity(0)) // share)
    room = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else math.inf
    fits = int(min(workers, room / share // (PREFETCH * batch_size * image_size**2 * 3)))
    if fits < workers:
        log.warning(
            f"/dev/shm has room for {fits} of {workers} loader processes; give the container more (docker run --shm-size)."
        )
    return fits


def make_loader(
    frames: Frames,
    params: EfficientDetParams,
    seed: int,
    *,
    training: bool,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> "DataLoader[Sample]":
    """Batches of one split: shuffled and changed for training, letterboxed and in order for validation."""
    workers = worker_count(
        params.workers, params.batch_size, params.image_size, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    )
    sampler = Shuffled(len(frames), seed, rank, world, shuffle=training)
    return DataLoader(
        Samples(frames, params.image_size, seed, params.transforms if training else None),
        batch_size=params.batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_one_thread,
        pin_memory=pin,
        drop_last=training and len(sampler) >= params.batch_size,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
    )
