"""Score frames in two looks: how much would each teach, and why.

The student (or the bin itself, where it ran the student) looks at every new frame, which is cheap. The
teacher looks only at the best of them, a few for each task that there is room for. Scores are kept: a new
model looks again at the best frames, not at all frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from selection.acquisition import rarities, score_frame
from selection.params import SelectionParams
from selection.quotas import task_quotas
from selection.sampling import candidates, sample_frames
from trashnet.boxes import Box, clip
from trashnet.detectors import Detections, Detector
from trashnet.images import ReducedImage, decode_reduced
from trashnet.ledger import FrameScore, Ledger, UnscoredFrame
from trashnet.progress import progress_bar
from trashnet.store import NoSuchObject, ObjectStore
from trashnet.taxonomy import Taxonomy

NO_MODEL_NAME = "none"  # in the ledger's column `model` where no model scored
RANKING_BATCH = 256  # new frames that are read from the ledger at once
# Frames are decoded at no less than this times a detector's input: the detector's own scaling then does the
# rest, as it did in training.
DECODING_MARGIN = 2

Boxes = tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class ScoringModels:
    """The models that score frames, each ``None`` if there is none yet, and the classes of both."""

    teacher: Detector | None
    student: Detector | None
    taxonomy: Taxonomy

    @property
    def first_name(self) -> str:
        """The name under which the ledger keeps scores of the first look."""
        return f"{self.student.name} (student)" if self.student is not None else NO_MODEL_NAME

    @property
    def name(self) -> str:
        """The name under which the ledger keeps scores of the second look: the teacher's, if there is one."""
        return self.teacher.name if self.teacher is not None else self.first_name

    @property
    def min_side(self) -> int:
        """What frames are decoded at least at, in pixels of the shorter side."""
        sizes = [model.image_size for model in (self.teacher, self.student) if model is not None]
        return DECODING_MARGIN * max(sizes, default=1)

    def bin_ran_student(self, frame: UnscoredFrame) -> bool:
        """Whether the bin's own detections are the student's: it ran this release, or there is no student to
        run.
        """
        return frame.release is not None and (self.student is None or frame.release == self.student.name)


def select_frames(
    store: ObjectStore,
    ledger: Ledger,
    models: ScoringModels,
    class_counts: Mapping[str, int],
    params: SelectionParams,
    seed: int,
    count: int,
) -> list[str]:
    """The SHA-256s of at most ``count`` frames that people should see, best first.

    It scores what is new, samples, and lets the teacher look at the sampled frames that it has not seen, such
    as those drawn at random: every task begins with its boxes.

    Args:
        store: Where the frames are.
        ledger: Which frames are accepted; keeps scores, explanations and the teacher's boxes.
        models: The newest models.
        class_counts: Boxes per class name in the dataset.
        params: Weights, thresholds and bounds.
        seed: Of the random draws.
        count: For how many tasks there is room.
    """
    with Scorer(store, ledger, models, class_counts, params) as scorer:
        scorer.rank_new_frames()
        scorer.score_candidates(count)
        sampled = sample_frames(ledger, params, seed, count)
        scorer.score(sampled)
    return sampled


def score_frames(
    store: ObjectStore,
    ledger: Ledger,
    models: ScoringModels,
    class_counts: Mapping[str, int],
    params: SelectionParams,
    count: int,
) -> tuple[int, int]:
    """The first two steps of :func:`select_frames`.

    Returns:
        How many frames had a first look, and how many a second one.
    """
    with Scorer(store, ledger, models, class_counts, params) as scorer:
        return scorer.rank_new_frames(), scorer.score_candidates(count)


