"""What a frame is worth to the dataset, in numbers from 0 to 1, and in words. Nothing here knows of stores or ledgers.

A detection is ``{"label", "score", "box": [x, y, w, h]}``, box in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2, sqrt
from typing import Any

from selection.params import SelectionParams

Box = Mapping[str, Any]
NO_MODEL = "no model yet: chosen for diversity"
NOTHING = "nothing stands out"
WORTH_SAYING = 0.05  # a part of a score smaller than this is not mentioned


@dataclass(frozen=True, slots=True)
class Worth:
    """A frame's score in [0, 1], higher is worth more of a person's time, and why."""

    score: float
    explanation: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """On how many things of how many two models disagree."""

    different: int
    of: int

    @property
    def share(self) -> float:
        """From 0 to 1; where neither model sees anything, they agree."""
        return self.different / self.of if self.of else 0.0


def entropy(score: float) -> float:
    """How undecided a score is, in bits: 1 at 0.5, 0 at 0 and 1. Binary entropy, as in uncertainty sampling (Settles 2009, section 3.1)."""
    return 0.0 if score <= 0 or score >= 1 else -score * log2(score) - (1 - score) * log2(1 - score)


def uncertainty(boxes: Sequence[Box], params: SelectionParams) -> float:
    """Mean entropy of the ``params.uncertain_boxes`` most undecided boxes, in [0, 1]; those that a frame lacks count as decided.

    So a frame full of things the model cannot decide about is worth more than one with a single such thing.
    """
    bits = sorted((entropy(box["score"]) for box in boxes if box["score"] >= params.min_score), reverse=True)
    return sum(bits[: params.uncertain_boxes]) / params.uncertain_boxes


def rarities(class_counts: Mapping[str, int], params: SelectionParams) -> dict[str, float]:
    """How rare each class is, in (0, 1]: 1 up to a share ``t = params.rare_share`` of all boxes ``f``, then ``sqrt(t / f)``.

    The repeat factors of LVIS (Gupta, Dollár and Girshick, CVPR 2019, section 4), turned so that they end at
    1. A class not counted is missing here, and the rarest there is.
    """
    total = sum(class_counts.values())
    return {
        label: min(1.0, sqrt(params.rare_share * total / count))
        for label, count in class_counts.items()
        if count
    }


def rarest(boxes: Sequence[Box], rarity: Mapping[str, float], params: SelectionParams) -> tuple[str, float]:
    """The label whose rarity times its score is greatest, and that product; ``("", 0)`` while nothing has been counted."""
    if not rarity:
        return "", 0.0
    found = [
        (box["score"] * rarity.get(box["label"], 1.0), box["label"])
        for box in boxes
        if box["score"] >= params.min_score
    ]
    value, label = max(found, default=(0.0, ""))
    return label, value


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes ``(x, y, w, h)``."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def disagreement(teacher: Sequence[Box], student: Sequence[Box], params: SelectionParams) -> Disagreement:
    """Boxes that only one model sees, or to which they give different labels, of all things that either sees.

    Only boxes that a model stands by (``params.confidence_threshold``) count; they are paired best overlap
    first, each once, from ``params.match_iou`` on.
    """
    ours = [box for box in teacher if box["score"] >= params.confidence_threshold]
    theirs = [box for box in student if box["score"] >= params.confidence_threshold]
    overlaps = [
        (overlap(one["box"], other["box"]), -i, -j)
        for i, one in enumerate(ours)
        for j, other in enumerate(theirs)
    ]
    paired: dict[int, int] = {}
    for value, i, j in sorted(overlaps, reverse=True):
        if value >= params.match_iou and -i not in paired and -j not in paired.values():
            paired[-i] = -j
    renamed = sum(ours[i]["label"] != theirs[j]["label"] for i, j in paired.items())
    alone = len(ours) + len(theirs) - 2 * len(paired)
    return Disagreement(renamed + alone, len(paired) + alone)


def weigh(
    teacher: Sequence[Box] | None,
    student: Sequence[Box] | None,
    rarity: Mapping[str, float],
    params: SelectionParams,
) -> Worth:
    """The weighted mean of uncertainty, disagreement and rarity; ``None`` for a model that there is not.

    Uncertainty and rarity are the teacher's, without one the student's. Disagreement needs both; it counts as
    none with only one.
    """
    boxes = teacher if teacher is not None else student
    if boxes is None:
        return Worth(0.0, NO_MODEL)
    parts: list[tuple[float, str]] = []
    doubt = uncertainty(boxes, params)
    most = max(
        (box for box in boxes if box["score"] >= params.min_score),
        key=lambda box: entropy(box["score"]),
        default=None,
    )
    if most is not None:
        parts.append((params.uncertainty_weight * doubt, f"undecided: {most['label']} {most['score']:.2f}"))
    label, value = rarest(boxes, rarity, params)
    parts.append((params.rarity_weight * value, f"rare class: {label} {value:.2f}"))
    if teacher is not None and student is not None:
        apart = disagreement(teacher, student, params)
        parts.append(
            (
                params.disagreement_weight * apart.share,
                f"teacher and student disagree on {apart.different} of {apart.of} boxes",
            )
        )
    said = [text for part, text in sorted(parts, key=lambda part: -part[0]) if part >= WORTH_SAYING]
    score = sum(part for part, _ in parts) / (
        params.uncertainty_weight + params.disagreement_weight + params.rarity_weight
    )
    return Worth(score, "; ".join(said) or NOTHING)
