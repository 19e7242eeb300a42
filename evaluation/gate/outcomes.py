"""What two models did on the same frames, matched once: all that the gate's tests read."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.params import EvaluationParams
from evaluation.resamples import match_as_coco
from evaluation.sorting_accuracy import match_items
from evaluation.utility import frame_utilities, item_outcomes, recognised_items
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True)
class GateFrames:
    """The frames of the gate set and what lies on them: the half that both models share.

    ``group``, ``bin``: int64 ``(F,)``, groups numbered as they first appear, bins by their position in
    ``bin_names``, -1 where nobody knows; ``item_frame``, ``item_class``: int64 ``(N,)``, positions of each
    item's frame and class, crowds left out; ``class_stream``: int64 ``(K,)``, each class's position in
    ``stream_names``.
    """

    group: NDArray[np.int64]
    bin: NDArray[np.int64]
    item_frame: NDArray[np.int64]
    item_class: NDArray[np.int64]
    bin_names: tuple[str, ...]
    class_names: tuple[str, ...]
    class_stream: NDArray[np.int64]
    stream_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.group)

    @cached_property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    @cached_property
    def item_group(self) -> NDArray[np.int64]:
        """Each item's group, ``(N,)``."""
        return self.group[self.item_frame]

    @cached_property
    def class_boxes(self) -> NDArray[np.int64]:
        """Items of each class, ``(K,)``."""
        return np.bincount(self.item_class, minlength=len(self.class_names)).astype(np.int64)

    @cached_property
    def frame_items(self) -> NDArray[np.int64]:
        """Items on each frame, ``(F,)``."""
        return np.bincount(self.item_frame, minlength=len(self)).astype(np.int64)

    def group_sums(self, per_frame: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Sums over each group's frames, ``(G,)``."""
        return np.bincount(self.group, per_frame, minlength=self.groups).astype(np.float64)


@dataclass(frozen=True)
class ScoredDetections:
    """One model's detections as average precision at IoU 0.5 reads them, those to ignore left out.

    ``frame``, ``class_index``: int64 ``(M,)``; ``score``: float64 ``(M,)``; ``hit``: bool ``(M,)``, whether
    it is a true positive by COCO's rules. Equal scores count in the order given.
    """

    frame: NDArray[np.int64]
    class_index: NDArray[np.int64]
    score: NDArray[np.float64]
    hit: NDArray[np.bool_]


@dataclass(frozen=True)
class ModelOutcomes:
    """What one model did.

    ``utility``: float64 ``(F,)``, summed over each frame's items and false detections; ``right``: bool
    ``(N,)``, whether each item was sorted into its own stream; ``recognised``: bool ``(N,)``, whether it was
    detected as its own class.
    """

    utility: NDArray[np.float64]
    right: NDArray[np.bool_]
    recognised: NDArray[np.bool_]
    detections: ScoredDetections


@dataclass(frozen=True)
class PairedOutcomes:
    """Champion and challenger on the same frames.

    ``step``: what a frame's utility loses when an item that was right goes wrong (1 + the cost of a wrong
    one).
    """

    frames: GateFrames
    champion: ModelOutcomes
    challenger: ModelOutcomes
    step: float

    def __post_init__(self) -> None:
        for name, model in (("champion", self.champion), ("challenger", self.challenger)):
            _check_shapes(self.frames, model, name)

    def swapped(self) -> "PairedOutcomes":
        """The same comparison with the roles exchanged."""
        return PairedOutcomes(self.frames, self.challenger, self.champion, self.step)

    @cached_property
    def utility_gain(self) -> NDArray[np.float64]:
        """The challenger's utility minus the champion's, per frame, ``(F,)``."""
        return self.challenger.utility - self.champion.utility

    @cached_property
    def right_gain(self) -> NDArray[np.int64]:
        """1 where only the challenger sorts an item right, -1 where only the champion does, ``(N,)``."""
        return self.challenger.right.astype(np.int64) - self.champion.right


def gate_frames(
    truth: GroundTruth, taxonomy: Taxonomy, groups: Sequence[Hashable], bins: Sequence[str | None]
) -> GateFrames:
    """The shared half of a comparison.

    ``groups``, ``bins``: of each of ``truth.images``, in their order; a bin is ``None`` where nobody
    knows it. Raises :class:`UserError` where these lists are not as long as the images, or a label's
    class is unknown.
    """
    if not len(groups) == len(bins) == len(truth.images):
        raise UserError(
            f"the gate set has {len(truth.images)} frames, but groups of {len(groups)} and bins of "
            f"{len(bins)}; every frame needs both"
        )
    if len(truth) and not 1 <= truth.class_ids.min() <= truth.class_ids.max() <= len(taxonomy.classes):
        raise UserError(
            f"the gate set has a label of class {truth.class_ids.max()}, but taxonomy.yaml has "
            f"{len(taxonomy.classes)} classes; judge with the taxonomy that the frames were labelled with"
        )
    number: dict[Hashable, int] = {}
    bin_names = tuple(dict.fromkeys(name for name in bins if name is not None))
    streams = tuple(taxonomy.streams)
    items = ~truth.crowd
    return GateFrames(
        group=np.array([number.setdefault(group, len(number)) for group in groups], np.int64),
        bin=np.array([-1 if b is None else bin_names.index(b) for b in bins], np.int64),
        item_frame=truth.image[items],
        item_class=truth.class_ids[items] - 1,
        bin_names=bin_names,
        class_names=taxonomy.names,
        class_stream=np.array([streams.index(c.stream) for c in taxonomy.classes], np.int64),
        stream_names=streams,
    )


def model_outcomes(
    frames: GateFrames,
    truth: GroundTruth,
    predictions: Predictions,
    sort_score: float,
    taxonomy: Taxonomy,
    params: EvaluationParams,
) -> ModelOutcomes:
    """Match one model's predictions, for sorting and for average precision.

    ``frames`` must come from ``truth``. Detections from ``sort_score`` on sort items. Raises ``ValueError``
    if truth, predictions and frames do not speak of the same images.
    """
    if truth.images != predictions.images:
        raise ValueError("ground truth and predictions speak of different images")
    acted_on = predictions.above(sort_score)
    matches = match_items(truth, acted_on)
    items = item_outcomes(truth, acted_on, matches, taxonomy)
    outcomes = ModelOutcomes(
        frame_utilities(truth, acted_on, matches, taxonomy, params),
        items.right[items.item],
        recognised_items(truth, acted_on, matches)[items.item],
        scored_detections(truth, predictions, len(taxonomy.classes)),
    )
    _check_shapes(frames, outcomes, "model")
    return outcomes


def scored_detections(truth: GroundTruth, predictions: Predictions, classes: int) -> ScoredDetections:
    """What AP50 reads of a model's detections of the classes 1 to ``classes``."""
    matches = match_as_coco(truth, predictions, np.arange(1, classes + 1))
    counted = ~matches.ignored[0]  # at IoU 0.5
    rows = matches.rows[counted]
    return ScoredDetections(
        predictions.image[rows],
        predictions.class_ids[rows] - 1,
        predictions.scores[rows],
        matches.hit[0][counted],
    )


def _check_shapes(frames: GateFrames, model: ModelOutcomes, name: str) -> None:
    of_items = {model.right.shape, model.recognised.shape}
    if model.utility.shape != frames.group.shape or of_items != {frames.item_frame.shape}:
        raise ValueError(
            f"the {name} has utilities of {len(model.utility)} frames and outcomes of {len(model.right)} "
            f"and {len(model.recognised)} items, but the gate set has {len(frames)} frames and "
            f"{len(frames.item_frame)} items"
        )
