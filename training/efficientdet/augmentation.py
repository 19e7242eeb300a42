"""Random changes of a training image and its boxes: scale and crop, flip, colours, position on the canvas."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.efficientdet.params import TransformParams
from trashnet.letterbox import blank_canvas, resize


class Augmentation:
    """The random changes that ``transforms`` ask for, to images of ``size`` pixels.

    The image is resampled only once, and its colours change after it has become small.
    """

    def __init__(self, transforms: TransformParams, size: int) -> None:
        self.transforms, self.size = transforms, size
        self._colour_jitter: Any = None  # made in the process that needs it

    def __call__(
        self, image: NDArray[np.uint8], corners: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
        """Change an image and its boxes at random.

        Args:
            image: RGB, uint8 ``(height, width, 3)``.
            corners: ``(N, 4)``, (x0, y0, x1, y1) in pixels of the image.
            rng: The source of every random choice.

        Returns:
            The image, uint8 ``(size, size, 3)``; the boxes kept, ``(K, 4)``, (x0, y0, x1, y1) in its pixels;
            and which boxes were kept, bool ``(N,)``.
        """
        image, corners, kept = random_scale_and_crop(image, corners, self.size, self.transforms, rng)
        if self._colour_jitter is None:
            self._colour_jitter = make_colour_jitter(self.transforms)
        self._colour_jitter.set_random_seed(int(rng.integers(2**31)))
        image = self._colour_jitter(image=image)["image"]
        if rng.random() < self.transforms.flip:
            image = np.ascontiguousarray(image[:, ::-1])
            corners[:, [0, 2]] = image.shape[1] - corners[:, [2, 0]]
        canvas = blank_canvas(self.size)
        height, width = image.shape[:2]
        fixed = self.transforms.scale == (1.0, 1.0)
        top = 0 if fixed else int(rng.integers(self.size - height + 1))
        left = 0 if fixed else int(rng.integers(self.size - width + 1))
        canvas[top : top + height, left : left + width] = image
        return canvas, corners + np.array([left, top, left, top]), kept


def random_scale_and_crop(
    image: NDArray[np.uint8],
    corners: NDArray[np.float64],
    size: int,
    transforms: TransformParams,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
    """Scale an image at random and crop what fits into the input, as EfficientDet's jitter does.

    The scale is relative to the letterboxed image. The crop goes through a randomly chosen box, so that
    zooming in does not show nothing. Boxes are clipped to the crop; one that keeps less than
    ``min_visibility`` of its area is dropped.

    Args:
        image: RGB, uint8 ``(height, width, 3)``.
        corners: ``(N, 4)``, (x0, y0, x1, y1) in pixels of the image.
        size: The side of the network's input in pixels.
        transforms: The range of scales and the visibility.
        rng: The source of every random choice.

    Returns:
        The crop, uint8 ``(h, w, 3)`` with both sides at most ``size``; the boxes kept, ``(K, 4)``,
        (x0, y0, x1, y1) in its pixels; and which boxes were kept, bool ``(N,)``.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width) * math.exp(rng.uniform(*np.log(transforms.scale)))
    crop_width, crop_height = min(width, size / scale), min(height, size / scale)
    left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
    if len(corners):
        x0, y0, x1, y1 = corners[rng.integers(len(corners))]
        focus_x, focus_y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        left = float(np.clip(left, focus_x - crop_width, focus_x).clip(0, width - crop_width))
        top = float(np.clip(top, focus_y - crop_height, focus_y).clip(0, height - crop_height))
    first_x, first_y = int(left), int(top)
    last_x, last_y = min(width, math.ceil(left + crop_width)), min(height, math.ceil(top + crop_height))
    crop = image[first_y:last_y, first_x:last_x]
    new_width = min(size, max(1, round(crop.shape[1] * scale)))
    new_height = min(size, max(1, round(crop.shape[0] * scale)))
    # The exact factors after rounding to whole pixels.
    factors = np.array([new_width / crop.shape[1], new_height / crop.shape[0]] * 2)
    moved = (corners - [first_x, first_y, first_x, first_y]) * factors
    clipped = moved.clip(0, [new_width, new_height, new_width, new_height])
    kept = _area(clipped) >= transforms.min_visibility * _area(moved)
    return resize(crop, new_width, new_height), clipped[kept], kept


def make_colour_jitter(transforms: TransformParams) -> Any:
    """Random brightness, contrast, hue and saturation: an albumentations pipeline."""
    import albumentations as A  # noqa: N812 - its name everywhere

    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=0.25, contrast_limit=0.25, p=transforms.colour),
            A.HueSaturationValue(
                hue_shift_limit=8, sat_shift_limit=30, val_shift_limit=0, p=transforms.colour / 2
            ),
        ]
    )


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return (corners[:, 2:] - corners[:, :2]).prod(axis=1)  # type: ignore[no-any-return]
