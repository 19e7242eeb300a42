"""The default boxes of SSD and the box coder, in numpy: pure geometry, no framework.

All coordinates are normalised to [0, 1] and ordered y before x, as the TensorFlow Object Detection API and
the post-processing operator of TFLite have them; elsewhere in the house boxes are ``(x, y, w, h)`` in pixels.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

MIN_SCALE, MAX_SCALE, MAPS = 0.2, 0.95, 6
ASPECT_RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)  # width / height
BOX_SCALES = (
    10.0,
    10.0,
    5.0,
    5.0,
)  # of ty, tx, th, tw (Ren et al. 2015, as the inverse "variances" of Liu et al. 2016)


def box_shapes(level: int) -> list[tuple[float, float]]:
    """``(scale, aspect ratio)`` of every anchor on one of the six maps, finest first (``create_ssd_anchors`` of the OD API).

    The finest map has three ("reduce_boxes_in_lowest_layer"): a square of scale 0.1 and two of scale 0.2.
    Every other map has the five aspect ratios, and one square whose scale lies between this map's and the
    next (Liu et al. 2016, arXiv:1512.02325, section 2.2).
    """
    scales = [MIN_SCALE + (MAX_SCALE - MIN_SCALE) * i / (MAPS - 1) for i in range(MAPS)] + [1.0]
    scale = scales[level]
    if level == 0:
        return [(0.1, 1.0), (scale, 2.0), (scale, 1 / 2)]
    return [(scale, ratio) for ratio in ASPECT_RATIOS] + [(sqrt(scale * scales[level + 1]), 1.0)]


def anchors_per_cell(level: int) -> int:
    """3 on the finest map, 6 on every other."""
    return len(box_shapes(level))


def map_sizes(image_size: int) -> list[int]:
    """Sides of the six feature maps, finest first: strides 16 and 32, then halved, rounding up (300 -> 19, 10, 5, 3, 2, 1)."""
    side = image_size
    sides = []
    for halving in range(9):
        side = -(-side // 2)
        if halving >= 3:
            sides.append(side)
    return sides


def make_anchors(sides: Sequence[int]) -> NDArray[np.float32]:
    """All anchors, float32 ``(N, 4)``: centre y, centre x, height, width; not clipped to the image.

    In the order in which a convolution's output reads when it is flattened: map, row, column, anchor of the
    cell. 300 px give 1,917.
    """
    grids = []
    for level, side in enumerate(sides):
        shapes = box_shapes(level)
        size = np.array([(scale / sqrt(ratio), scale * sqrt(ratio)) for scale, ratio in shapes])
        centre = (np.arange(side) + 0.5) / side
        grid = np.empty((side, side, len(shapes), 4))
        grid[..., 0] = centre[:, None, None]
        grid[..., 1] = centre[None, :, None]
        grid[..., 2:] = size
        grids.append(grid.reshape(-1, 4))
    return np.concatenate(grids).astype(np.float32)


def corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(..., 4)`` from (centre y, centre x, height, width) to (y0, x0, y1, x1)."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def decode(encodings: NDArray[np.float32], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes ``(..., N, 4)`` as (y0, x0, y1, x1) from what the network says of each anchor; the inverse of ``loss.encode``."""
    scaled = encodings / np.asarray(BOX_SCALES, np.float32)
    centre = scaled[..., :2] * anchors[:, 2:] + anchors[:, :2]
    return corners(np.concatenate([centre, np.exp(scaled[..., 2:]) * anchors[:, 2:]], axis=-1))