class Scorer:
    """Looks at frames and enters their scores, a batch in a transaction.

    A frame whose object is gone from the store is quarantined.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        models: ScoringModels,
        class_counts: Mapping[str, int],
        params: SelectionParams,
    ) -> None:
        self._store, self._ledger, self._models, self._params = store, ledger, models, params
        self._rarity = rarities(class_counts, params)
        self._threads = ThreadPoolExecutor(params.threads)

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def rank_new_frames(self) -> int:
        """Give frames without a score their first one; at most ``params.ranked_per_run``, returns how many.

        Where the bin ran the student, its detections are the student's and the frame is not even read. Once
        there is a student, frames that no model could score before count as new.
        """
        scored_by_none = NO_MODEL_NAME if self._models.student is not None else None
        most, ranked = self._params.ranked_per_run, 0
        total = self._ledger.count_unscored(most, scored_by_none)
        with progress_bar(total, "rank new frames", "frame") as bar:
            while ranked < most:
                frames = self._ledger.unscored(min(RANKING_BATCH, most - ranked), scored_by_none)
                if not frames:
                    break
                for count in self._rank(frames):
                    bar.update(count)
                ranked += len(frames)
        return ranked

    def _rank(self, frames: Sequence[UnscoredFrame]) -> Iterator[int]:
        """Give frames their first score; yields how many after each batch."""
        models = self._models
        seen = [frame for frame in frames if models.student is None or models.bin_ran_student(frame)]
        boxes = [frame.detections if models.bin_ran_student(frame) else None for frame in seen]
        self._save(seen, [None] * len(seen), boxes, models.first_name)
        yield len(seen)
        known = {frame.sha256 for frame in seen}
        for batch in self._batches([frame for frame in frames if frame.sha256 not in known]):
            present, pictures = self._load(batch)
            self._save(
                present, [None] * len(present), self._student_boxes(present, pictures), models.first_name
            )
            yield len(batch)

    def score_candidates(self, count: int) -> int:
        """Look again at the best frames for ``count`` tasks that the newest models have not scored."""
        if self._models.teacher is None and self._models.student is None:
            return 0
        quotas = task_quotas(self._ledger, self._params, count)
        name = self._models.name
        best = candidates(self._ledger, quotas, self._params, count)
        return self.score([frame.sha256 for frame in best if frame.model != name])

    def score(self, sha256s: Sequence[str]) -> int:
        """Let both models look at those of these accepted frames that they have not scored; how many."""
        models = self._models
        if models.teacher is None and models.student is None:
            return 0
        frames = [frame for frame in self._ledger.accepted_frames(sha256s) if frame.model != models.name]
        with progress_bar(len(frames), "score frames", "frame") as bar:
            for batch in self._batches(frames):
                present, pictures = self._load(batch)
                self._save(
                    present,
                    self._detect(models.teacher, pictures),
                    self._student_boxes(present, pictures),
                    models.name,
                )
                bar.update(len(batch))
        return len(frames)

    def _batches(self, frames: Sequence[UnscoredFrame]) -> Iterator[list[UnscoredFrame]]:
        """The frames in order, as many at once as the bounds on their number and pixels allow."""
        batch: list[UnscoredFrame] = []
        pixels = 0
        for frame in frames:
            more = frame.pixels or self._params.batch_pixels
            if batch and (len(batch) == self._params.batch_size or pixels + more > self._params.batch_pixels):
                yield batch
                batch, pixels = [], 0
            batch.append(frame)
            pixels += more
        if batch:
            yield batch

    def _load(self, batch: Sequence[UnscoredFrame]) -> tuple[list[UnscoredFrame], list[ReducedImage]]:
        """The frames whose objects are there, and their pictures; the others are quarantined.

        Frames are decoded near the detectors' size. It is safe here: each was decoded within limits before it
        was received.
        """

        def load(frame: UnscoredFrame) -> ReducedImage | None:
            try:
                data = self._store.get(frame.key)
            except NoSuchObject:
                return None
            return decode_reduced(data, self._models.min_side)

        loaded = list(zip(batch, self._threads.map(load, batch), strict=True))
        self._ledger.quarantine_missing([frame.sha256 for frame, picture in loaded if picture is None])
        present = [(frame, picture) for frame, picture in loaded if picture is not None]
        return [frame for frame, _ in present], [picture for _, picture in present]

    def _student_boxes(
        self, frames: Sequence[UnscoredFrame], pictures: Sequence[ReducedImage]
    ) -> list[Boxes | None]:
        """The student's boxes: the bin's own detections, unless the bin ran another release."""
        models = self._models
        boxes: list[Boxes | None] = [
            frame.detections if models.bin_ran_student(frame) else None for frame in frames
        ]
        missing = [index for index, known in enumerate(boxes) if known is None]
        found = self._detect(models.student, [pictures[index] for index in missing])
        for index, detected in zip(missing, found, strict=True):
            boxes[index] = detected
        return boxes

    def _detect(self, model: Detector | None, pictures: Sequence[ReducedImage]) -> list[Boxes | None]:
        """A model's boxes on each picture in pixels of the whole frame, ``None`` if there is no model."""
        if model is None or not pictures:
            return [None] * len(pictures)
        found = model.detect([picture.pixels for picture in pictures])
        return [
            _boxes(detections, self._models.taxonomy, picture)
            for detections, picture in zip(found, pictures, strict=True)
        ]

    def _save(
        self,
        frames: Sequence[UnscoredFrame],
        teacher: Sequence[Boxes | None],
        student: Sequence[Boxes | None],
        name: str,
    ) -> None:
        scores = []
        for frame, teacher_boxes, student_boxes in zip(frames, teacher, student, strict=True):
            score = score_frame(teacher_boxes, student_boxes, self._rarity, self._params)
            scores.append(FrameScore(frame.sha256, score.score, score.explanation, teacher_boxes, name))
        if scores:
            self._ledger.save_scores(scores)


def _boxes(detections: Detections, taxonomy: Taxonomy, picture: ReducedImage) -> Boxes:
    rows = zip(
        (detections.boxes * picture.factor).tolist(),
        detections.class_ids.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    boxes = []
    for xywh, class_id, score in rows:
        x, y, w, h = (round(value, 2) for value in clip(xywh, picture.width, picture.height))
        boxes.append(Box(taxonomy.name_of[class_id], x, y, w, h, round(score, 4)))
    return tuple(boxes)
