"""The anchors of SSD (its paper calls them default boxes), in NumPy: pure geometry, no framework.

Coordinates are normalised to [0, 1] and ordered y before x, as in the TensorFlow Object Detection API and in
the post-processing operator of TFLite. In the rest of the project boxes are ``(x, y, w, h)`` in pixels.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

NUM_LEVELS = 6  # feature maps that have anchors
MIN_SCALE, MAX_SCALE = 0.2, 0.95
ASPECT_RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)  # width / height
# Of ty, tx, th, tw (Ren et al. 2015; the inverse of the "variances" of Liu et al. 2016).
BOX_SCALES = (10.0, 10.0, 5.0, 5.0)


def anchor_shapes(level: int) -> list[tuple[float, float]]:
    """The anchors of one cell, as ``create_ssd_anchors`` of the Object Detection API defines them.

    The finest feature map has three ("reduce_boxes_in_lowest_layer"): a square of scale 0.1 and two of scale
    0.2. Every other map has one per aspect ratio, and a square whose scale lies between those of this map and
    the next (Liu et al. 2016, arXiv:1512.02325, section 2.2).

    Args:
        level: Index of the feature map, 0 for the finest.

    Returns:
        ``(scale, aspect ratio)`` of each anchor.
    """
    scales = [MIN_SCALE + (MAX_SCALE - MIN_SCALE) * i / (NUM_LEVELS - 1) for i in range(NUM_LEVELS)] + [1.0]
    scale = scales[level]
    if level == 0:
        return [(0.1, 1.0), (scale, 2.0), (scale, 1 / 2)]
    return [(scale, ratio) for ratio in ASPECT_RATIOS] + [(sqrt(scale * scales[level + 1]), 1.0)]


def anchors_per_cell(level: int) -> int:
    """Number of anchors at each cell of a feature map.

    >>> [anchors_per_cell(level) for level in range(NUM_LEVELS)]
    [3, 6, 6, 6, 6, 6]
    """
    return len(anchor_shapes(level))


def feature_map_sizes(image_size: int) -> list[int]:
    """Sides of the feature maps in cells, finest first: strides 16 and 32, then halved, rounded up each time.

    >>> feature_map_sizes(300)
    [19, 10, 5, 3, 2, 1]
    """
    side = image_size
    sides = []
    for halving in range(3 + NUM_LEVELS):
        side = -(-side // 2)
        if halving >= 3:
            sides.append(side)
    return sides


def make_anchors(map_sizes: Sequence[int]) -> NDArray[np.float32]:
    """All anchors, not clipped to the image; 1,917 for 300 pixels.

    Args:
        map_sizes: Sides of the feature maps in cells, finest first.

    Returns:
        float32 ``(N, 4)``: centre y, centre x, height, width in [0, 1]; ordered by feature map, row, column
        and anchor of the cell, as a flattened convolution output is.
    """
    grids = []
    for level, side in enumerate(map_sizes):
        shapes = anchor_shapes(level)
        size = np.array([(scale / sqrt(ratio), scale * sqrt(ratio)) for scale, ratio in shapes])
        centre = (np.arange(side) + 0.5) / side
        grid = np.empty((side, side, len(shapes), 4))
        grid[..., 0] = centre[:, None, None]
        grid[..., 1] = centre[None, :, None]
        grid[..., 2:] = size
        grids.append(grid.reshape(-1, 4))
    return np.concatenate(grids).astype(np.float32)


def to_corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(..., 4)`` boxes (centre y, centre x, height, width) as corners (y0, x0, y1, x1), same unit."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)
