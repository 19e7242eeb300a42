"""The parts of the gate set in which nobody may get worse: classes, streams, tails of streams, bins.

An item of a stream, a tail or a bin counts as right if it is sorted into its stream. An item of a class
counts as right if it is recognised as that class: one that is missed, or taken for another class of its
stream, may arrive where it belongs all the same, and a class that a model no longer knows would go unnoticed.
The test of harm counts a class by both (:func:`ways_to_count`) and names the one that lost more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.gate.outcomes import GateFrames


@dataclass(frozen=True)
class GateSlice:
    """``kind``: class, stream, tail or bin; ``items``: bool ``(N,)``, which items are of it."""

    kind: str
    name: str
    items: NDArray[np.bool_]


class ItemOutcomes(Protocol):
    """What became of items; see :class:`evaluation.gate.outcomes.ModelOutcomes`."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each item was sorted into its own stream, ``(N,)``."""
        ...

    @property
    def recognised(self) -> NDArray[np.bool_]:
        """Whether each item was detected as its own class, ``(N,)``."""
        ...


def successes(model: ItemOutcomes, kind: str) -> NDArray[np.bool_]:
    """Which items, of all, a model gets right as slices of this kind count, bool ``(N,)``."""
    return model.recognised if kind == "class" else model.right


def gains(champion: ItemOutcomes, challenger: ItemOutcomes, kind: str) -> NDArray[np.int64]:
    """1 where only the challenger gets an item right, -1 where only the champion does, ``(N,)``."""
    return successes(challenger, kind).astype(np.int64) - successes(champion, kind)


def ways_to_count(kind: str) -> tuple[str, ...]:
    """The kinds as which harm counts a slice of this kind: a class by both, so that neither loss hides."""
    return ("class", "stream") if kind == "class" else (kind,)


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
