"""Which stream each item would go to, and whether the models agree on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataset import Labels
from evaluation import GroundTruth, Predictions
from evaluation.flat_arrays import MATCH_IOU
from evaluation.sorting_accuracy import SortingCounts, count_sorted_items, match_items
from trashnet.boxes import iou
from trashnet.detectors import Detections
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class StreamPrediction:
    """What one model takes an item for, where that goes, and how sure it is.

    ``score`` is ``None`` for a person.
    """

    class_name: str
    stream: str
    score: float | None

    def __str__(self) -> str:
        return f"{self.stream} · {self.class_name}" + ("" if self.score is None else f" {self.score:.2f}")


@dataclass(frozen=True, slots=True)
class PhotoItem:
    """One thing on the photo: its box ``(x, y, w, h)`` in pixels and what each model, by title, takes it for,
    if it sees it.
    """

    box: NDArray[np.float64]
    predictions: dict[str, StreamPrediction] = field(default_factory=dict)

    def same_stream(self, titles: Sequence[str]) -> bool:
        """Whether every one of these models sees it and sends it to one stream.

        The class may differ: the chamber is the same.
        """
        return (
            all(title in self.predictions for title in titles)
            and len({self.predictions[title].stream for title in titles}) == 1
        )


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """What the models' predictions come to: ``kind``, and a sentence in Markdown."""

    kind: Literal["agree", "partly", "disagree", "nothing"]
    sentence: str


def find_items(found: Mapping[str, Detections], taxonomy: Taxonomy) -> list[PhotoItem]:
    """Put together what several models (by title) found, the surest first.

    Leave out beforehand what is too unsure to sort by.

    Every detection, best first over all models, joins the item it overlaps most, if that is at IoU >= 0.5; if
    not it is an item of its own. As in sorting accuracy the class plays no part, and a model's best detection
    of an item is its prediction for it.
    """
    everything = [
        (float(score), title, np.asarray(box, np.float64), int(class_id))
        for title, one in found.items()
        for box, class_id, score in zip(one.boxes, one.class_ids, one.scores, strict=True)
    ]
    items: list[PhotoItem] = []
    for score, title, box, class_id in sorted(everything, key=lambda d: -d[0]):
        overlaps = iou(box[None], np.array([item.box for item in items]).reshape(-1, 4))[0]
        if items and overlaps.max() >= MATCH_IOU:
            item = items[int(overlaps.argmax())]
        else:
            item = PhotoItem(box)
            items.append(item)
        item.predictions.setdefault(
            title, StreamPrediction(taxonomy.name_of[class_id], taxonomy.stream_of[class_id], score)
        )
    return items


def compare_streams(items: Sequence[PhotoItem], titles: Sequence[str]) -> ModelComparison:
    """Whether these models (one at least) send each item to one stream.

    A model that misses an item does not agree on it.
    """
    who = titles[0] if len(titles) == 1 else "Both models" if len(titles) == 2 else "All models"
    if not items:
        return ModelComparison(
            "nothing",
            f"{who} {'finds' if len(titles) == 1 else 'find'} nothing that sure; nothing would be sorted.",
        )
    streams = _and(
        [
            f"**{stream}**"
            for stream in dict.fromkeys(a.stream for item in items for a in item.predictions.values())
        ]
    )
    things = "it" if len(items) == 1 else f"{len(items)} items"
    if len(titles) == 1:
        return ModelComparison("agree", f"{who} sends {things} to {streams}.")
    same = sum(item.same_stream(titles) for item in items)
    if same == len(items):
        return ModelComparison(
            "agree",
            f"{who} send {things} to "
            f"{streams}{', each to the same' if same > 1 and ' and ' in streams else ''}.",
        )
    if len(items) == 1:
        sides: dict[str, list[str]] = {}
        for title in titles:
            prediction = items[0].predictions.get(title)
            sides.setdefault(f"**{prediction.stream}**" if prediction else "not seen", []).append(title)
        return ModelComparison(
            "disagree",
            f"The models disagree. {'; '.join(f'{_and(who)}: {stream}' for stream, who in sides.items())}.",
        )
    if same:
        return ModelComparison(
            "partly", f"The models agree on {same} of the {len(items)} items that any of them sees."
        )
    return ModelComparison(
        "disagree", f"The models agree on none of the {len(items)} items that any of them sees."
    )


def item_rows(items: Sequence[PhotoItem], titles: Sequence[str]) -> list[dict[str, str | int]]:
    """The items as rows of a table: each model's prediction, and whether all name one stream."""
    return [
        {"Item": number}
        | {title: str(item.predictions.get(title, "not seen")) for title in titles}
        | {"One stream": "yes" if item.same_stream(titles) else "no"}
        for number, item in enumerate(items, start=1)
    ]


def sort_photo(labels: Labels, detections: Detections, taxonomy: Taxonomy) -> SortingCounts:
    """How many of the items a person boxed would land where they belong, by the rule of sorting accuracy."""
    truth = GroundTruth(
        ("photo",), np.zeros(len(labels), np.int64), labels.boxes, labels.class_ids, labels.crowd
    )
    predictions = Predictions.from_detections(["photo"], [detections])
    return count_sorted_items(truth, predictions, match_items(truth, predictions), taxonomy.stream_of)


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
