"""The models' numbers side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.score_table import DIFFERENT_TRUTHS
from evaluation.scorecard import SCORE_SOURCES, Interval, Proportion, Scorecard, percent
from trashnet.models import MODEL_NAMES

NOT_RUN = "not run"


def load_scorecards(build: Path) -> dict[str, Scorecard]:
    """The scorecards under ``build/scorecards`` by model: the three of the pipeline first, in their order,
    others by name.
    """
    found = {path.stem for path in (build / "scorecards").glob("*.json")}
    order = [name for name in MODEL_NAMES if name in found] + sorted(found - set(MODEL_NAMES))
    return {name: Scorecard.load(build / "scorecards" / f"{name}.json") for name in order}


@dataclass(frozen=True)
class Cell:
    """One number of one model: its text, the text of its interval, and whether it is the row's best."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the headline table."""

    name: str
    unit: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Resampled:
    """A number that is no proportion of items, with its interval from resampling groups of frames."""

    value: float | None
    interval: Interval | None


Value = float | Proportion | Resampled | None


def _coco(name: str) -> Callable[[Scorecard], Value]:
    return lambda card: Resampled(card.coco[name], card.coco_intervals.get(name))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


# (name, unit, digits, +1 where more is better, -1 where less is, 0 where neither; what it means; where it is
# read)
_ROWS: tuple[tuple[str, str, int, int, str, Callable[[Scorecard], Value]], ...] = (
    ("AP", "%", 1, 1, "COCO: mean over classes and IoU 0.50 to 0.95", _coco("ap")),
    ("AP50", "%", 1, 1, "COCO, IoU 0.50", _coco("ap50")),
    ("AP75", "%", 1, 1, "COCO, IoU 0.75", _coco("ap75")),
    ("AP small", "%", 1, 1, "boxes under 32 x 32 pixels", _coco("ap_small")),
    ("AP medium", "%", 1, 1, "up to 96 x 96 pixels", _coco("ap_medium")),
    ("AP large", "%", 1, 1, "beyond 96 x 96 pixels", _coco("ap_large")),
    ("AR100", "%", 1, 1, "recall with 100 detections, over IoU 0.50 to 0.95", _coco("ar_100")),
    (
        "sorting utility",
        "of 100",
        1,
        1,
        "right less wrong items and false detections, of all items",
        lambda c: Resampled(c.sorting.utility, c.sorting.utility_interval),
    ),
    (
        "frames right",
        "%",
        1,
        1,
        "every item arrives in its stream, nothing false detected",
        lambda c: c.sorting.frame_accuracy,
    ),
    ("from score", "", 3, 0, "from which on a bin acts on a detection", lambda c: c.sorting.score),
    (
        "sorting accuracy",
        "%",
        1,
        1,
        "items sent to the right stream, of all items",
        lambda c: c.sorting.accuracy,
    ),
    (
        "of items found",
        "%",
        1,
        1,
        "right stream, of the items a detection met",
        lambda c: c.sorting.accuracy_of_found,
    ),
    (
        "contamination",
        "%",
        1,
        -1,
        "wrong stream, of the items sent to any",
        lambda c: c.sorting.contamination,
    ),
    (
        "missed",
        "%",
        1,
        -1,
        "items no detection met",
        lambda c: c.sorting.missed / c.sorting.items if c.sorting.items else None,
    ),
    (
        "false detections",
        "per frame",
        2,
        -1,
        "detections that met no item",
        lambda c: c.sorting.false_detections / c.split.frames if c.split.frames else None,
    ),
    (
        "latency, median",
        "ms",
        1,
        -1,
        "one image, on this machine's CPU",
        lambda c: _milliseconds(c.latency.median_s),
    ),
    ("latency, p95", "ms", 1, -1, "95 of 100 calls are faster", lambda c: _milliseconds(c.latency.p95_s)),
    (
        "file",
        "MiB",
        1,
        -1,
        "the exported model",
        lambda c: None if c.model.bytes is None else c.model.bytes / 2**20,
    ),
    (
        "input",
        "px",
        0,
        0,
        "pixels a side",
        lambda c: None if c.model.input_size is None else float(c.model.input_size[0]),
    ),
)


def headline_rows(cards: Mapping[str, Scorecard | None]) -> list[Row]:
    """The headline table; a model without a scorecard has ``not run`` in every cell."""
    rows = []
    for name, unit, digits, sense, note, read in _ROWS:
        values = [read(card) if card else None for card in cards.values()]
        numbers = [v.value if isinstance(v, Proportion | Resampled) else v for v in values]
        there = [n for n in numbers if n is not None]
        best = None if not sense or len(there) < 2 else max(there) if sense > 0 else min(there)
        scale = 100 if unit in ("%", "of 100") else 1
        cells = []
        for card, value, number in zip(cards.values(), values, numbers, strict=True):
            if card is None:
                cells.append(Cell(NOT_RUN))
            elif number is None:
                cells.append(Cell("n/a"))
            else:
                cells.append(Cell(f"{scale * number:.{digits}f}", _interval(value), number == best))
        rows.append(Row(name, unit, note, tuple(cells)))
    return rows


def _interval(value: Value) -> str:
    if isinstance(value, Proportion):
        return f"{percent(value.low)} to {percent(value.high)}"
    return str(value.interval) if isinstance(value, Resampled) and value.interval else ""


def headline_table(build: Path) -> str:
    """The models' numbers side by side for the terminal, and where the files behind them lie."""
    found = load_scorecards(build)
    cards: dict[str, Scorecard | None] = {**dict.fromkeys(MODEL_NAMES), **found}
    rows = headline_rows(cards)
    lines = [f"{'':18}{'':10}" + "".join(f"{name:>26}" for name in cards)]
    for row in rows:
        cells = (f"{cell.text}{f' ({cell.interval})' if cell.interval else ''}" for cell in row.cells)
        lines.append(f"{row.name:18}{row.unit:10}" + "".join(f"{text:>26}" for text in cells))
    if found:
        card = next(iter(found.values()))
        lines += [
            "",
            f"{card.split.frames} test frames in {card.split.groups} groups, {card.split.items} items; in "
            "brackets 95% intervals, clustered by group; "
            f"{card.latency.cpu}, "
            f"{card.latency.threads} threads",
        ]
        lines += [
            f"{name} counts detections in sorting from score {c.sorting.score:g} on "
            f"({SCORE_SOURCES[c.sorting.score_from]})"
            for name, c in found.items()
        ]
        if len({c.split.digest for c in found.values()}) > 1:
            lines.append(DIFFERENT_TRUTHS)
    places = (
        ("report", "report.html"),
        ("scorecards", "scorecards"),
        ("predictions", "predictions"),
        ("models", "models"),
        ("training curves", "live"),
    )
    lines += ["", *(f"{what:18}{build / where}" for what, where in places if (build / where).exists())]
    return "\n".join(lines)
