"""The stream that each model predicts for each item, and whether the models agree on it."""

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
    """The class that one model predicts for an item, the stream of that class, and the score.

    ``score`` is ``None`` for a label that a person drew.
    """

    class_name: str
    stream: str
    score: float | None

    def __str__(self) -> str:
        return f"{self.stream} · {self.class_name}" + ("" if self.score is None else f" {self.score:.2f}")


@dataclass(frozen=True, slots=True)
class PhotoItem:
    """One item on the photo: its box ``(x, y, w, h)`` in pixels, and the prediction of each model that
    detects it, by the model's title.
    """

    box: NDArray[np.float64]
    predictions: dict[str, StreamPrediction] = field(default_factory=dict)

    def same_stream(self, titles: Sequence[str]) -> bool:
        """Whether all these models detect the item and predict the same stream.

        The classes that they predict may differ.
        """
        return (
            all(title in self.predictions for title in titles)
            and len({self.predictions[title].stream for title in titles}) == 1
        )


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """The result of comparing the models' predictions: ``kind``, and a sentence in Markdown."""

    kind: Literal["agree", "partly", "disagree", "nothing"]
    sentence: str


def find_items(found: Mapping[str, Detections], taxonomy: Taxonomy) -> list[PhotoItem]:
    """Group the detections of several models (by title) into items, the highest score first.

    The caller removes detections below the confidence threshold.

    Detections are taken in the order of their scores, over all models. A detection joins the item that it
    overlaps most if their IoU is at least 0.5; otherwise it becomes an item of its own. Classes are not
    compared, as in sorting accuracy. A model's best detection of an item is its prediction for the item.
    """
    scored_boxes = [
        (float(score), title, np.asarray(box, np.float64), int(class_id))
        for title, detections in found.items()
        for box, class_id, score in zip(
            detections.boxes, detections.class_ids, detections.scores, strict=True
        )
    ]
    items: list[PhotoItem] = []
    for score, title, box, class_id in sorted(scored_boxes, key=lambda d: -d[0]):
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
    """Compare the streams that these models (at least one) predict for each item.

    A model that misses an item does not agree on it.
    """
    subject = titles[0] if len(titles) == 1 else "Both models" if len(titles) == 2 else "All models"
    if not items:
        return ModelComparison(
            "nothing",
            f"{subject} {'finds' if len(titles) == 1 else 'find'} nothing that sure; "
            "nothing would be sorted.",
        )
    streams = _join(
        [
            f"**{stream}**"
            for stream in dict.fromkeys(p.stream for item in items for p in item.predictions.values())
        ]
    )
    objects = "it" if len(items) == 1 else f"{len(items)} items"
    if len(titles) == 1:
        return ModelComparison("agree", f"{subject} sends {objects} to {streams}.")
    agreed = sum(item.same_stream(titles) for item in items)
    if agreed == len(items):
        return ModelComparison(
            "agree",
            f"{subject} send {objects} to "
            f"{streams}{', each to the same' if agreed > 1 and ' and ' in streams else ''}.",
        )
    if len(items) == 1:
        titles_by_stream: dict[str, list[str]] = {}
        for title in titles:
            prediction = items[0].predictions.get(title)
            stream = f"**{prediction.stream}**" if prediction else "not seen"
            titles_by_stream.setdefault(stream, []).append(title)
        details = "; ".join(f"{_join(group)}: {stream}" for stream, group in titles_by_stream.items())
        return ModelComparison("disagree", f"The models disagree. {details}.")
    if agreed:
        return ModelComparison(
            "partly", f"The models agree on {agreed} of the {len(items)} items that any of them sees."
        )
    return ModelComparison(
        "disagree", f"The models agree on none of the {len(items)} items that any of them sees."
    )


def item_rows(items: Sequence[PhotoItem], titles: Sequence[str]) -> list[dict[str, str | int]]:
    """The items as rows of a table: each model's prediction, and whether all predict the same stream."""
    return [
        {"Item": number}
        | {title: str(item.predictions.get(title, "not seen")) for title in titles}
        | {"One stream": "yes" if item.same_stream(titles) else "no"}
        for number, item in enumerate(items, start=1)
    ]


def sort_photo(labels: Labels, detections: Detections, taxonomy: Taxonomy) -> SortingCounts:
    """Compare the detections of one photo with its ground truth, by the rule of sorting accuracy."""
    truth = GroundTruth(
        ("photo",), np.zeros(len(labels), np.int64), labels.boxes, labels.class_ids, labels.crowd
    )
    predictions = Predictions.from_detections(["photo"], [detections])
    return count_sorted_items(truth, predictions, match_items(truth, predictions), taxonomy.stream_of)


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
