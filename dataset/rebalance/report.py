"""The report on a rebalanced train split: every class before and after, as a table, JSON and CSV."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset.rebalance.params import RebalanceParams
from dataset.rebalance.plan import CopyPlan
from trashnet.files import atomic_write, write_json
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """One class of the train split before and after; an image of a class shows it outside of crowds.

    ``boxes`` do not count crowds either. ``effective`` is Kish's effective number of originals, (sum w)^2 /
    sum w^2 with w = 1 + copies of each original of the class: the number of new photos that the copies equal
    at most. ``short`` is the number of images missing from the target, out of reach of ``max_copies``.
    """

    id: int
    name: str
    images: int
    boxes: int
    copied_images: int
    copied_boxes: int
    effective: float
    short: int

    @property
    def total(self) -> int:
        """Images of this class after rebalancing."""
        return self.images + self.copied_images


@dataclass(frozen=True, slots=True)
class RebalanceReport:
    """What rebalancing did, per class and in all."""

    target: int
    originals: int
    copies: int
    most_copies: int
    proven: bool
    gap: int
    classes: tuple[ClassBalance, ...]

    @property
    def commonest_first(self) -> list[ClassBalance]:
        """The classes by decreasing number of images before rebalancing."""
        return sorted(self.classes, key=lambda c: (-c.images, c.id))

    def table(self) -> str:
        """Format a line per class, the commonest first, and the totals for the terminal."""
        lines = [f"{'class':26} {'images':>7} {'boxes':>7} {'copies':>7} {'total':>7} {'effective':>9}"]
        for c in self.commonest_first:
            row = (
                f"{c.name:26} {c.images:7,} {c.boxes:7,} {c.copied_images:7,} {c.total:7,} {c.effective:9.1f}"
            )
            lines.append(row + (f"  short by {c.short:,}" if c.short else ""))
        proof = "proven to be the fewest" if self.proven else f"at most {self.gap:,} more than the fewest"
        short = sum(c.short > 0 for c in self.classes)
        lines.append(
            f"{self.originals:,} originals, {self.copies:,} copies "
            f"({proof}; at most {self.most_copies} of one original); "
            f"{len(self.classes) - short} of {len(self.classes)} classes have {self.target:,} images"
        )
        return "\n".join(lines)


def make_report(
    taxonomy: Taxonomy,
    params: RebalanceParams,
    plan: CopyPlan,
    images: NDArray[np.bool_],
    boxes: NDArray[np.int64],
    copied_images: NDArray[np.int64],
    copied_boxes: NDArray[np.int64],
) -> RebalanceReport:
    """Summarise a plan and what came of it.

    Args:
        taxonomy: The classes, whose number is C.
        params: The target.
        plan: How often each of the N originals was copied.
        images: Which classes each original shows, bool ``(N, C)``.
        boxes: Boxes per class on the originals, int64 ``(C,)``.
        copied_images: Copies that show each class, int64 ``(C,)``.
        copied_boxes: Boxes per class on the copies, int64 ``(C,)``.
    """
    image_counts = images.sum(0)
    weights = images * (1 + plan.copies)[:, None]
    effective = weights.sum(0) ** 2 / np.maximum((weights**2).sum(0), 1)
    short = np.maximum(params.target_images - image_counts - copied_images, 0)
    classes = tuple(
        ClassBalance(
            id=c.id,
            name=c.name,
            images=int(image_counts[i]),
            boxes=int(boxes[i]),
            copied_images=int(copied_images[i]),
            copied_boxes=int(copied_boxes[i]),
            effective=float(effective[i]),
            short=int(short[i]),
        )
        for i, c in enumerate(taxonomy.classes)
    )
    return RebalanceReport(
        target=params.target_images,
        originals=len(images),
        copies=int(plan.copies.sum()),
        most_copies=int(plan.copies.max(initial=0)),
        proven=plan.proven,
        gap=plan.gap,
        classes=classes,
    )


def write_report(report: RebalanceReport, folder: Path) -> None:
    """Write ``class_counts.csv``, which ``dvc plots`` draws, and, last, ``report.json``."""
    path = folder / "class_counts.csv"
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["class", "before", "after"])
        writer.writerows((c.name, c.images, c.total) for c in report.commonest_first)
    write_json(folder / "report.json", asdict(report))
