"""The HTML report: everything the scorecards say, on one page that needs nothing but itself."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dataset import Log, Split
from evaluation.error_causes import CAUSES
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.params import EvaluationParams
from evaluation.report import charts
from evaluation.report.examples import Example, find_worst_frames
from evaluation.report.headline import headline_rows, load_scorecards
from evaluation.report.inputs import read_curves, read_edgetpu, read_rebalanced
from evaluation.scorecard import SCORE_SOURCES, ClassScore, Scorecard, percent
from trashnet.errors import UserError
from trashnet.files import write_text
from trashnet.models import MODEL_NAMES, SSD_FLOAT, SSD_INT8
from trashnet.taxonomy import Taxonomy

CAUSE_HEADINGS = dict(
    zip(CAUSES, ("class", "place", "both", "twice", "none", "missed"), strict=True)
)  # short, for a wide table
NO_ITEM, NO_DETECTION = "(nothing)", "(missed)"
MAX_CLASSES = 24  # in a class confusion matrix: those with most items, more could not be read


@dataclass(frozen=True)
class Quantisation:
    """What int8 costs, in points of 100, against the gate.

    And the classes that lose most, as (name, points, test boxes).
    """

    float_ap: float
    ap_lost: float
    ap50_lost: float
    sorting_lost: float | None
    gate: float
    classes: tuple[tuple[str, float, int], ...]

    @property
    def passes(self) -> bool:
        """Whether AP is within the gate of the float model's; a gain passes."""
        return self.ap_lost <= self.gate

    @property
    def meaningful(self) -> bool:
        """Whether the float model has enough AP to lose: below the gate even a model that finds nothing would
        pass.
        """
        return self.float_ap > self.gate


def quantisation(cards: Mapping[str, Scorecard], gate: float) -> Quantisation | None:
    """Compare the int8 student with its float twin.

    ``None`` where either is missing, has no AP, or was judged on other data.
    """
    if SSD_FLOAT.name not in cards or SSD_INT8.name not in cards:
        return None
    before, after = cards[SSD_FLOAT.name], cards[SSD_INT8.name]
    if before.split.digest != after.split.digest or before.coco["ap"] is None or after.coco["ap"] is None:
        return None
    losses = [
        (b.name, 100 * (b.ap - a.ap), b.test_boxes)
        for b, a in zip(before.classes, after.classes, strict=True)
        if b.ap is not None and a.ap is not None
    ]
    sorted_before, sorted_after = before.sorting.accuracy.value, after.sorting.accuracy.value
    return Quantisation(
        float_ap=100 * before.coco["ap"],
        ap_lost=100 * (before.coco["ap"] - after.coco["ap"]),
        ap50_lost=100 * ((before.coco["ap50"] or 0) - (after.coco["ap50"] or 0)),
        sorting_lost=None
        if sorted_before is None or sorted_after is None
        else 100 * (sorted_before - sorted_after),
        gate=gate,
        classes=tuple(sorted(losses, key=lambda c: -c[1])[:5]),
    )


def write_html_report(
    log: Log, build: Path, taxonomy: Taxonomy, params: EvaluationParams, *, split: Split = "test"
) -> Path:
    """Write ``build/report.html`` from the scorecards and predictions under ``build`` and return its path.

    One file, no request to anywhere. What was not run (training curves, rebalancing, the EdgeTPU check, a
    model) is said to be so. Raises :class:`UserError` without any scorecard, and for scorecards that are not
    of the split as it is now.
    """
    cards = load_scorecards(build)
    if not cards:
        raise UserError(
            f"{build / 'scorecards'}: no scorecard to report on. `dvc repro evaluate` writes them."
        )
    frames = log.frames(split)
    truth = GroundTruth.from_frames(frames)
    if stale := [name for name, card in cards.items() if card.split.digest != truth.digest()]:
        raise UserError(
            f"{build / 'scorecards'}: {', '.join(stale)} judged other frames or labels than {log.root} holds "
            "now. "
            "`dvc repro evaluate` makes them anew."
        )
    examples = {
        name: find_worst_frames(
            frames,
            truth,
            Predictions.read(build / "predictions" / f"{name}.json", truth.images),
            taxonomy,
            cards[name].sorting.score,
            params.examples,
        )
        for name in cards
    }
    path = build / "report.html"
    write_text(path, _render(cards, examples, build, taxonomy, params))
    return path


