"""Fit an image into a model's square input without bending it: scaled, top left, the rest filled."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILL = (124, 116, 104)  # ImageNet's mean as a pixel, so that padding is about 0 to the model


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize to ``(height, width, 3)``: linear down to a half, which still sees every pixel; averaged (slower) when shrinking further."""
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if 4 * width * height < image.shape[0] * image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)  # type: ignore[return-value]


def letterbox(
    image: NDArray[np.uint8], size: int, fill: tuple[int, int, int] = FILL
) -> tuple[NDArray[np.uint8], float]:
    """Scale an RGB image so that its longer side is ``size``, put it at the top left and fill the rest.

    Returns uint8 ``(size, size, 3)`` and the factor that takes a coordinate of the image to one of the
    result. Training's validation and the exported detector both call this, so that what is judged sees what
    was trained.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    fitted_width, fitted_height = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = blank(size, fill)
    canvas[:fitted_height, :fitted_width] = resize(image, fitted_width, fitted_height)
    return canvas, scale


def blank(size: int, fill: tuple[int, int, int] = FILL) -> NDArray[np.uint8]:
    """A canvas of one colour, uint8 ``(size, size, 3)``."""
    return _blank(size, fill).copy()


@lru_cache(maxsize=4)
def _blank(size: int, fill: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Copying one is ten times as fast as filling it: numpy repeats three bytes slowly."""
    return np.full((size, size, 3), fill, np.uint8)
