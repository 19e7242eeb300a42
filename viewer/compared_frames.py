"""Champion and challenger on the same frames, item by item: what the challenger loses and what it wins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataset import Frames
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.gate import GateFrames, gate_frames
from evaluation.gate.slices import GateSlice, gate_slices, successes
from evaluation.sorting_accuracy import UNMATCHED, Matches, match_items
from evaluation.utility import item_outcomes, recognised_items
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy

Order = Literal["most difference first", "most lost first", "most won first", "as stored"]
ORDERS: tuple[Order, ...] = ("most difference first", "most lost first", "most won first", "as stored")


@dataclass(frozen=True)
class GateFrameLabels:
    """The frames of a gate set with their labels, and the items on them, crowds left out."""

    frames: Frames
    truth: GroundTruth
    shared: GateFrames

    @classmethod
    def collect(cls, frames: Frames, taxonomy: Taxonomy) -> "GateFrameLabels":
        """Read the labels of all frames; no image is read."""
        truth = GroundTruth.from_frames(frames)
        rows = [frames[i] for i in range(len(frames))]
        return cls(
            frames, truth, gate_frames(truth, taxonomy, [r.group for r in rows], [r.bin_id for r in rows])
        )

    def slices(self, class_boxes: int) -> list[GateSlice]:
        """Classes, streams, tails of streams and bins, as the gate tests them."""
        return list(gate_slices(self.shared, class_boxes))


@dataclass(frozen=True)
class ModelOnFrames:
    """What a bin with this model does on the frames.

    Attributes:
        sort_score: Only detections from this score on count.
        acted: The detections that count.
        detection: int64 ``(N,)``, per item the row of its detection in ``acted``, -1 if it is missed.
        right: bool ``(N,)``, whether each item arrives in its stream, by a detection or by default.
        recognised: bool ``(N,)``, whether each item is detected as its own class.
        false: int64 ``(F,)``, false detections per frame.
    """

    sort_score: float
    acted: Predictions
    detection: NDArray[np.int64]
    right: NDArray[np.bool_]
    recognised: NDArray[np.bool_]
    false: NDArray[np.int64]

    @classmethod
    def match(
        cls, labels: GateFrameLabels, predictions: Predictions, sort_score: float, taxonomy: Taxonomy
    ) -> "ModelOnFrames":
        """Match a model's predictions with the items."""
        acted = predictions.above(sort_score)
        matches: Matches = match_items(labels.truth, acted)
        items = item_outcomes(labels.truth, acted, matches, taxonomy)
        false = acted.image[matches.item_indices == UNMATCHED]
        return cls(
            sort_score,
            acted,
            matches.detection_indices[items.item],
            items.right[items.item],
            recognised_items(labels.truth, acted, matches)[items.item],
            np.bincount(false, minlength=len(labels.truth.images)).astype(np.int64),
        )

    def detections(self, position: int) -> Detections:
        """The detections that count on one frame."""
        rows = slice(*self.acted.offsets[position : position + 2])
        return Detections(
            self.acted.boxes[rows].astype(np.float32),
            self.acted.class_ids[rows],
            self.acted.scores[rows].astype(np.float32),
        )


@dataclass(frozen=True)
class ComparedFrames:
    """A challenger beside a rival; without a rival an item counts as lost where it is not right.

    What is right depends on the slice that one looks at (:mod:`evaluation.gate.slices`); without one an item
    is right that arrives in its stream.
    """

    labels: GateFrameLabels
    rival: ModelOnFrames | None
    challenger: ModelOnFrames

    def lost(self, part: GateSlice | None = None) -> NDArray[np.bool_]:
        """Items of a slice, or of all, that only the rival gets right, ``(N,)``."""
        return self._only(self.rival, self.challenger, part)

    def won(self, part: GateSlice | None = None) -> NDArray[np.bool_]:
        """Items of a slice, or of all, that only the challenger gets right, ``(N,)``."""
        if self.rival is None:
            return np.zeros(len(self.challenger.right), np.bool_)
        return self._only(self.challenger, self.rival, part)

    def items(self, part: GateSlice | None = None) -> NDArray[np.bool_]:
        """Items of a slice, or all, ``(N,)``."""
        return np.ones(len(self.challenger.right), np.bool_) if part is None else part.items

    def _only(
        self, one: ModelOnFrames | None, other: ModelOnFrames, part: GateSlice | None
    ) -> NDArray[np.bool_]:
        kind = "" if part is None else part.kind
        others: NDArray[np.bool_] = self.items(part) & ~successes(other, kind)
        return others if one is None else others & successes(one, kind)

    def per_frame(self, items: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many of these items each frame has, ``(F,)``."""
        return np.bincount(
            self.labels.shared.item_frame[items], minlength=len(self.labels.truth.images)
        ).astype(np.int64)

    def order(self, order: Order, part: GateSlice | None = None) -> NDArray[np.int64]:
        """Positions of the frames that have an item of a slice (all frames for ``None``), in this order.

        Only the slice's items count in the order. Where as many differ, more false detections of one model
        than of the other come first, then frames stand as stored.
        """
        lost, won = self.per_frame(self.lost(part)), self.per_frame(self.won(part))
        has = np.ones(len(lost), np.bool_) if part is None else self.per_frame(part.items) > 0
        positions = np.flatnonzero(has)
        if order == "as stored":
            return positions
        keys = {"most difference first": lost + won, "most lost first": lost, "most won first": won}
        false = self.challenger.false - (0 if self.rival is None else self.rival.false)
        sign = -1 if order == "most won first" else 1
        tie = np.abs(false) if order == "most difference first" else sign * false
        ranks = np.lexsort((positions, -tie[positions], -keys[order][positions]))
        return np.asarray(positions[ranks], np.int64)

    def item_rows(self, position: int, taxonomy: Taxonomy) -> list[dict[str, str]]:
        """The items of one frame as rows: where each belongs, where each model sends it, and what changed."""
        shared = self.labels.shared
        rows = []
        for item in np.flatnonzero(shared.item_frame == position):
            class_id = int(shared.item_class[item]) + 1
            row = {"Item": taxonomy.name_of[class_id], "Belongs to": taxonomy.stream_of[class_id]}
            if self.rival is not None:
                row["Champion"] = _destination(self.rival, item, taxonomy)
            row["Challenger"] = _destination(self.challenger, item, taxonomy)
            rows.append(row | {"Change": self._change(item)})
        return rows

    def _change(self, item: np.int64) -> str:
        if self.lost()[item]:
            return "lost" if self.rival is not None else "not right"
        if self.won()[item]:
            return "won"
        return (
            "both right"
            if self.rival is not None and self.challenger.right[item]
            else ("right" if self.challenger.right[item] else "neither right")
        )


def _destination(model: ModelOnFrames, item: np.int64, taxonomy: Taxonomy) -> str:
    row = int(model.detection[item])
    if row < 0:
        return f"{taxonomy.default_stream or 'nowhere'} · not seen"
    class_id, score = int(model.acted.class_ids[row]), float(model.acted.scores[row])
    return f"{taxonomy.stream_of[class_id]} · {taxonomy.name_of[class_id]} {score:.2f}"


def most_lost(compared: ComparedFrames, part: GateSlice, count: int) -> Sequence[int]:
    """Positions of the frames that lose most items of a slice, at most ``count``; none that loses nothing."""
    lost = compared.per_frame(compared.lost(part))
    return [int(i) for i in np.argsort(-lost, kind="stable")[:count] if lost[i]]
