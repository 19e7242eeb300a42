"""A model's results on the frozen test split, as one JSON document."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.intervals import ClusteredProportion
from trashnet.errors import UserError
from trashnet.files import write_json

Unit = Annotated[float, Field(ge=0, le=1)]
ScoreSource = Literal["val", "params", "fallback"]
SCORE_SOURCES: dict[ScoreSource, str] = {
    "val": "chosen on val",
    "params": "given in params.yaml",
    "fallback": "the fallback of params.yaml, because the val split has no items",
}


class ScorecardPart(BaseModel):
    """A piece of a scorecard: frozen, and strict about what it holds.

    ``None`` is "nothing to say", never 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


DIGEST_DIGITS = 12  # hexadecimal, of a digest as a number: JSON's numbers are exact up to 13


class Proportion(ScorecardPart):
    """A share with the counts behind it and its 95% interval, clustered by group.

    ``effective_of``: how many independent items would say as much; Wilson's interval is of these.
    """

    hits: int
    of: int
    value: Unit | None
    low: Unit | None
    high: Unit | None
    effective_of: float | None

    @classmethod
    def from_groups(cls, share: ClusteredProportion) -> Self:
        """From counts by group."""
        low, high = share.interval or (None, None)
        return cls(
            hits=int(share.hits.sum()),
            of=int(share.of.sum()),
            value=share.value,
            low=low,
            high=high,
            effective_of=share.effective_items,
        )

    def __str__(self) -> str:
        return (
            f"{percent(self.value)}% ({percent(self.low)} to {percent(self.high)}, {self.hits} of {self.of})"
        )


