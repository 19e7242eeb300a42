"""One whole turn on the embedded stack, with simulated bins and a demo annotator.

Everything between them is the real thing.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from evaluation import compare_scores
from export import Candidate, load_newest_candidate, publish_candidate
from flows.context import FlowContext
from labeling import LabelingParams
from labeling.interface import BOXES_TAG, IMAGE_TAG, NO_WASTE, NO_WASTE_TAG
from labeling.tasks import needs_second_annotator
from synthetic import draw_scene
from trashnet.boxes import Box, to_percent
from trashnet.clone import BRANCH
from trashnet.detectors import Detector
from trashnet.errors import UserError
from trashnet.ledger import FrameRow, State
from trashnet.models import STUDENT, TEACHER
from trashnet.params import load_params
from trashnet.settings import STACK_ENVIRONMENT_FILE
from trashnet.taxonomy import Taxonomy

STARTING = Path("operations/demo_student.tflite")  # `dvc pull operations/demo_student.tflite` fetches it
SIDE = 320  # pixels
ITEMS = 5  # in a scene, at most
BINS = 3
ANNOTATORS = (
    "demo-annotator",
    "demo-annotator-2",
)  # accounts in Label Studio; the second answers what two people should
# So little that two cores need minutes, and from random backbones so that it needs no network: the scores
# show that the wheel turns, not how good the models get.
SMALL = {
    "rebalance.target_images": "1",
    "export.calibration_images": "48",
    "efficientdet.weights": "none",
    "efficientdet.image_size": "128",
    "efficientdet.epochs": "1",
    "efficientdet.batch_size": "8",
    "efficientdet.warmup_epochs": "0.2",
    "efficientdet.learning_rate": "0.002",
    "efficientdet.map_every": "0",
    "ssd.weights": "none",
    "ssd.image_size": "160",
    "ssd.epochs": "2",
    "ssd.batch_size": "16",
    "ssd.warmup_epochs": "0.5",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Capture:
    """What a simulated bin has before its camera: the frame, what really lies there, and what its model makes
    of it.
    """

    bin_id: str
    burst: str
    taken: datetime
    jpeg: bytes
    truth: tuple[Box, ...]
    seen: tuple[Box, ...]

    @property
    def sha256(self) -> str:
        """The frame's name."""
        return hashlib.sha256(self.jpeg).hexdigest()

    @property
    def confidence(self) -> float:
        """The bin's: how sure its model is of the thing it is least sure of; 0 where it sees nothing."""
        return min((box.confidence for box in self.seen), default=0.0)


def captures(
    seed: int, count: int, student: Detector | None, taxonomy: Taxonomy, sure: float
) -> Iterator[Capture]:
    """Scenes in front of ``BINS`` bins, drawn anew for every ``seed``.

    Detections from ``sure`` on are what a bin sees.
    """
    ids = sorted(taxonomy.name_of)
    began = datetime.now(UTC).replace(microsecond=0)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        image, boxes, class_ids = draw_scene(
            rng, rng.choice(ids, int(rng.integers(1, ITEMS + 1))).tolist(), SIDE, taxonomy
        )
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=85)
        seen: tuple[Box, ...] = ()
        if student is not None:
            (found,) = student.detect([image])
            found = found.above(sure)
            seen = _boxes(taxonomy, found.boxes, found.class_ids, found.scores)
        taken = began + timedelta(seconds=number)
        yield Capture(
            f"demo-bin-{number % BINS + 1}",
            f"{seed}-{number}",
            taken,
            buffer.getvalue(),
            _boxes(taxonomy, boxes, class_ids),
            seen,
        )


def _boxes(
    taxonomy: Taxonomy, boxes: NDArray[Any], class_ids: NDArray[np.int64], scores: NDArray[Any] | None = None
) -> tuple[Box, ...]:
    each_score = [None] * len(boxes) if scores is None else scores.tolist()
    rows = zip(boxes.astype(float).tolist(), class_ids.tolist(), each_score, strict=True)
    return tuple(Box(taxonomy.name_of[c], x, y, w, h, score) for (x, y, w, h), c, score in rows)


def begin_with(context: FlowContext, student: Path) -> Candidate:
    """Publish a student that was trained beforehand, on other drawn scenes: so that the demo's bins have
    something to be unsure with.
    """
    models = {STUDENT.file: student}
    return publish_candidate(
        context.store, models, {}, dataset="data-00000", turns=(), commit=context.clone.head(), scores={}
    )


