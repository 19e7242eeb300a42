"""The tables behind ``dvc plots``."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from evaluation.error_causes import HIT
from evaluation.scorecard import Scorecard
from trashnet.files import atomic_write


def write_plots(scorecard: Scorecard, folder: Path) -> None:
    """Write the tables behind ``dvc plots``.

    ``precision_recall.csv`` and ``operating_points.csv`` (template linear), ``confusion.csv`` and
    ``stream_confusion.csv`` (confusion: a row per item, DVC counts them), ``per_class.csv`` and
    ``causes.csv`` (bar_horizontal).
    """
    curves = scorecard.curves
    _write_csv(
        folder / "precision_recall.csv",
        ("recall", "precision_50", "precision_75", "precision"),
        zip(curves.recall, curves.precision_50, curves.precision_75, curves.precision_mean, strict=True),
    )
    for file, cells in (
        ("confusion.csv", scorecard.confusion),
        ("stream_confusion.csv", scorecard.stream_confusion),
    ):
        rows = (
            (cell.actual or "(nothing)", cell.predicted or "(missed)")
            for cell in cells
            for _ in range(cell.count)
        )
        _write_csv(folder / file, ("actual", "predicted"), rows)
    judged = sorted((c for c in scorecard.classes if c.ap is not None), key=lambda c: -(c.ap or 0))
    _write_csv(
        folder / "per_class.csv",
        ("class", "ap", "ap50", "recall", "test_boxes", "train_boxes"),
        ((c.name, c.ap, c.ap50, c.recall, c.test_boxes, c.train_boxes) for c in judged),
    )
    _write_csv(
        folder / "causes.csv", ("cause", "count"), ((k, v) for k, v in scorecard.causes.items() if k != HIT)
    )
    _write_csv(
        folder / "operating_points.csv",
        ("score", "utility", "sorting_accuracy", "contamination", "false_per_frame"),
        (
            (p.score, p.utility, p.accuracy, p.contamination, p.false_per_frame)
            for p in scorecard.operating_points
        ),
    )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows(rows)
