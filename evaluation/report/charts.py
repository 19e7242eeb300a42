"""Charts as inline SVG that follow the page's light or dark colours."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from evaluation.error_causes import CAUSES
from evaluation.report.inputs import Curve, Rebalanced
from evaluation.scorecard import OperatingPoint, Scorecard

MODEL_COLOURS = ("#2f7ed8", "#12a594", "#e8730c")  # legible on white and on near-black alike
CAUSE_COLOURS = {
    "classification": "#e5484d",
    "localisation": "#f0a020",
    "both": "#a35bd6",
    "duplicate": "#3e8ed0",
    "background": "#8b8d98",
    "missed": "#556070",
}
_INK, _GRID = "#010203", "#040506"  # stand-ins that become the page's own colours
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trashnet",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def colour_of(models: Sequence[str]) -> dict[str, str]:
    """A colour for each model, the same in every chart."""
    return {name: MODEL_COLOURS[i % len(MODEL_COLOURS)] for i, name in enumerate(models)}


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an ``<svg>`` element without metadata, its inks the page's.

    ``alt`` is unique on the page and keeps the ids so.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"font: (\d+) ?([\d.]+)px[^;\"]*", r"font: \1 \2px var(--font)", text)
    text = re.sub(r"font: ([\d.]+)px[^;\"]*", r"font: \1px var(--font)", text)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)
    prefix = re.sub(r"[^a-z0-9]+", "-", alt.lower())
    text = re.sub(r'( id="|url\(#|href="#)', rf"\1{prefix}-", text)
    text = text.replace(_INK, "var(--ink)").replace(_GRID, "var(--line)")
    return text.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def precision_recall(cards: Mapping[str, Scorecard]) -> str:
    """Mean precision over classes against recall, at IoU 0.50 (solid) and 0.75 (dashed)."""
    with matplotlib.rc_context(_STYLE):
        figure = _figure(6.2, 3.7)
        axes = figure.subplots()
        for (name, card), colour in zip(cards.items(), colour_of(list(cards)).values(), strict=True):
            curves = card.curves
            axes.plot(curves.recall, curves.precision_50, color=colour, linewidth=2, label=name)
            axes.plot(curves.recall, curves.precision_75, color=colour, linewidth=1.4, linestyle=(0, (4, 2)))
        axes.plot([], [], color=_INK, linewidth=2, label="IoU 0.50")
        axes.plot([], [], color=_INK, linewidth=1.4, linestyle=(0, (4, 2)), label="IoU 0.75")
        axes.set(xlabel="recall", ylabel="precision, mean of classes", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8.5)
        return _svg(figure, "Precision against recall of each model")


def operating_points(cards: Mapping[str, Scorecard]) -> str:
    """Utility, sorting accuracy and contamination against the score from which a bin acts.

    The dot is the score in use.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _figure(10.6, 3.1)
        panels = figure.subplots(1, 4)
        titles = ("sorting utility", "sorting accuracy", "contamination", "false detections per frame")
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel("score threshold")
            for (name, card), colour in zip(cards.items(), colour_of(list(cards)).values(), strict=True):
                points = [(p.score, _of_point(p, title)) for p in card.operating_points]
                known = [(x, y) for x, y in points if y is not None]
                axes.plot([x for x, _ in known], [y for _, y in known], color=colour, linewidth=2, label=name)
                here = [(x, y) for x, y in known if abs(x - card.sorting.score) < 1e-9]
                axes.plot([x for x, _ in here], [y for _, y in here], "o", color=colour, markersize=6)
            if title != "sorting utility":  # which may be negative
                axes.set_ylim(bottom=0)
        panels[0].legend(fontsize=8.5)
        return _svg(
            figure, "Utility, accuracy, contamination and false detections against the score threshold"
        )


def _of_point(point: OperatingPoint, title: str) -> float | None:
    return {
        "sorting utility": point.utility,
        "sorting accuracy": point.accuracy,
        "contamination": point.contamination,
        "false detections per frame": point.false_per_frame,
    }[title]


def streams(cards: Mapping[str, Scorecard], what: str) -> str:
    """``accuracy`` or ``contamination`` of every stream and model with its 95% interval.

    A stream without items is left blank.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _figure(5.2, 2.9)
        axes = figure.subplots()
        names = [s.name for s in next(iter(cards.values())).sorting.streams]
        width = 0.8 / len(cards)
        for i, ((name, card), colour) in enumerate(
            zip(cards.items(), colour_of(list(cards)).values(), strict=True)
        ):
            for x, stream in enumerate(card.sorting.streams):
                share = getattr(stream, what)
                if share.value is None:
                    continue
                at = x + (i - (len(cards) - 1) / 2) * width
                axes.bar(at, share.value, width * 0.9, color=colour, label=name if x == 0 else None)
                error = [[max(0.0, share.value - share.low)], [max(0.0, share.high - share.value)]]
                axes.errorbar(at, share.value, error, color=_INK, linewidth=1, capsize=2)
        axes.set_xticks(range(len(names)), names)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1.02 if what == "accuracy" else None)
        axes.set_title("sent to the right stream" if what == "accuracy" else "contamination of what arrives")
        return _svg(figure, f"{what} per stream and model")


def class_dots(cards: Mapping[str, Scorecard]) -> str:
    """AP of every class with test boxes, the first model's best on top; a dot per model."""
    with matplotlib.rc_context(_STYLE):
        first = next(iter(cards.values()))
        judged = sorted((c for c in first.classes if c.ap is not None), key=lambda c: c.ap or 0)
        figure = _figure(10.6, 0.6 + 0.24 * max(len(judged), 1))
        axes = figure.subplots()
        rows = {c.class_id: y for y, c in enumerate(judged)}
        spread: dict[int, list[float]] = {y: [] for y in rows.values()}
        for (name, card), colour in zip(cards.items(), colour_of(list(cards)).values(), strict=True):
            points = [
                (c.ap, rows[c.class_id]) for c in card.classes if c.ap is not None and c.class_id in rows
            ]
            for ap, y in points:
                spread[y].append(ap)
            axes.plot(
                [ap for ap, _ in points],
                [y for _, y in points],
                "o",
                color=colour,
                markersize=6.5,
                alpha=0.9,
                label=name,
            )
        for y, values in spread.items():
            axes.hlines(y, min(values), max(values), color=_GRID, linewidth=2, zorder=0)
        labels = [
            f"{c.name}  ({c.test_boxes} test, {'?' if c.train_boxes is None else c.train_boxes} train)"
            for c in judged
        ]
        axes.set_yticks(range(len(judged)), labels, fontsize=8.5)
        axes.set(xlabel="AP", xlim=(-0.01, 1.01), ylim=(-0.7, len(judged) - 0.3))
        axes.legend(fontsize=8.5, loc="lower right")
        return _svg(figure, "AP per class and model")


