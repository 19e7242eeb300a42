"""How far people who answered the same frame agree: where the boxes are, and what is in them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from trashnet.boxes import Box, match_optimally
from trashnet.ledger import AnnotationRow, Ledger

MATCH_IOU = 0.5  # COCO's and PASCAL VOC's: from here on two boxes are of one item


@dataclass
class Tally:
    """Counts both people's ``boxes``; ``same`` (label) and summed ``iou`` are of the ``matched`` ones."""

    boxes: int = 0
    matched: int = 0
    same: int = 0
    iou: float = 0.0

    def add(self, boxes: int, matched: int = 0, same: int = 0, iou: float = 0.0) -> None:
        """Count more."""
        self.boxes, self.matched, self.same, self.iou = (
            self.boxes + boxes,
            self.matched + matched,
            self.same + same,
            self.iou + iou,
        )

    @property
    def matched_share(self) -> float | None:
        """Matched boxes of all boxes."""
        return self.matched / self.boxes if self.boxes else None

    @property
    def mean_iou(self) -> float | None:
        """Of the matched boxes."""
        return self.iou / self.matched if self.matched else None

    @property
    def label_agreement(self) -> float | None:
        """Matched boxes whose partner has the same label, of all matched boxes."""
        return self.same / self.matched if self.matched else None


@dataclass
class AnnotatorAgreement:
    """Tallies of all frames that two people annotated: overall, per class and per pair of people."""

    frames: int = 0
    overall: Tally = field(default_factory=Tally)
    classes: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    people: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))

    def table(self) -> str:
        """As text for a terminal; people and classes with most boxes first."""
        if not self.frames:
            return "No frame has been answered by two people yet."
        rows = [("all", self.overall)]
        rows += [(" and ".join(pair), tally) for pair, tally in _largest(self.people)] + _largest(
            self.classes
        )
        width = max(len(name) for name, _ in rows)
        plural = "" if self.frames == 1 else "s"
        lines = [f"{self.frames} frame{plural} answered by two people"]
        lines.append(f"{'':{width}}   boxes  matched  mean IoU  same label")
        for name, tally in rows:
            shares = (
                _percent(tally.matched_share, 7),
                _number(tally.mean_iou, 8),
                _percent(tally.label_agreement, 10),
            )
            lines.append(f"{name:{width}}  {tally.boxes:6}  {'  '.join(shares)}")
        return "\n".join(lines)


def annotator_agreement(ledger: Ledger, match_iou: float = MATCH_IOU) -> AnnotatorAgreement:
    """Compare the annotations of every frame that several people annotated, each pair of people once.

    Boxes are paired by the assignment with the largest summed IoU, labels aside, and pairs below
    ``match_iou`` are none.
    """
    found = AnnotatorAgreement()
    for answers in ledger.annotations_by_several_people():
        found.frames += 1
        for first, second in combinations(sorted(answers, key=lambda answer: answer.annotator), 2):
            _compare(found, first, second, match_iou)
    return found


def label_agreement(a: Sequence[Box], b: Sequence[Box], min_iou: float) -> float:
    """How far two annotations of a frame agree, from 0 to 1.

    It is the share of their boxes that are matched with one of the same label, and 1 if neither has any box.
    """
    if not a and not b:
        return 1.0
    same = sum(a[i].label == b[j].label for i, j, _ in match_optimally(a, b, min_iou))
    return 2 * same / (len(a) + len(b))


def _compare(
    found: AnnotatorAgreement, first: AnnotationRow, second: AnnotationRow, match_iou: float
) -> None:
    both = found.people[first.annotator, second.annotator]
    for box in [*first.boxes, *second.boxes]:
        for tally in (found.overall, both, found.classes[box.label]):
            tally.add(1)
    for i, j, iou in match_optimally(first.boxes, second.boxes, match_iou):
        labels = first.boxes[i].label, second.boxes[j].label
        same = labels[0] == labels[1]
        for tally in (found.overall, both):
            tally.add(0, 2, 2 * same, 2 * iou)
        for label in labels:
            found.classes[label].add(0, 1, same, iou)


def _largest(tallies: dict[Any, Tally]) -> list[tuple[Any, Tally]]:
    return sorted(tallies.items(), key=lambda item: (-item[1].boxes, item[0]))


def _percent(value: float | None, width: int) -> str:
    return f"{'–':>{width}}" if value is None else f"{100 * value:{width - 2}.0f} %"


def _number(value: float | None, width: int) -> str:
    return f"{'–':>{width}}" if value is None else f"{value:{width}.3f}"


__all__: Sequence[str] = [
    "MATCH_IOU",
    "AnnotatorAgreement",
    "Tally",
    "annotator_agreement",
    "label_agreement",
]
