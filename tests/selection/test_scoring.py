"""Two looks: the student at what is new, the teacher at the best few; decoded near the detectors' size."""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.support.memory_store import MemoryStore
from selection import ScoringModels, SelectionParams, score_frames, select_frames
from tests.ingest.uploads import jpeg, scene
from tests.selection.test_selection import Fixed
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet import progress
from trashnet.boxes import Box
from trashnet.detectors import Detections
from trashnet.ledger import EXPLORATION, FrameRow, Ledger
from trashnet.taxonomy import Taxonomy

# Three tasks with four candidates each: the teacher looks at twelve frames.
PARAMS = SelectionParams(candidates_per_task=4, exploration_share=0, batch_size=5, threads=2)
ROOM = 3


@pytest.fixture
def store() -> MemoryStore:
    """A store in memory."""
    return MemoryStore()


def enter(
    store: MemoryStore, ledger: Ledger, count: int, data: bytes | None = None, **values: Any
) -> list[str]:
    """Accepted frames of five bins; their SHA-256s."""
    rows = []
    for number in range(count):
        picture = data or jpeg(scene(number))
        sha256 = hashlib.sha256(b"%d" % number + picture).hexdigest()
        store.put(f"frames/{sha256}.jpg", picture)
        with Image.open(io.BytesIO(picture)) as image:
            width, height = image.size
        given = {"bin_id": f"bin{number % 5}", "burst": str(number), "descriptor": bytes([number] * 192)}
        given |= {"width": width, "height": height}
        rows.append(
            FrameRow(
                sha256=sha256,
                uploaded_sha256=sha256,
                state="accepted",
                inbox_key=f"inbox/{sha256}.json",
                key=f"frames/{sha256}.jpg",
                **given | values,  # type: ignore[arg-type]
            )
        )
    ledger.upsert_uploads(rows)
    return [row.sha256 for row in rows]


class ByMean(Fixed):
    """A detector that is the surer of its one box, the brighter a picture is."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """One box of 10 x 10 pixels per picture."""
        self.asked += len(images)
        box, ids = np.array([[0, 0, 10, 10]], np.float32), np.array([1])
        return [Detections(box, ids, np.array([image.mean() / 256], np.float32)) for image in images]


def grey(level: int) -> bytes:
    """A picture of one grey level."""
    return jpeg(Image.new("RGB", (64, 64), (level, level, level)))


def test_the_teacher_looks_at_the_best_few_of_what_the_student_saw(
    store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy
) -> None:
    """Of 40 frames the student sees all, the teacher the 12 that the student is least sure about."""
    levels = {}
    for level in range(2, 82, 2):  # from 128 on the student is least sure: the greater, the better
        (sha256,) = enter(store, ledger, 1, grey(level))
        levels[sha256] = level
    teacher, student = ByMean("c1"), ByMean("c1")
    models = ScoringModels(teacher, student, taxonomy)
    sampled = select_frames(store, ledger, models, {}, PARAMS, 1, ROOM)
    assert (student.asked, teacher.asked) == (40 + 12, 12)
    seen = {levels[row.sha256] for row in frames_in_state(ledger, "accepted") if row.model == "c1"}
    assert seen == set(range(58, 82, 2))
    assert len(sampled) == ROOM
    assert {levels[sha256] for sha256 in sampled} <= seen
    assert select_frames(store, ledger, models, {}, PARAMS, 1, ROOM) == sampled
    assert (student.asked, teacher.asked) == (40 + 12, 12)  # nothing is looked at twice


def test_a_new_candidate_looks_again_at_the_best_alone(
    store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy
) -> None:
    """40 scored frames, a new candidate: its models look at 12 of them, and the other scores stay."""
    enter(store, ledger, 40)
    first = ScoringModels(ByMean("c1"), ByMean("c1"), taxonomy)
    select_frames(store, ledger, first, {}, PARAMS, 1, ROOM)
    before = {row.sha256: row for row in frames_in_state(ledger, "accepted")}
    teacher, student = ByMean("c2"), ByMean("c2")
    select_frames(store, ledger, ScoringModels(teacher, student, taxonomy), {}, PARAMS, 1, ROOM)
    assert (student.asked, teacher.asked) == (12, 12)
    after = {row.sha256: row for row in frames_in_state(ledger, "accepted")}
    assert sum(after[sha256] == before[sha256] for sha256 in before) == 28


def test_the_first_student_looks_at_what_no_model_could_score(
    store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy
) -> None:
    """Before there was a model every score was 0: with the first candidate these frames are ranked anew."""
    enter(store, ledger, 20)
    select_frames(store, ledger, ScoringModels(None, None, taxonomy), {}, PARAMS, 1, ROOM)
    assert {row.model for row in frames_in_state(ledger, "accepted")} == {"none"}
    student = ByMean("c1")
    models = ScoringModels(ByMean("c1"), student, taxonomy)
    assert score_frames(store, ledger, models, {}, PARAMS, ROOM) == (20, 12)
    assert {row.model for row in frames_in_state(ledger, "accepted")} == {"c1", "c1 (student)"}


def test_tasks_do_not_wait_for_the_last_frame(store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy) -> None:
    """A run ranks at most so many frames, samples of them, and the next run goes on with the rest."""
    enter(store, ledger, 30)
    params = PARAMS.model_copy(update={"ranked_per_run": 20})
    student = ByMean("c1")
    models = ScoringModels(None, student, taxonomy)
    assert len(select_frames(store, ledger, models, {}, params, 1, ROOM)) == ROOM
    assert student.asked == 20
    select_frames(store, ledger, models, {}, params, 1, ROOM)
    assert student.asked == 30


def test_a_frame_whose_bin_ran_the_student_is_ranked_without_being_read(
    store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy
) -> None:
    """The sidecar's detections are the student's boxes: the first look costs no request and no decoding."""
    enter(store, ledger, 6, release="c1", detections=(Box("Battery", 0, 0, 9, 9, 0.5),))
    store.objects.clear()
    student = ByMean("c1")
    assert score_frames(store, ledger, ScoringModels(None, student, taxonomy), {}, PARAMS, ROOM) == (6, 0)
    assert student.asked == 0
    assert [row.score for row in frames_in_state(ledger, "accepted")] == [pytest.approx(1 / 9)] * 6


def test_frames_drawn_at_random_have_the_teachers_boxes_and_their_mark(
    store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy
) -> None:
    """Their tasks begin with boxes as the others do; the explanation says that they were drawn, and more."""
    enter(store, ledger, 60)
    params = PARAMS.model_copy(update={"exploration_share": 0.5, "candidates_per_task": 1})
    teacher = ByMean("c1")
    models = ScoringModels(teacher, ByMean("c1"), taxonomy)
    sampled = select_frames(store, ledger, models, {}, params, 1, 10)
    rows = [row for sha256 in sampled if (row := ledger.frame(sha256))]
    assert {row.model for row in rows} == {"c1"}
    assert all(row.prediction for row in rows)
    marked = [row for row in rows if str(row.explanation).startswith(f"{EXPLORATION}; ")]
    assert len(marked) == 5
    assert teacher.asked <= 10 + 5


class Bright(Fixed):
    """A detector of 100 pixels a side that finds the bright rectangle, and notes what it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.batches: list[list[tuple[int, ...]]] = []

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """The rectangle around all pixels above 128."""
        self.batches.append([image.shape for image in images])
        found = []
        for image in images:
            rows, columns = (np.flatnonzero((image[..., 0] > 128).any(axis=axis)) for axis in (1, 0))
            box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            found.append(Detections(np.array([box], np.float32), np.array([1]), np.array([0.9], np.float32)))
        return found