def causes(cards: Mapping[str, Scorecard]) -> str:
    """How many mistakes of each cause every model makes, per 100 items."""
    with matplotlib.rc_context(_STYLE):
        figure = _figure(10.6, 0.9 + 0.42 * len(cards))
        axes = figure.subplots()
        names = list(cards)[::-1]
        left = np.zeros(len(names))
        for cause in CAUSES:
            share = np.array([100 * cards[n].causes[cause] / max(cards[n].split.items, 1) for n in names])
            axes.barh(names, share, left=left, color=CAUSE_COLOURS[cause], label=cause, height=0.62)
            left += share
        axes.set_xlabel("mistakes per 100 items")
        axes.grid(axis="y", visible=False)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(CAUSES), fontsize=8.5
        )
        return _svg(figure, "Causes of mistakes of each model")


def confusion(cells: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], alt: str) -> str:
    """A confusion matrix: counts as text, colour by the share of the row. ``cells``: ``(rows, columns)``."""
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        small = len(rows) <= 8
        size = 0.56 if small else 0.27
        figure = _figure(2.0 + size * len(columns), 1.1 + size * len(rows))
        axes = figure.subplots()
        total = cells.sum(axis=1, keepdims=True)
        share = np.divide(cells, total, out=np.zeros(cells.shape), where=total > 0)
        size_of_text = 9 if small else 7.5
        for y, x in np.argwhere(cells > 0):
            strength = 0.08 + 0.85 * float(share[y, x])
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color="#2f7ed8", alpha=strength, linewidth=0))
            ink = "#ffffff" if strength > 0.55 else _INK
            axes.text(x, y, str(cells[y, x]), ha="center", va="center", fontsize=size_of_text, color=ink)
        axes.set(
            xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel="predicted", ylabel="actual"
        )
        turn, anchor = (40, "right") if small else (90, "center")
        axes.set_xticks(range(len(columns)), columns, rotation=turn, ha=anchor, fontsize=size_of_text)
        axes.set_yticks(range(len(rows)), rows, fontsize=size_of_text)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, alt)


def training(curves: Sequence[Curve], model: str) -> str:
    """Small multiples of one training run: a panel per metric, a line per series."""
    with matplotlib.rc_context(_STYLE):
        panels = list(dict.fromkeys(c.panel for c in curves))
        columns = min(4, len(panels))
        lines = -(-len(panels) // columns)
        figure = _figure(2.4 * columns, 1.75 * lines)
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        shades = colour_of(list(dict.fromkeys(c.series for c in curves)))
        for axes, panel in zip(grid.flat, panels, strict=False):
            axes.set_title(panel, fontsize=9)
            axes.tick_params(labelsize=8)
            here = [c for c in curves if c.panel == panel]
            for curve in here:
                marker = "o" if len(curve.steps) < 12 else None
                axes.plot(
                    curve.steps,
                    curve.values,
                    color=shades[curve.series],
                    linewidth=1.6,
                    marker=marker,
                    markersize=3,
                    label=curve.series,
                )
            axes.legend(fontsize=7.5)
        return _svg(figure, f"Training curves of {model}")


def rebalancing(report: Rebalanced) -> str:
    """Train images per class before, and the copies added, the commonest first; the line is the target."""
    with matplotlib.rc_context(_STYLE):
        classes = sorted(report.classes, key=lambda c: (-c.images, c.name))
        figure = _figure(10.6, 3.3)
        axes = figure.subplots()
        x = np.arange(len(classes))
        images = np.array([c.images for c in classes])
        axes.bar(x, images, color="#2f7ed8", label="originals", width=0.8)
        axes.bar(
            x,
            [c.copies for c in classes],
            bottom=images,
            color="#e8730c",
            label="augmented copies",
            width=0.8,
        )
        axes.axhline(
            report.target, color=_INK, linewidth=1, linestyle=(0, (4, 2)), label=f"target {report.target}"
        )
        axes.set_xticks(x, [c.name for c in classes], rotation=90, fontsize=7)
        axes.grid(axis="x", visible=False)
        axes.set(ylabel="train images", xlim=(-0.6, len(classes) - 0.4))
        axes.legend(fontsize=8.5)
        return _svg(figure, "Train images per class before and after rebalancing")
