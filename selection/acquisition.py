"""A frame's acquisition score: how much its labels would teach, as a number from 0 to 1 and in words.

Nothing here knows of stores or ledgers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2, sqrt

from selection.params import SelectionParams
from trashnet.boxes import Box, iou, match_greedily, stack

NO_MODEL = "no model yet: chosen for diversity"
NO_REASON = "nothing stands out"
MIN_EXPLAINED = 0.05  # a part of a score that is smaller is not mentioned


@dataclass(frozen=True, slots=True)
class AcquisitionScore:
    """A frame's score in [0, 1], higher is worth more of a person's time, and why."""

    score: float
    explanation: str


@dataclass(frozen=True, slots=True)
class ModelDisagreement:
    """On how many of all items that either of two models detects they differ."""

    different: int
    items: int

    @property
    def share(self) -> float:
        """From 0 to 1; two models that detect nothing agree."""
        return self.different / self.items if self.items else 0.0


def entropy(score: float) -> float:
    """The binary entropy of a score in bits: 1 at 0.5, 0 at 0 and 1 (uncertainty sampling: Settles 2009,
    section 3.1).

    >>> entropy(0.5), entropy(1.0)
    (1.0, 0.0)
    """
    return 0.0 if score <= 0 or score >= 1 else -score * log2(score) - (1 - score) * log2(1 - score)


def uncertainty(boxes: Sequence[Box], params: SelectionParams) -> float:
    """Mean entropy of the ``params.uncertain_boxes`` most uncertain boxes, in [0, 1].

    Boxes that the frame lacks count as certain, so that a frame with many uncertain boxes scores higher than
    one with a single such box.
    """
    bits = sorted(
        (entropy(box.confidence) for box in boxes if box.confidence >= params.min_score), reverse=True
    )
    return sum(bits[: params.uncertain_boxes]) / params.uncertain_boxes


def rarities(class_counts: Mapping[str, int], params: SelectionParams) -> dict[str, float]:
    """How rare each class is, in (0, 1]: 1 up to a share ``t = params.rare_share`` of all boxes ``f``, then
    ``sqrt(t / f)``.

    These are the repeat factors of LVIS (Gupta, Dollár and Girshick, CVPR 2019, section 4), scaled so that
    they end at 1. A class without boxes is missing here, and counts as the rarest.
    """
    total = sum(class_counts.values())
    return {
        label: min(1.0, sqrt(params.rare_share * total / count))
        for label, count in class_counts.items()
        if count
    }


def rarest_box(
    boxes: Sequence[Box], rarity: Mapping[str, float], params: SelectionParams
) -> tuple[str, float]:
    """The label whose rarity times its score is greatest, and that product.

    ``("", 0)`` while no box has been counted.
    """
    if not rarity:
        return "", 0.0
    products = [
        (box.confidence * rarity.get(box.label, 1.0), box.label)
        for box in boxes
        if box.confidence >= params.min_score
    ]
    value, label = max(products, default=(0.0, ""))
    return label, value


def model_disagreement(
    teacher: Sequence[Box], student: Sequence[Box], params: SelectionParams
) -> ModelDisagreement:
    """Boxes that only one model detects, or to which the models give different labels, of all items that
    either detects.

    Only boxes that score at least ``params.confidence_threshold`` count; they are paired greatest IoU first,
    each once, from ``params.match_iou`` on.
    """
    a = [box for box in teacher if box.confidence >= params.confidence_threshold]
    b = [box for box in student if box.confidence >= params.confidence_threshold]
    pairs = match_greedily(iou(stack(a), stack(b)), params.match_iou)
    relabelled = sum(a[i].label != b[j].label for i, j in pairs)
    unmatched = len(a) + len(b) - 2 * len(pairs)
    return ModelDisagreement(relabelled + unmatched, len(pairs) + unmatched)


def score_frame(
    teacher: Sequence[Box] | None,
    student: Sequence[Box] | None,
    rarity: Mapping[str, float],
    params: SelectionParams,
) -> AcquisitionScore:
    """The weighted mean of uncertainty, disagreement and rarity.

    Uncertainty and rarity are the teacher's, without one the student's. Disagreement needs both models; with
    only one it counts as none.

    Args:
        teacher: The teacher's boxes, ``None`` if there is no teacher.
        student: The student's boxes, ``None`` if there is no student.
        rarity: How rare each class is, see :func:`rarities`.
        params: The weights and thresholds.
    """
    boxes = teacher if teacher is not None else student
    if boxes is None:
        return AcquisitionScore(0.0, NO_MODEL)
    parts: list[tuple[float, str]] = []
    most_uncertain = max(
        (box for box in boxes if box.confidence >= params.min_score),
        key=lambda box: entropy(box.confidence),
        default=None,
    )
    if most_uncertain is not None:
        text = f"undecided: {most_uncertain.label} {most_uncertain.confidence:.2f}"
        parts.append((params.uncertainty_weight * uncertainty(boxes, params), text))
    label, value = rarest_box(boxes, rarity, params)
    parts.append((params.rarity_weight * value, f"rare class: {label} {value:.2f}"))
    if teacher is not None and student is not None:
        differing = model_disagreement(teacher, student, params)
        text = f"teacher and student disagree on {differing.different} of {differing.items} boxes"
        parts.append((params.disagreement_weight * differing.share, text))
    reasons = [text for part, text in sorted(parts, key=lambda part: -part[0]) if part >= MIN_EXPLAINED]
    weights = params.uncertainty_weight + params.disagreement_weight + params.rarity_weight
    return AcquisitionScore(sum(part for part, _ in parts) / weights, "; ".join(reasons) or NO_REASON)
