"""The parts of the gate set in which nobody may get worse: classes, streams, tails of streams, bins."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.gate.outcomes import GateFrames


@dataclass(frozen=True)
class GateSlice:
    """``kind``: class, stream, tail or bin; ``items``: bool ``(N,)``, which items are of it."""

    kind: str
    name: str
    items: NDArray[np.bool_]


def gate_slices(frames: GateFrames, class_boxes: int) -> Iterator[GateSlice]:
    """Every slice that has an item.

    A class with at least ``class_boxes`` boxes stands for itself and is out of its stream's tail, which pools
    the rarer ones.
    """
    boxes = frames.class_boxes
    stream = frames.class_stream[frames.item_class]
    rare = (boxes < class_boxes)[frames.item_class]
    for index in np.flatnonzero(boxes):
        yield GateSlice("class", frames.class_names[index], frames.item_class == index)
    for index, name in enumerate(frames.stream_names):
        if (stream == index).any():
            yield GateSlice("stream", name, stream == index)
        if (rare & (stream == index)).any():
            yield GateSlice("tail", name, rare & (stream == index))
    item_bin = frames.bin[frames.item_frame]
    for index, name in enumerate(frames.bin_names):
        if (item_bin == index).any():
            yield GateSlice("bin", name, item_bin == index)
