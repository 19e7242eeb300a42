"""Score frames: how much would each teach, and why. It costs what is new, or was scored by another model."""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selection.acquisition import rarities, score_frame
from selection.params import SelectionParams
from trashnet.boxes import Box
from trashnet.detectors import Detections, Detector
from trashnet.ledger import FrameScore, Ledger, UnscoredFrame
from trashnet.store import NoSuchObject, ObjectStore
from trashnet.taxonomy import Taxonomy

NO_MODEL_NAME = "none"  # in the ledger's column `model` where no model scored

Boxes = tuple[Box, ...]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ScoringModels:
    """The models that score frames."""

    teacher: Detector | None
    student: Detector | None
    taxonomy: Taxonomy

    @property
    def name(self) -> str:
        """The name under which the ledger keeps the scores: the teacher's, without one the student's."""
        model = self.teacher or self.student
        return model.name if model is not None else NO_MODEL_NAME

    def bin_ran_student(self, frame: UnscoredFrame) -> bool:
        """Whether the bin's own detections are the student's: it ran this release, or there is no student to
        run.
        """
        return frame.release is not None and (self.student is None or frame.release == self.student.name)


def score_frames(
    store: ObjectStore,
    ledger: Ledger,
    teacher: Detector | None,
    student: Detector | None,
    class_counts: Mapping[str, int],
    taxonomy: Taxonomy,
    params: SelectionParams,
) -> int:
    """Score the accepted frames that these models have not scored.

    The ledger keeps score, reason and the teacher's boxes.

    The student's boxes are the bin's own detections, unless the bin ran another release than ``student``.
    Each batch is one transaction. Frames whose objects are gone from the store are quarantined.

    Args:
        store: Where the frames are.
        ledger: Which frames are accepted.
        teacher: The pre-labelling model, ``None`` if there is none yet.
        student: The bins' model, ``None`` if there is none yet.
        class_counts: Boxes per class name in the dataset.
        taxonomy: The classes of both models.
        params: Weights and thresholds.

    Returns:
        How many frames were scored.
    """
    models, rarity, scored = ScoringModels(teacher, student, taxonomy), rarities(class_counts, params), 0
    with ThreadPoolExecutor(params.threads) as threads:
        while batch := ledger.unscored(models.name, params.batch_size):
            pictures: Sequence[Picture | None] = [None] * len(batch)
            if teacher is not None or student is not None:
                pictures = list(threads.map(lambda frame: _load(store, frame.key), batch))
                missing = [
                    frame.sha256 for frame, picture in zip(batch, pictures, strict=True) if picture is None
                ]
                ledger.quarantine_missing(missing)
            scores = []
            for frame, teacher_boxes, student_boxes in _detect(models, batch, pictures):
                score = score_frame(teacher_boxes, student_boxes, rarity, params)
                scores.append(
                    FrameScore(frame.sha256, score.score, score.explanation, teacher_boxes, models.name)
                )
            scored += ledger.save_scores(scores)
    return scored


def _load(store: ObjectStore, key: str) -> Picture | None:
    """The frame's pixels, uint8 ``(height, width, 3)``, RGB; ``None`` if its object is gone.

    It is safe to decode here: it was decoded within limits before it was received.
    """
    try:
        data = store.get(key)
    except NoSuchObject:
        return None
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def _detect(
    models: ScoringModels, batch: Sequence[UnscoredFrame], pictures: Sequence[Picture | None]
) -> list[tuple[UnscoredFrame, Boxes | None, Boxes | None]]:
    """The frames that are there, each with the teacher's and the student's boxes.

    ``None`` for a model that there is not.
    """
    if models.teacher is None and models.student is None:
        return [(frame, None, frame.detections if models.bin_ran_student(frame) else None) for frame in batch]
    loaded = [(frame, picture) for frame, picture in zip(batch, pictures, strict=True) if picture is not None]
    teacher_boxes: list[Boxes | None] = [None] * len(loaded)
    if models.teacher is not None:
        found = models.teacher.detect([picture for _, picture in loaded])
        teacher_boxes = [_boxes(detections, models.taxonomy) for detections in found]
    student_boxes: list[Boxes | None] = [
        frame.detections if models.bin_ran_student(frame) else None for frame, _ in loaded
    ]
    if models.student is not None:
        missing = [index for index, boxes in enumerate(student_boxes) if boxes is None]
        found = models.student.detect([loaded[index][1] for index in missing]) if missing else []
        for index, detections in zip(missing, found, strict=True):
            student_boxes[index] = _boxes(detections, models.taxonomy)
    return [
        (frame, teacher, student)
        for (frame, _), teacher, student in zip(loaded, teacher_boxes, student_boxes, strict=True)
    ]


def _boxes(detections: Detections, taxonomy: Taxonomy) -> Boxes:
    rows = zip(
        detections.boxes.tolist(), detections.class_ids.tolist(), detections.scores.tolist(), strict=True
    )
    boxes = []
    for xywh, class_id, score in rows:
        x, y, w, h = (round(value, 2) for value in xywh)
        boxes.append(Box(taxonomy.name_of[class_id], x, y, w, h, round(score, 4)))
    return tuple(boxes)
