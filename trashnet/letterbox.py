"""Fit an image into a model's square input without distortion: scaled, top left, the rest filled."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILL = (124, 116, 104)  # ImageNet's mean as a pixel, so that padding is about 0 to the model


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize an image.

    Linear down to half a side, which still samples every pixel; averaged (slower) when shrinking further.

    Args:
        image: uint8 ``(h, w, 3)``.
        width: The new width in pixels.
        height: The new height in pixels.

    Returns:
        uint8 ``(height, width, 3)``; the image itself if it has that size already.
    """
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if 4 * width * height < image.shape[0] * image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)  # type: ignore[return-value]


def letterbox(
    image: NDArray[np.uint8], size: int, fill: tuple[int, int, int] = FILL
) -> tuple[NDArray[np.uint8], float]:
    """Scale an image so that its longer side is ``size``, put it at the top left and fill the rest.

    The validation during training and the exported detector both call this, so that a model is judged on what
    it was trained on.

    Args:
        image: RGB, uint8 ``(h, w, 3)``.
        size: The side of the result in pixels.
        fill: The colour of the rest, RGB.

    Returns:
        uint8 ``(size, size, 3)``, and the factor from a coordinate of the image to one of the result.

    >>> letterboxed, scale = letterbox(np.zeros((50, 100, 3), np.uint8), 128)
    >>> letterboxed.shape, scale, letterboxed[64, 0].tolist()
    ((128, 128, 3), 1.28, [124, 116, 104])
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    scaled_width, scaled_height = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = blank_canvas(size, fill)
    canvas[:scaled_height, :scaled_width] = resize(image, scaled_width, scaled_height)
    return canvas, scale


def blank_canvas(size: int, fill: tuple[int, int, int] = FILL) -> NDArray[np.uint8]:
    """A canvas of one colour, uint8 ``(size, size, 3)``."""
    return _cached_canvas(size, fill).copy()


@lru_cache(maxsize=4)
def _cached_canvas(size: int, fill: tuple[int, int, int]) -> NDArray[np.uint8]:
    # A copy is ten times as fast as filling a canvas: NumPy repeats three bytes slowly.
    return np.full((size, size, 3), fill, np.uint8)
