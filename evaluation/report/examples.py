"""Contact sheets: the frames a model does worst on, with ground truth and detections drawn in."""

import base64
from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import Frame, Frames
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.sorting_accuracy import MISSED, UNMATCHED, Matches, match_items
from trashnet.box_drawing import draw_thumbnail_box
from trashnet.taxonomy import Taxonomy

THUMBNAIL_SIDE = 380  # pixels of a thumbnail's longer side: twelve of them are about 300 kB
RIGHT_COLOUR, WRONG_COLOUR, MISSED_COLOUR, FALSE_COLOUR = (
    (48, 164, 108),
    (240, 118, 20),
    (229, 72, 77),
    (150, 80, 210),
)  # RGB
CLEAR_SCORE = (
    0.5  # a false detection from this score on spoils a frame; weaker ones are drawn but not counted
)


@dataclass(frozen=True)
class Example:
    """One thumbnail: the frame, a ``data:`` address of its JPEG, and what went wrong in words."""

    sha256: str
    data: str
    mistakes: tuple[str, ...]


def find_worst_frames(
    frames: Frames, truth: GroundTruth, predictions: Predictions, taxonomy: Taxonomy, score: float, limit: int
) -> list[Example]:
    """The frames with most mistakes, worst first; frames without a mistake are left out.

    A mistake is a missed item, an item sent to a wrong stream, or a false detection of a clear score.
    """
    acted = predictions.above(score)
    matches = match_items(truth, acted)
    num_mistakes = np.zeros(len(truth.images))
    for row, match in enumerate(matches.detection_indices.tolist()):
        if match == MISSED:
            num_mistakes[truth.image[row]] += 1
        elif match >= 0:
            sent, belongs = (
                taxonomy.stream_of[int(acted.class_ids[match])],
                taxonomy.stream_of[int(truth.class_ids[row])],
            )
            num_mistakes[truth.image[row]] += sent != belongs
    clear = (matches.item_indices == UNMATCHED) & (acted.scores >= CLEAR_SCORE)
    num_mistakes += np.bincount(acted.image[clear], minlength=len(num_mistakes))
    worst = [int(i) for i in np.argsort(-num_mistakes, kind="stable")[:limit] if num_mistakes[i] > 0]
    return [draw_frame(frames, i, truth, acted, matches, taxonomy) for i in worst]


def draw_frame(
    frames: Frames,
    position: int,
    truth: GroundTruth,
    acted: Predictions,
    matches: Matches,
    taxonomy: Taxonomy,
) -> Example:
    """A frame with what a model made of it. ``acted``: the detections that it acts on, with their matches."""
    detection_indices, item_indices = matches.detection_indices, matches.item_indices
    canvas, scale = _thumbnail(frames[position])
    texts: Counter[str] = Counter()
    for row in range(acted.offsets[position], acted.offsets[position + 1]):
        if item_indices[row] == UNMATCHED:
            name = taxonomy.name_of[int(acted.class_ids[row])]
            draw_thumbnail_box(
                canvas, acted.boxes[row] * scale, FALSE_COLOUR, f"{name} {acted.scores[row]:.2f}", below=True
            )
            texts[f"false {name}"] += 1
    for row in range(truth.offsets[position], truth.offsets[position + 1]):
        name, match = taxonomy.name_of[int(truth.class_ids[row])], int(detection_indices[row])
        box = truth.boxes[row] * scale
        if match == MISSED:
            draw_thumbnail_box(canvas, box, MISSED_COLOUR, name)
            texts[f"{name} missed"] += 1
        elif match >= 0:
            seen, really = int(acted.class_ids[match]), int(truth.class_ids[row])
            wrong = taxonomy.stream_of[seen] != taxonomy.stream_of[really]
            label = (
                f"{taxonomy.name_of[seen]} {acted.scores[match]:.2f}" if wrong else ""
            )  # names only where something is wrong
            draw_thumbnail_box(
                canvas, acted.boxes[match] * scale, WRONG_COLOUR if wrong else RIGHT_COLOUR, label
            )
            if wrong:
                texts[f"{name} sent to {taxonomy.stream_of[seen]} as {taxonomy.name_of[seen]}"] += 1
    mistakes = tuple(f"{count} x {text}" if count > 1 else text for text, count in texts.most_common())
    return Example(truth.images[position], _data_address(canvas), mistakes)


def draw_labels(frame: Frame, taxonomy: Taxonomy) -> str:
    """A thumbnail of a frame with its labels, as a ``data:`` address of a JPEG."""
    canvas, scale = _thumbnail(frame)
    if frame.labels is not None:
        for box, class_id in zip(frame.labels.boxes, frame.labels.class_ids.tolist(), strict=True):
            draw_thumbnail_box(canvas, box * scale, RIGHT_COLOUR, taxonomy.name_of[class_id])
    return _data_address(canvas)


def _thumbnail(frame: Frame) -> tuple[NDArray[np.uint8], float]:
    """The picture at the size of a thumbnail, RGB, and how many of its pixels one of the frame's takes."""
    image = frame.image()
    scale = THUMBNAIL_SIDE / max(image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=method).astype(np.uint8, copy=False), scale


def _data_address(canvas: NDArray[np.uint8]) -> str:
    jpeg = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