def upload(context: FlowContext, capture: Capture, release: str | None) -> None:
    """What a bin does: the frame, then its sidecar, whose presence says that the upload is complete."""
    sidecar = {
        "bin_id": capture.bin_id,
        "captured_at": capture.taken.isoformat(),
        "release": release,
        "detections": [box.to_json() for box in capture.seen],
        "reason": "no model yet: at random" if release is None else f"least sure of {capture.confidence:.2f}",
        "burst": capture.burst,
    }
    stem = f"inbox/{capture.bin_id}/{capture.taken:%Y-%m-%d}/{capture.sha256}"
    context.store.put(f"{stem}.jpg", capture.jpeg, "image/jpeg")
    context.store.put(f"{stem}.json", json.dumps(sidecar).encode(), "application/json")


def run_demo(context: FlowContext, frames: int, say: Say) -> str:
    """Turn the flywheel once and return a table of what happened.

    Raises :class:`UserError` if a step does not happen in time.
    """
    watch = _Watch(say)
    if load_newest_candidate(context.store) is None and STARTING.is_file():
        begin_with(context, STARTING)
    before, released = context.ledger.count_by_state(), load_newest_candidate(context.store)
    uploads = _upload_uncertain(context, frames, released, watch)
    truths = _wait_until_tasked(context, uploads, watch)
    answer(context, truths)
    ledger = context.ledger
    watch.until(
        "labels",
        lambda: [s for s in truths if (row := ledger.frame(s)) and row.state == "labelled"],
        len(truths),
        300,
    )
    watch.done(
        "answered", f"{len(truths)} tasks by {ANNOTATORS[0]}, who knows what was drawn; collected by event"
    )

    _finished(watch, "grow/grow", {"at_least": 1})
    turn = ledger.finished_turns()[-1]
    contents = f"{turn.frames} frames, {turn.boxes} boxes"
    watch.done("grown", f"dataset {turn.version}: {contents}; `git log {BRANCH}`, `git show {turn.version}`")
    _finished(watch, "retrain/retrain", {"at_least": 1, "changes": SMALL})
    watch.done("retrained", "both models, briefly")
    candidate = watch.until("candidate", lambda: _newer(context, released), 1, 400)[0]
    watch.done("published", f"candidate {candidate.version}, by event")
    return _summary(context, candidate, before, watch)


def _upload_uncertain(
    context: FlowContext, frames: int, released: Candidate | None, watch: "_Watch"
) -> list[Capture]:
    """Let the bins upload the frames that their model is least sure of, or any where they have no model."""
    student = context.detector(STUDENT)
    release = released.version if released and student else None
    watch.say(f"bins run {release}" if release else "bins have no model yet: they upload at random")
    seed = int(datetime.now(UTC).timestamp())
    confidence = load_params("labeling", LabelingParams).prelabel_score
    count = frames * (2 if student else 1)
    drawn = list(captures(seed, count, student, context.taxonomy, confidence))
    uploads = sorted(drawn, key=lambda capture: capture.confidence)[:frames]
    for capture in uploads:
        upload(context, capture, release)
    how = "those that their model was least sure of" if student else "at random"
    watch.done("uploaded", f"{len(uploads)} of {len(drawn)} frames from {BINS} bins, {how}")
    return uploads


def _wait_until_tasked(
    context: FlowContext, uploads: Sequence[Capture], watch: "_Watch"
) -> dict[str, Sequence[Box]]:
    """What was drawn on each frame that became a task, by SHA-256."""
    ledger = context.ledger

    def ingested() -> list[FrameRow]:
        rows = [ledger.frame_by_upload(capture.sha256) for capture in uploads]
        return [row for row in rows if row is not None and row.state != "received"]

    rows = {row.uploaded_sha256: row for row in watch.until("ingested", ingested, len(uploads), 300)}
    truths: dict[str, Sequence[Box]] = {
        rows[capture.sha256].sha256: capture.truth
        for capture in uploads
        if rows[capture.sha256].state not in ("duplicate", "quarantined")
    }
    refused = len(uploads) - len(truths)
    watch.done("ingested by event", f"{len(truths)} accepted, {refused} duplicates or refused")
    tasked = watch.until(
        "tasks",
        lambda: [s for s in truths if (row := ledger.frame(s)) and row.state != "accepted"],
        len(truths),
        400,
    )
    boxes = "without boxes, as there is no model"
    if context.detector(TEACHER):
        boxes = "with the teacher's boxes"
    elif context.detector(STUDENT):
        boxes = "with the bins' boxes"
    watch.done("asked for labels", f"{len(tasked)} tasks, {boxes}: {context.project.url}")
    return truths


