"""Score frames: which are worth a person's time, and why. It costs what is new, or was scored by another model."""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import select, update

from selection.acquisition import rarities, weigh
from selection.params import SelectionParams
from trashnet.detectors import Detections, Detector
from trashnet.ledger import Ledger
from trashnet.ledger.ledger import move
from trashnet.ledger.tables import frames
from trashnet.store import NoSuchObject, ObjectStore
from trashnet.taxonomy import Taxonomy

NOBODY = "none"  # stands in the ledger's column `model` where no model scored

Boxes = list[dict[str, Any]]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Unscored:
    """A frame to be scored, with what its bin saw."""

    sha256: str
    key: str
    release: str | None
    detections: Boxes


@dataclass(frozen=True, slots=True)
class Models:
    """What scores frames."""

    teacher: Detector | None
    student: Detector | None
    taxonomy: Taxonomy

    @property
    def name(self) -> str:
        """What stands in the ledger for the one who scored: the teacher's name, without one the student's."""
        model = self.teacher or self.student
        return model.name if model is not None else NOBODY

    def trust(self, frame: Unscored) -> bool:
        """Whether the bin's own boxes are the student's: it ran this release, or there is no student to ask."""
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
    """Score the accepted frames that these models have not scored; score, reason and the teacher's boxes stand in the ledger.

    ``class_counts`` are the boxes per class name in the dataset. The student's boxes are the bin's own,
    unless the bin ran another release than the student handed in. Returns how many frames were scored; each
    batch is one transaction.
    """
    models, rarity, scored = Models(teacher, student, taxonomy), rarities(class_counts, params), 0
    with ThreadPoolExecutor(params.threads) as threads:
        while batch := _unscored(ledger, models.name, params.batch_size):
            pictures: Sequence[Picture | None] = [None] * len(batch)
            if teacher is not None or student is not None:
                pictures = list(threads.map(lambda frame: _picture(store, frame.key), batch))
                _set_lost_aside(
                    ledger, [frame for frame, picture in zip(batch, pictures, strict=True) if picture is None]
                )
            judged = _judge(models, batch, pictures)
            with ledger.transaction() as connection:
                for frame, (ours, theirs) in judged:
                    worth = weigh(ours, theirs, rarity, params)
                    told = {
                        "score": worth.score,
                        "explanation": worth.explanation,
                        "prediction": ours,
                        "model": models.name,
                    }
                    wanted = (frames.c.sha256 == frame.sha256) & (frames.c.state == "accepted")
                    scored += connection.execute(update(frames).where(wanted).values(told)).rowcount
    return scored


def _unscored(ledger: Ledger, model: str, limit: int) -> list[Unscored]:
    columns = frames.c
    query = (
        select(columns.sha256, columns.key, columns.release, columns.detections)
        .where(columns.state == "accepted")
        .limit(limit)
    )
    with ledger.transaction() as connection:
        for by_others in (
            columns.model.is_(None),
            columns.model < model,
            columns.model > model,
        ):  # each one range of the index
            if found := connection.execute(query.where(by_others)).all():
                return [Unscored(row[0], row[1], row[2], row[3] or []) for row in found]
    return []


def _picture(store: ObjectStore, key: str) -> Picture | None:
    """The frame's pixels, uint8 ``(height, width, 3)``, RGB: it was decoded once within limits before it was received."""
    try:
        data = store.get(key)
    except NoSuchObject:
        return None
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def _set_lost_aside(ledger: Ledger, lost: Sequence[Unscored]) -> None:
    """A frame whose object somebody removed can't be scored: the ledger says so, and triage goes on."""
    with ledger.transaction() as connection:
        for frame in lost:
            move(
                connection,
                frame.sha256,
                "accepted",
                "quarantined",
                note=f"{frame.key} is gone",
                quarantine_reason="lost",
                key=None,
            )


def _judge(
    models: Models, batch: Sequence[Unscored], pictures: Sequence[Picture | None]
) -> list[tuple[Unscored, tuple[Boxes | None, Boxes | None]]]:
    """The frames that are there, each with the teacher's and the student's boxes; ``None`` where a model has no word."""
    if models.teacher is None and models.student is None:
        return [(frame, (None, frame.detections if models.trust(frame) else None)) for frame in batch]
    seen = [(frame, picture) for frame, picture in zip(batch, pictures, strict=True) if picture is not None]
    ours: list[Boxes | None] = [None] * len(seen)
    if models.teacher is not None:
        ours = [
            _boxes(found, models.taxonomy)
            for found in models.teacher.detect([picture for _, picture in seen])
        ]
    theirs: list[Boxes | None] = [frame.detections if models.trust(frame) else None for frame, _ in seen]
    if models.student is not None:
        asked = [place for place, boxes in enumerate(theirs) if boxes is None]
        answers = models.student.detect([seen[place][1] for place in asked]) if asked else []
        for place, found in zip(asked, answers, strict=True):
            theirs[place] = _boxes(found, models.taxonomy)
    return [(frame, boxes) for (frame, _), boxes in zip(seen, zip(ours, theirs, strict=True), strict=True)]


def _boxes(found: Detections, taxonomy: Taxonomy) -> Boxes:
    return [
        {
            "label": taxonomy.name_of[class_id],
            "score": round(score, 4),
            "box": [round(side, 2) for side in box],
        }
        for box, class_id, score in zip(
            found.boxes.tolist(), found.class_ids.tolist(), found.scores.tolist(), strict=True
        )
    ]
