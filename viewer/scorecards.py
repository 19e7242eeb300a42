"""The scorecards of the models beside each other, as rows of tables."""

from collections.abc import Mapping
from pathlib import Path

from evaluation import Scorecard
from evaluation.scorecard import SCORE_SOURCES, Interval
from trashnet.errors import UserError
from trashnet.models import MODELS, SSD_INT8

TableValue = str | int | float | None
MEASURES = {"AP": "ap", "AP at IoU 0.5": "ap50", "Recall": "recall"}
TITLES = {model.name: model.title for model in MODELS}


def read_scorecards(folder: Path) -> tuple[dict[str, Scorecard], list[str]]:
    """Read the scorecards of all models from a folder.

    Returns:
        The scorecards by model name, in the order of the models; and one message for each scorecard that is
        missing or damaged.
    """
    cards, errors = {}, []
    for model in MODELS:
        try:
            cards[model.name] = Scorecard.load(folder / f"{model.name}.json")
        except UserError as error:
            errors.append(str(error))
    return cards, errors


def comparable(cards: Mapping[str, Scorecard]) -> bool:
    """Whether all were judged on the same frames with the same labels; each sorts from its own score on."""
    return len({card.split.digest for card in cards.values()}) <= 1


def bins_score(cards: Mapping[str, Scorecard]) -> float | None:
    """The score from which bins act on a detection: the int8 student's, ``None`` without its scorecard."""
    return cards[SSD_INT8.name].sorting.score if SSD_INT8.name in cards else None


def describe_scores(cards: Mapping[str, Scorecard]) -> str:
    """From which score on each model's detections count in sorting, and where that score comes from."""
    return "; ".join(
        f"{TITLES[name]} {card.sorting.score:.3g}, {SCORE_SOURCES[card.sorting.score_from]}"
        for name, card in cards.items()
    )


def describe_measurement(cards: Mapping[str, Scorecard]) -> str:
    """What the numbers were measured on, in one line of Markdown."""
    card = next(iter(cards.values()))
    return (
        f"{card.split.frames:,} test frames in {card.split.groups:,} groups with {card.split.items:,} items. "
        f"Sorting counts detections from these scores on: {describe_scores(cards)}. Intervals are clustered "
        f"by group. Latency is the median of {card.latency.calls:,} photos on {card.latency.cpu}, "
        f"{card.latency.threads} threads."
    )


def model_rows(cards: Mapping[str, Scorecard]) -> list[dict[str, TableValue]]:
    """One row per model: its headline numbers; shares in percent, ``None`` where nothing was measured."""
    return [
        {
            "Model": TITLES[name],
            "Utility": _percent(card.sorting.utility),
            "Utility, 95 %": _interval_of(card.sorting.utility_interval),
            "Frames right": _percent(card.sorting.frame_accuracy.value),
            "From score": f"{card.sorting.score:.3g}",
            "Sorted right": _percent(card.sorting.accuracy.value),
            "95 % interval": _interval(card.sorting.accuracy.low, card.sorting.accuracy.high),
            "Of items found": _percent(card.sorting.accuracy_of_found.value),
            "Contamination": _percent(card.sorting.contamination.value),
            "Missed": _percent(card.sorting.missed / card.sorting.items if card.sorting.items else None),
            "AP": _percent(card.coco["ap"]),
            "AP, 95 %": _interval_of(card.coco_intervals.get("ap")),
            "AP at IoU 0.5": _percent(card.coco["ap50"]),
            "AP at IoU 0.5, 95 %": _interval_of(card.coco_intervals.get("ap50")),
            "AR": _percent(card.coco["ar_100"]),
            "Latency": None if card.latency.median_s is None else card.latency.median_s * 1000,
            "Size": None if card.model.bytes is None else card.model.bytes / 2**20,
        }
        for name, card in cards.items()
    ]


def stream_rows(cards: Mapping[str, Scorecard]) -> list[dict[str, TableValue]]:
    """One row per stream: its test items, and the accuracy and contamination of each model.

    Accuracy is the share of the stream's items that arrive in it. Contamination is the share of the items in
    it that belong to another stream.
    """
    by_stream: dict[str, dict[str, TableValue]] = {}
    for name, card in cards.items():
        for stream in card.sorting.streams:
            row = by_stream.setdefault(stream.name, {"Stream": stream.name, "Test items": stream.items})
            row[f"{TITLES[name]}: arrives"] = _percent(stream.accuracy.value)
            row[f"{TITLES[name]}: contamination"] = _percent(stream.contamination.value)
    return list(by_stream.values())


def class_rows(
    cards: Mapping[str, Scorecard], measure: str, *, untested: bool = False
) -> list[dict[str, TableValue]]:
    """One row per class, the most test boxes first: ``measure`` (a value of :data:`MEASURES`) of each model,
    in percent.

    Classes without a test box have no result and are left out unless ``untested``.
    """
    by_class: dict[int, dict[str, TableValue]] = {}
    boxes: dict[int, int] = {}
    for name, card in cards.items():
        for class_score in card.classes:
            row = by_class.setdefault(
                class_score.class_id,
                {
                    "Class": class_score.name,
                    "Stream": class_score.stream,
                    "Train boxes": class_score.train_boxes,
                    "Test boxes": class_score.test_boxes,
                },
            )
            boxes[class_score.class_id] = max(boxes.get(class_score.class_id, 0), class_score.test_boxes)
            row[TITLES[name]] = _percent(getattr(class_score, measure))
    order = sorted(by_class, key=lambda class_id: (-boxes[class_id], class_id))
    return [by_class[class_id] for class_id in order if boxes[class_id] or untested]


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f}"


def _interval_of(interval: Interval | None) -> str | None:
    return None if interval is None else _interval(interval.low, interval.high)
