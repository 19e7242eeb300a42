"""Two models' outcomes as a fleet would give them, with a known difference: for the gate's error rates.

57 classes with 3 to 200 boxes in four streams, items that a burst shows from several sides, and two models
that agree on most of them. What a model gets wrong in one view of an item it mostly gets wrong in the others
too, so outcomes, and differences of outcomes, depend on each other within a group.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from evaluation.gate import GateFrames, ModelOutcomes, PairedOutcomes, ScoredDetections

WRONG_COST, FALSE_COST = 1.0, 0.5
BINS = 12
STREAMS = ("recycling", "organics", "landfill", "special")


@dataclass(frozen=True)
class FleetShape:
    """The gate set's size. ``views``: how often a group has 1, 2, 3, 4 frames of its scene."""

    groups: int = 300
    classes: int = 57
    smallest_class: int = 3
    largest_class: int = 200
    scale: float = 1.0  # of all classes' boxes
    views: tuple[float, ...] = (0.5, 0.25, 0.15, 0.1)
    background: float = 1.0  # false detections in a frame, most of which score little

    @property
    def class_boxes(self) -> NDArray[np.int64]:
        """Boxes of each class, the commonest first, ``(classes,)``."""
        boxes = np.geomspace(self.largest_class, self.smallest_class, self.classes)
        return np.maximum(np.rint(boxes * self.scale), 1).astype(np.int64)


@dataclass(frozen=True)
class Difference:
    """What the challenger is worse by: shares of items sorted right, of all and of single classes.

    ``churn``: standard deviation of each class's own true gain, which is zero on average over classes.
    """

    overall: float = 0.0
    classes: dict[int, float] = field(default_factory=dict)
    churn: float = 0.0


@dataclass(frozen=True)
class Dependence:
    """Shares of the variance behind "is it right?", which add up to less than 1.

    ``box``: of a box, for both models; ``instance``: of an item in all its views, for both; ``own_instance``:
    likewise, of one model alone; ``own_group``: of a whole group, of one model alone.
    """

    box: float = 0.4
    instance: float = 0.42
    own_instance: float = 0.08
    own_group: float = 0.02


def draw_frames(shape: FleetShape, draw: np.random.Generator) -> tuple[GateFrames, NDArray[np.int64]]:
    """The gate set, and each box's item instance, ``(N,)``."""
    views = draw.choice(np.arange(1, len(shape.views) + 1), shape.groups, p=shape.views)
    first = np.cumsum(views) - views
    frame, class_index, instance = [], [], []
    instances = 0
    for c, wanted in enumerate(shape.class_boxes):
        group = draw.integers(0, shape.groups, wanted)  # at least one box each, so enough of them
        sizes = views[group]
        used = int(np.searchsorted(np.cumsum(sizes), wanted)) + 1
        group, sizes = group[:used], sizes[:used].copy()
        sizes[-1] -= sizes.sum() - wanted
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        frame.append(np.repeat(first[group], sizes) + np.arange(wanted) - starts)
        instance.append(np.repeat(np.arange(instances, instances + used), sizes))
        class_index.append(np.full(wanted, c))
        instances += used
    class_stream = np.array([0, 0, 2, 0, 2, 1, 2, 0, 3, 2], np.int64)
    frames = GateFrames(
        group=np.repeat(np.arange(shape.groups), views),
        bin=np.repeat(draw.integers(0, BINS, shape.groups), views),
        item_frame=np.concatenate(frame),
        item_class=np.concatenate(class_index),
        bin_names=tuple(f"bin-{b:02}" for b in range(BINS)),
        class_names=tuple(f"class {c}" for c in range(shape.classes)),
        class_stream=class_stream[np.arange(shape.classes) % len(class_stream)],
        stream_names=STREAMS,
    )
    return frames, np.concatenate(instance)


def draw_outcomes(
    shape: FleetShape,
    difference: Difference,
    seed: int,
    dependence: Dependence = Dependence(),
) -> PairedOutcomes:
    """One comparison. The true losses are the expected ones of the challenger, exactly."""
    draw = np.random.default_rng(seed)
    frames, instance = draw_frames(shape, draw)
    chance = draw.uniform(0.55, 0.9, shape.classes)
    gain = draw.normal(0, difference.churn, shape.classes) if difference.churn else np.zeros(shape.classes)
    gain -= np.average(gain, weights=frames.class_boxes) + difference.overall
    for c, loss in difference.classes.items():
        gain[c] -= loss
    common = [
        np.sqrt(dependence.box) * draw.normal(size=len(instance))
        + np.sqrt(dependence.instance) * draw.normal(size=int(instance.max()) + 1)[instance]
        for _ in ("its stream", "its class")
    ]
    models = [
        _draw_model(shape, frames, instance, common, chance + extra, dependence, draw)
        for extra in (np.zeros(shape.classes), gain)
    ]
    return PairedOutcomes(frames, *models, step=1 + WRONG_COST)


def _draw_model(
    shape: FleetShape,
    frames: GateFrames,
    instance: NDArray[np.int64],
    common: list[NDArray[np.float64]],
    chance: NDArray[np.float64],
    dependence: Dependence,
    draw: np.random.Generator,
) -> ModelOutcomes:
    rest = 1 - dependence.box - dependence.instance - dependence.own_instance - dependence.own_group
    difficulty, doubt = (
        shared
        + np.sqrt(dependence.own_instance) * draw.normal(size=int(instance.max()) + 1)[instance]
        + np.sqrt(dependence.own_group) * draw.normal(size=frames.groups)[frames.item_group]
        + np.sqrt(rest) * draw.normal(size=len(instance))
        for shared in common
    )
    ease = norm.ppf(np.clip(chance, 0.001, 0.999))[frames.item_class] - difficulty
    right = ease > 0
    # nine of ten items that go to the right stream have the right class too; half of the others a wrong one
    luck = norm.cdf(doubt)  # even in its class an item is as hard for one model as for the other
    hit = right & (luck < 0.9)
    shown = hit | (luck < 0.5)
    score = 1 / (1 + np.exp(-(1.0 + ease + draw.normal(0, 0.5, len(right)))))
    wrong_class = draw.integers(0, shape.classes, len(right))
    clutter = draw.poisson(shape.background, len(frames))
    false_score = draw.beta(1, 4, clutter.sum())
    false_frame = np.repeat(np.arange(len(frames)), clutter)
    acted_on = np.bincount(false_frame[false_score > 0.5], minlength=len(frames))
    gains = np.where(right, 1.0, -WRONG_COST)
    return ModelOutcomes(
        utility=np.bincount(frames.item_frame, gains, minlength=len(frames)) - FALSE_COST * acted_on,
        right=right,
        recognised=hit,
        detections=ScoredDetections(
            frame=np.concatenate([frames.item_frame[shown], false_frame]),
            class_index=np.concatenate(
                [
                    np.where(hit, frames.item_class, wrong_class)[shown],
                    frames.item_class[draw.integers(0, len(right), len(false_frame))],
                ]
            ),
            score=np.concatenate([score[shown], false_score]),
            hit=np.concatenate([hit[shown], np.zeros(len(false_frame), np.bool_)]),
        ),
    )