def _render(
    cards: Mapping[str, Scorecard],
    examples: Mapping[str, list[Example]],
    build: Path,
    taxonomy: Taxonomy,
    params: EvaluationParams,
) -> str:
    columns: dict[str, Scorecard | None] = {**dict.fromkeys(MODEL_NAMES), **cards}
    rebalanced = read_rebalanced(build / "rebalanced" / "report.json")
    context: dict[str, Any] = {
        "cards": cards,
        "columns": list(columns),
        "first": next(iter(cards.values())),
        "colours": charts.colour_of(list(cards)),
        "headline": headline_rows(columns),
        "quantisation": quantisation(cards, params.quantisation_gate),
        "edgetpu": read_edgetpu(build / "models" / "edgetpu.json"),
        "rebalanced": rebalanced,
        "rebalancing": Markup(charts.rebalancing(rebalanced)) if rebalanced else None,
        "precision_recall": Markup(charts.precision_recall(cards)),
        "operating_points": Markup(charts.operating_points(cards)),
        "stream_accuracy": Markup(charts.streams(cards, "accuracy")),
        "stream_contamination": Markup(charts.streams(cards, "contamination")),
        "class_dots": Markup(charts.class_dots(cards)),
        "cause_bars": Markup(charts.causes(cards)),
        "stream_matrices": {n: Markup(_stream_matrix(c, list(taxonomy.streams))) for n, c in cards.items()},
        "class_matrices": {n: Markup(_class_matrix(c)) for n, c in cards.items()},
        "training": {name: _training(build / "live" / name, name) for name in ("efficientdet", "ssd")},
        "class_rows": {
            name: [_class_row(c, card) for c in card.classes if c.test_boxes] for name, card in cards.items()
        },
        "untested": [c.name for c in next(iter(cards.values())).classes if not c.test_boxes],
        "causes": CAUSES,
        "cause_headings": CAUSE_HEADINGS,
        "examples": examples,
        "streams": taxonomy.streams,
        "percent": percent,
        "params": params,
        "default_stream": taxonomy.default_stream,
        "score_sources": SCORE_SOURCES,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(context)


def _training(live: Path, model: str) -> Markup | None:
    curves = read_curves(live)
    return Markup(charts.training(curves, model)) if curves else None


def _stream_matrix(card: Scorecard, streams: list[str]) -> str:
    counts = Counter(
        {(c.actual or NO_ITEM, c.predicted or NO_DETECTION): c.count for c in card.stream_confusion}
    )
    rows, columns = [*streams, NO_ITEM], [*streams, NO_DETECTION]
    return charts.confusion(_table(counts, rows, columns), rows, columns, f"Stream confusion of {card.name}")


def _class_matrix(card: Scorecard) -> str:
    counts = Counter({(c.actual or NO_ITEM, c.predicted or NO_DETECTION): c.count for c in card.confusion})
    most = sorted((c for c in card.classes if c.test_boxes), key=lambda c: -c.test_boxes)[:MAX_CLASSES]
    shown = [c.name for c in most]
    merged: Counter[tuple[str, str]] = Counter()
    for (actual, predicted), count in counts.items():
        if actual in (*shown, NO_ITEM):
            merged[actual, predicted if predicted in (*shown, NO_DETECTION) else "(other)"] += count
    rows, columns = [*shown, NO_ITEM], [*shown, "(other)", NO_DETECTION]
    return charts.confusion(_table(merged, rows, columns), rows, columns, f"Class confusion of {card.name}")


def _table(counts: Counter[tuple[str, str]], rows: list[str], columns: list[str]) -> NDArray[np.int64]:
    return np.array([[counts[row, column] for column in columns] for row in rows], np.int64)


def _class_row(one: ClassScore, card: Scorecard) -> dict[str, Any]:
    """A class's line in the table that answers why a model is worse on it."""
    taken_for = [c for c in card.confusion if c.actual == one.name and c.predicted not in (None, one.name)]
    return {"score": one, "taken_for": ", ".join(f"{c.predicted} ({c.count})" for c in taken_for[:3])}