def _summary(context: FlowContext, candidate: Candidate, before: Mapping[State, int], watch: "_Watch") -> str:
    """Steps with their seconds, changes of the ledger, scores, and where to look further."""
    after = context.ledger.count_by_state()
    changes = {state: after.get(state, 0) - before.get(state, 0) for state in after}
    moved = ", ".join(f"{change:+d} {state}" for state, change in changes.items() if change)
    addresses = [
        f"annotators' tasks   {context.project.url}",
        f"flows and artifacts {os.environ.get('PREFECT_API_URL', '').removesuffix('/api')}",
        f"frames and models   {context.store.endpoint}/{context.store.bucket}",
        f"credentials         {STACK_ENVIRONMENT_FILE}",
        f"dataset and models  git log {BRANCH}; git tag",
    ]
    scores = compare_scores({}, candidate.scores)
    return "\n".join(["", watch.table(), "", f"ledger: {moved}", "", scores, "", *addresses])


def _newer(context: FlowContext, than: Candidate | None) -> list[Candidate]:
    now = load_newest_candidate(context.store)
    return [now] if now is not None and (than is None or now.version != than.version) else []


def answer(context: FlowContext, truths: Mapping[str, Sequence[Box]]) -> None:
    """Answer the tasks of these frames through Label Studio's API, in the name of accounts that say that they
    are a demo's.
    """
    people = [_account(context, name) for name in ANNOTATORS]
    for sha256, truth in truths.items():
        row = context.ledger.frame(sha256)
        if row is None or row.task_id is None:
            raise UserError(f"frame {sha256} has no task")
        for person in (
            people
            if needs_second_annotator(sha256, load_params("labeling", LabelingParams).double_share)
            else people[:1]
        ):
            context.label_studio.annotations.create(
                id=row.task_id, result=_result(truth, row), completed_by=person, lead_time=5.0
            )


def _result(boxes: Sequence[Box], row: FrameRow) -> list[dict[str, Any]]:
    width, height = row.width or 0, row.height or 0
    return [
        {
            "from_name": BOXES_TAG,
            "to_name": IMAGE_TAG,
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": to_percent(box.xywh, width, height) | {"rotation": 0, "rectanglelabels": [box.label]},
        }
        for box in boxes
    ] or [
        {"from_name": NO_WASTE_TAG, "to_name": IMAGE_TAG, "type": "choices", "value": {"choices": [NO_WASTE]}}
    ]


def _account(context: FlowContext, name: str) -> int:
    client, email = context.label_studio, f"{name}@localhost.localdomain"
    found = [user for user in client.users.list() if user.email == email]
    user = found[0] if found else client.users.create(email=email, username=name, first_name=name)
    return int(user.id)


def _finished(watch: "_Watch", name: str, parameters: Mapping[str, Any]) -> None:
    """Run a deployment to its end, as its button in Prefect does; what it waits for is said meanwhile."""
    run: Any = run_deployment(name, parameters=dict(parameters), timeout=0)
    ended: FlowRun = watch.until(name, lambda: _ended(run.id), 1, 1500)[0]
    if ended.state is None or not ended.state.is_completed():
        raise UserError(
            f"{name} ended as {ended.state and ended.state.name}: {ended.state and ended.state.message}; see "
            "its run in Prefect"
        )


def _ended(identity: Any) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(identity)
    return [run] if run.state is not None and run.state.is_final() else []


class _Watch:
    """Waits for what others do, and remembers how long each step took."""

    def __init__(self, say: Say) -> None:
        self.say, self._steps = say, list[tuple[str, float, str]]()
        self._began = self._last = time.monotonic()

    def until(
        self, what: str, found: Callable[[], Sequence[Any]], count: int, seconds: float
    ) -> Sequence[Any]:
        """Wait until ``found`` finds ``count``. Raises :class:`UserError` after ``seconds``."""
        deadline, reported = time.monotonic() + seconds, -1
        while len(now := found()) < count:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{what}: {len(now)} of {count} after {seconds:.0f} s; `trashnet status` and Prefect's "
                    "page say why"
                )
            if len(now) != reported:
                reported = len(now)
                self.say(f"  waiting for {what}: {reported} of {count}")
            time.sleep(1)
        return now

    def done(self, step: str, what: str) -> None:
        """A step came about."""
        now = time.monotonic()
        self._steps.append((step, now - self._last, what))
        self._last = now
        self.say(f"{step}: {what}")

    def table(self) -> str:
        """All steps with their seconds."""
        width = max(len(step) for step, _, _ in self._steps)
        lines = [f"{step:<{width}}  {seconds:6.0f} s  {what}" for step, seconds, what in self._steps]
        return "\n".join([*lines, f"{'all':<{width}}  {self._last - self._began:6.0f} s"])
