"""A model's results on the frozen test split, as one JSON document."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.sorting_accuracy import BinomialProportion
from trashnet.errors import UserError
from trashnet.files import write_json

Unit = Annotated[float, Field(ge=0, le=1)]


class ScorecardPart(BaseModel):
    """A piece of a scorecard: frozen, and strict about what it holds.

    ``None`` is "nothing to say", never 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Proportion(ScorecardPart):
    """A share with the counts behind it and its 95% Wilson interval."""

    hits: int
    of: int
    value: Unit | None
    low: Unit | None
    high: Unit | None

    @classmethod
    def from_counts(cls, share: BinomialProportion) -> Self:
        """From counts."""
        low, high = share.interval or (None, None)
        return cls(hits=share.hits, of=share.of, value=share.value, low=low, high=high)

    def __str__(self) -> str:
        return (
            f"{percent(self.value)}% ({percent(self.low)} to {percent(self.high)}, {self.hits} of {self.of})"
        )


class ModelInfo(ScorecardPart):
    """Which file was judged."""

    file: str | None
    bytes: int | None
    sha256: str | None
    input_size: tuple[int, int] | None  # (height, width) in pixels


class SplitInfo(ScorecardPart):
    """What it was judged on; scorecards are comparable where ``digest`` agrees."""

    frames: int
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
    """Where items went at the sorting score; ``evaluation.sorting_accuracy`` holds the rule."""

    score: float
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

    format: Literal[1] = 1
    name: str
    model: ModelInfo
    split: SplitInfo
    coco: dict[str, Unit | None]
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
        """The flat numbers that ``dvc metrics diff`` compares; what has no value is left out."""
        sorting = self.sorting
        numbers: dict[str, float | int | None] = {
            **self.coco,
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
            "test_items": self.split.items,
        }
        return {name: round(value, 6) for name, value in numbers.items() if value is not None}

    def summary(self) -> str:
        """The result in five lines for the terminal."""
        sorting = self.sorting
        return "\n".join(
            (
                f"{self.name}: {self.split.frames} test frames, {self.split.items} items",
                f"  AP {percent(self.coco['ap'])}   AP50 {percent(self.coco['ap50'])}   AR100 "
                f"{percent(self.coco['ar_100'])}",
                f"  sorted right {sorting.accuracy}, of items found "
                f"{percent(sorting.accuracy_of_found.value)}",
                f"  contamination {sorting.contamination}",
                f"  latency median {_text(_milliseconds(self.latency.median_s))} ms, p95 "
                f"{_text(_milliseconds(self.latency.p95_s))} ms "
                f"({self.latency.cpu}, {self.latency.threads} threads)",
            )
        )


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent without its sign, ``n/a`` for nothing."""
    return "n/a" if value is None else f"{100 * value:.{digits}f}"


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