class Interval(ScorecardPart):
    """A 95% interval, from resampling whole groups of frames."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{percent(self.low)} to {percent(self.high)}"


class ModelInfo(ScorecardPart):
    """Which file was judged."""

    file: str | None
    bytes: int | None
    sha256: str | None
    input_size: tuple[int, int] | None  # (height, width) in pixels


class SplitInfo(ScorecardPart):
    """What it was judged on; scorecards are comparable where ``digest`` agrees."""

    frames: int
    groups: int
    items: int
    crowds: int
    digest: str
    turns: tuple[str, ...]


class Latency(ScorecardPart):
    """Seconds of single-image calls, image to detections, pre- and post-processing included, decoding of the
    JPEG not.
    """

    calls: int
    median_s: float | None
    p95_s: float | None
    cpu: str
    threads: int  # processors this process may use


class ClassScore(ScorecardPart):
    """One class.

    ``ap``, ``ap50`` and ``ar`` are COCO's; ``recall`` is hits at IoU 0.5 and the sorting score, of all test
    boxes.
    """

    class_id: int
    name: str
    stream: str
    test_boxes: int
    train_boxes: int | None
    ap: Unit | None
    ap50: Unit | None
    ar: Unit | None
    recall: Unit | None
    sorting: Proportion  # sent to the right stream, of this class's items
    causes: dict[str, int]  # hit, classification, localisation, both, duplicate, background, missed


class StreamScore(ScorecardPart):
    """One stream: how many of its items arrive, and how clean what arrives is."""

    name: str
    items: int
    missed: int
    accuracy: Proportion  # sent here, of the items that belong here
    contamination: Proportion  # belonging elsewhere, of the items sent here
    false_detections: int


class SortingScore(ScorecardPart):
    """Where items went at the sorting score; ``evaluation.sorting_accuracy`` holds the rule.

    ``score_from``: ``val``, chosen there for the greatest utility; ``params``, given as
    ``evaluation.sort_score``; ``fallback``, given as ``evaluation.fallback_score`` because the val split has
    no items. ``utility`` is per item (``evaluation.utility``); ``frame_accuracy``: frames whose every item
    arrives in its stream, by a detection or by the default stream, and in which nothing false was detected.
    """

    score: float
    score_from: ScoreSource
    utility: float | None
    utility_interval: Interval | None
    frame_accuracy: Proportion
    items: int
    right: int
    wrong: int
    missed: int
    false_detections: int
    accuracy: Proportion
    accuracy_of_found: Proportion
    contamination: Proportion
    streams: tuple[StreamScore, ...]


class OperatingPoint(ScorecardPart):
    """What another sorting score would give."""

    score: float
    utility: float | None
    accuracy: Unit | None
    contamination: Unit | None
    missed: Unit | None
    false_per_frame: float


class SliceScore(ScorecardPart):
    """The same judgement on a part of the split.

    ``ap`` and ``ap50`` are ``None`` where a part has no items.
    """

    kind: Literal["box size", "bin", "items in frame"]
    value: str
    frames: int
    accuracy: Proportion
    ap: Unit | None
    ap50: Unit | None


class ConfusionCell(ScorecardPart):
    """``count`` items of class ``actual`` met by a detection of class ``predicted``.

    ``None`` is nothing: missed, or a false detection.
    """

    actual: str | None
    predicted: str | None
    count: int


class WorstConfusion(ScorecardPart):
    """A frequent mistake, with frames (SHA-256) to look at."""

    actual: str
    predicted: str
    crosses_streams: bool
    count: int
    frames: tuple[str, ...]


class Curves(ScorecardPart):
    """Interpolated precision at recall 0, 0.01, ... 1, the mean of all classes with test boxes.

    Empty without any.
    """

    recall: tuple[float, ...]
    precision_50: tuple[Unit, ...]
    precision_75: tuple[Unit, ...]
    precision_mean: tuple[Unit, ...]  # over the ten IoU thresholds: its mean is AP


class Scorecard(ScorecardPart):
    """Everything this room has to say of one model.

    Written by :func:`evaluation.evaluate`, read by the report and the gate.
    """

    format: Literal[2] = 2
    name: str
    model: ModelInfo
    split: SplitInfo
    coco: dict[str, Unit | None]
    coco_intervals: dict[str, Interval | None]  # of ap and ap50; None where nothing can be said
    sorting: SortingScore
    operating_points: tuple[OperatingPoint, ...]
    classes: tuple[ClassScore, ...]
    causes: dict[str, int]
    slices: tuple[SliceScore, ...]
    confusion: tuple[ConfusionCell, ...]
    stream_confusion: tuple[ConfusionCell, ...]
    worst_confusions: tuple[WorstConfusion, ...]
    curves: Curves
    latency: Latency

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all; there is no NaN in it."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> "Scorecard":
        """Read a scorecard. Raises :class:`UserError` if it is missing or not one."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{path}: no such scorecard. `dvc repro evaluate` writes it.") from None
        except (ValueError, ValidationError) as error:
            raise UserError(
                f"{path}: not a scorecard of this version: {error}\n`dvc repro evaluate` writes it anew."
            ) from None

    def headline(self) -> dict[str, float | int]:
        """The flat numbers that ``dvc metrics diff`` compares; what has no value is left out.

        ``test_digest`` is a number too: where it differs, the others were measured on other frames or labels.
        """
        sorting = self.sorting
        numbers: dict[str, float | int | None] = {
            **self.coco,
            **{
                f"{name}_{end}": getattr(interval, end)
                for name, interval in self.coco_intervals.items()
                if interval is not None
                for end in ("low", "high")
            },
            "utility": sorting.utility,
            "utility_low": sorting.utility_interval.low if sorting.utility_interval else None,
            "utility_high": sorting.utility_interval.high if sorting.utility_interval else None,
            "sort_score": sorting.score,
            "frame_accuracy": sorting.frame_accuracy.value,
            "sorting_accuracy": sorting.accuracy.value,
            "sorting_accuracy_low": sorting.accuracy.low,
            "sorting_accuracy_high": sorting.accuracy.high,
            "sorting_accuracy_of_found": sorting.accuracy_of_found.value,
            "contamination": sorting.contamination.value,
            **{f"contamination_{s.name}": s.contamination.value for s in sorting.streams},
            "missed": sorting.missed / sorting.items if sorting.items else None,
            "false_detections_per_frame": sorting.false_detections / self.split.frames
            if self.split.frames
            else None,
            "latency_median_ms": _milliseconds(self.latency.median_s),
            "latency_p95_ms": _milliseconds(self.latency.p95_s),
            "model_mib": None if self.model.bytes is None else self.model.bytes / 2**20,
            "test_frames": self.split.frames,
            "test_groups": self.split.groups,
            "test_items": self.split.items,
            "test_digest": int(self.split.digest[:DIGEST_DIGITS], 16),
        }
        return {name: round(value, 6) for name, value in numbers.items() if value is not None}

    def summary(self) -> str:
        """The result in seven lines for the terminal; in brackets 95% intervals, clustered by group."""
        sorting = self.sorting
        return "\n".join(
            (
                f"{self.name}: {self.split.frames} test frames in {self.split.groups} groups, "
                f"{self.split.items} items",
                f"  AP {percent(self.coco['ap'])}{in_brackets(self.coco_intervals.get('ap'))}   AP50 "
                f"{percent(self.coco['ap50'])}{in_brackets(self.coco_intervals.get('ap50'))}   AR100 "
                f"{percent(self.coco['ar_100'])}",
                f"  sorting utility, of 100, {percent(sorting.utility)}"
                f"{in_brackets(sorting.utility_interval)}, from score {sorting.score:g} on "
                f"({SCORE_SOURCES[sorting.score_from]})",
                f"  frames entirely right {sorting.frame_accuracy}",
                f"  sorted right {sorting.accuracy}, of items found "
                f"{percent(sorting.accuracy_of_found.value)}",
                f"  contamination {sorting.contamination}",
                f"  latency median {_text(_milliseconds(self.latency.median_s))} ms, p95 "
                f"{_text(_milliseconds(self.latency.p95_s))} ms "
                f"({self.latency.cpu}, {self.latency.threads} threads)",
            )
        )


def in_brackets(interval: Interval | None) -> str:
    """`` (low to high)`` in percent, or nothing."""
    return "" if interval is None else f" ({interval})"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent without its sign, ``n/a`` for nothing."""
    return "n/a" if value is None else f"{100 * value:.{digits}f}"


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