def rectangle(width: int, height: int, x: int, y: int, w: int, h: int) -> bytes:
    """A black picture with a white rectangle."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    return jpeg(Image.fromarray(pixels))


@pytest.mark.parametrize(
    ("size", "box", "shape"),
    [
        ((399, 300), (40, 32, 80, 64), (300, 399, 3)),  # not twice as large as decoded at least: whole
        ((403, 400), (40, 32, 80, 64), (200, 202, 3)),  # 400 = 2 x 2 x 100; 403 / 2, rounded up
        ((4000, 3000), (1000, 600, 800, 400), (375, 500, 3)),  # an eighth at most
        ((1603, 1601), (1200, 1200, 403, 401), (201, 201, 3)),  # up to the edge, which is no multiple of 8
    ],
)
def test_boxes_are_in_pixels_of_the_whole_frame(
    store: MemoryStore,
    ledger: Ledger,
    taxonomy: Taxonomy,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    shape: tuple[int, ...],
) -> None:
    """However small a frame was decoded, its boxes lie where they are, within the frame."""
    enter(store, ledger, 1, rectangle(*size, *box))
    teacher = Bright("t1")
    score_frames(store, ledger, ScoringModels(teacher, None, taxonomy), {}, PARAMS, ROOM)
    assert teacher.batches == [[shape]]
    (row,) = frames_in_state(ledger, "accepted")
    assert row.prediction is not None
    (found,) = row.prediction
    assert found.xywh == pytest.approx(box, abs=8)
    assert found.x + found.w <= size[0]
    assert found.y + found.h <= size[1]


def test_a_batch_is_bounded_by_pixels(store: MemoryStore, ledger: Ledger, taxonomy: Taxonomy) -> None:
    """Frames of 200,000 pixels with a bound of 450,000 come in twos; larger ones come alone, none is left."""
    enter(store, ledger, 5, rectangle(500, 400, 0, 0, 9, 9))
    enter(store, ledger, 2, rectangle(1000, 600, 0, 0, 9, 9))
    enter(store, ledger, 1, rectangle(10, 10, 0, 0, 9, 9), width=None, height=None)
    teacher, params = Bright("t1"), PARAMS.model_copy(update={"batch_pixels": 450_000})
    assert score_frames(store, ledger, ScoringModels(teacher, None, taxonomy), {}, params, ROOM) == (8, 8)
    assert sum(map(len, teacher.batches)) == 8
    sources = {(200, 250, 3): 200_000, (300, 500, 3): 600_000, (10, 10, 3): 450_000}
    for batch in teacher.batches:
        assert len(batch) == 1 or sum(sources[shape] for shape in batch) <= 450_000
    assert max(map(len, teacher.batches)) == 2


def test_both_looks_say_how_far_they_are(
    store: MemoryStore,
    ledger: Ledger,
    taxonomy: Taxonomy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each batch, where nobody watches a terminal; of what is ranked, what this run will rank."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    enter(store, ledger, 30)
    params = PARAMS.model_copy(update={"ranked_per_run": 20})
    score_frames(store, ledger, ScoringModels(ByMean("c1"), ByMean("c1"), taxonomy), {}, params, ROOM)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("rank new frames: 5 of 20 frames, ") for line in lines)
    assert any(line.startswith("rank new frames: 20 of 20 frames, ") for line in lines)
    assert any(line.startswith("score frames: 12 of 12 frames, ") for line in lines)
    assert all(line.endswith(" left") for line in lines)
