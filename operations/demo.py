"""One whole turn on the embedded stack: bins and annotator are simulated, everything between them is real."""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from evaluation import compare_scores
from export import (
    Candidate,
    Judgement,
    load_judgement,
    load_newest_candidate,
    override,
    publish_candidate,
)
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
from trashnet.models import STUDENT
from trashnet.params import load_params
from trashnet.settings import STACK_ENVIRONMENT_FILE
from trashnet.taxonomy import Taxonomy

FIRST_STUDENT = Path("operations/demo_student.tflite")  # fetched by `dvc pull operations/demo_student.tflite`
IMAGE_SIZE = 320  # pixels a side
MAX_ITEMS = 5  # in a scene
NUM_BINS = 3
EXPLORE_EVERY = 4  # every so many captures one is uploaded whatever the bin's model thinks of it
# Accounts in Label Studio; the second one labels the frames that two people should label.
ANNOTATORS = ("demo-annotator", "demo-annotator-2")
# So little training that two cores need minutes, and random backbones, so that no network is needed. The
# scores show that the flywheel turns, not how good the models get.
SMALL_PARAMS = {
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
INGEST_TIMEOUT_SECONDS, LABELS_TIMEOUT_SECONDS = 300.0, 300.0
TASKS_TIMEOUT_SECONDS, CANDIDATE_TIMEOUT_SECONDS, JUDGEMENT_TIMEOUT_SECONDS = 400.0, 400.0, 400.0
FLOW_TIMEOUT_SECONDS = 1500.0

Report = Callable[[str], None]  # is given one line for the terminal
T = TypeVar("T")


@dataclass(frozen=True)
class Capture:
    """A frame of a simulated bin, with the boxes that were drawn (``truth``) and those its model detects."""

    bin_id: str
    burst: str
    captured_at: datetime
    jpeg: bytes
    truth: tuple[Box, ...]
    detections: tuple[Box, ...]
    at_random: bool = False  # whether the bin would upload it whatever its model detects

    @property
    def sha256(self) -> str:
        """The frame's name."""
        return hashlib.sha256(self.jpeg).hexdigest()

    @property
    def confidence(self) -> float:
        """The lowest score among the bin's detections; 0 if there are none."""
        return min((box.confidence for box in self.detections), default=0.0)


def draw_captures(
    seed: int, count: int, student: Detector | None, taxonomy: Taxonomy, min_score: float
) -> Iterator[Capture]:
    """Draw scenes as simulated bins capture them, other ones for every ``seed``.

    Detections that score less than ``min_score`` are left out; without a ``student`` there are none.
    """
    class_ids = sorted(taxonomy.name_of)
    started = datetime.now(UTC).replace(microsecond=0)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        items = rng.choice(class_ids, int(rng.integers(1, MAX_ITEMS + 1))).tolist()
        image, boxes, drawn_ids = draw_scene(rng, items, IMAGE_SIZE, taxonomy)
        jpeg = io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG", quality=85)
        detections: tuple[Box, ...] = ()
        if student is not None:
            (found,) = student.detect([image])
            found = found.above(min_score)
            detections = _boxes(taxonomy, found.boxes, found.class_ids, found.scores)
        yield Capture(
            bin_id=f"demo-bin-{index % NUM_BINS + 1}",
            burst=f"{seed}-{index}",
            captured_at=started + timedelta(seconds=index),
            jpeg=jpeg.getvalue(),
            truth=_boxes(taxonomy, boxes, drawn_ids),
            detections=detections,
            at_random=index % EXPLORE_EVERY == 0,
        )


def _boxes(
    taxonomy: Taxonomy, boxes: NDArray[Any], class_ids: NDArray[np.int64], scores: NDArray[Any] | None = None
) -> tuple[Box, ...]:
    each_score = [None] * len(boxes) if scores is None else scores.tolist()
    rows = zip(boxes.astype(float).tolist(), class_ids.tolist(), each_score, strict=True)
    return tuple(Box(taxonomy.name_of[c], x, y, w, h, score) for (x, y, w, h), c, score in rows)


def publish_first_student(context: FlowContext, student: Path) -> Candidate:
    """Publish a student that was trained on other drawn scenes, so that bins have a model from the start."""
    models, commit = {STUDENT.file: student}, context.clone.head()
    candidate = publish_candidate(
        context.store, models, {}, dataset="data-00000", turns=(), commit=commit, scores={}
    )
    reason = "it was trained on other drawn scenes, so that bins have a model from the start"
    override(context.store, candidate.version, ["student"], by="trashnet demo", reason=reason)
    return candidate


def upload(context: FlowContext, capture: Capture, release: str | None) -> None:
    """Upload a frame as a bin does: its sidecar last, because that means that the upload is complete."""
    sidecar = {
        "bin_id": capture.bin_id,
        "captured_at": capture.captured_at.isoformat(),
        "release": release,
        "detections": [box.to_json() for box in capture.detections],
        "reason": "exploration"
        if capture.at_random or release is None
        else f"least sure of {capture.confidence:.2f}",
        "burst": capture.burst,
    }
    stem = f"inbox/{capture.bin_id}/{capture.captured_at:%Y-%m-%d}/{capture.sha256}"
    context.store.put(f"{stem}.jpg", capture.jpeg, "image/jpeg")
    context.store.put(f"{stem}.json", json.dumps(sidecar).encode(), "application/json")


def run_demo(context: FlowContext, frames: int, report: Report) -> str:
    """Turn the flywheel once and return a table of what happened.

    Raises :class:`UserError` if a step does not happen in time.
    """
    progress = _Progress(report)
    if load_newest_candidate(context.store) is None and FIRST_STUDENT.is_file():
        publish_first_student(context, FIRST_STUDENT)
    before, released = context.ledger.count_by_state(), context.champion("student")
    newest = load_newest_candidate(context.store)
    uploads = _upload_uncertain(context, frames, released, progress)
    truths = _wait_until_tasked(context, uploads, progress)
    annotate(context, truths)
    ledger = context.ledger

    def labelled() -> list[str]:
        return [sha256 for sha256 in truths if (row := ledger.frame(sha256)) and row.state == "labelled"]

    progress.wait_for("labels", labelled, len(truths), LABELS_TIMEOUT_SECONDS)
    progress.finish_step(
        "answered", f"{len(truths)} tasks by {ANNOTATORS[0]}, who knows what was drawn; collected by event"
    )

    _run_deployment(progress, "grow/grow", {"at_least": 1})
    turn = ledger.finished_turns()[-1]
    contents = f"{turn.frames} frames, {turn.boxes} boxes"
    commands = f"`git log {BRANCH}`, `git show {turn.version}`"
    progress.finish_step("grown", f"dataset {turn.version}: {contents}; {commands}")
    _run_deployment(progress, "retrain/retrain", {"at_least": 1, "changes": SMALL_PARAMS})
    progress.finish_step("retrained", "both models, briefly; the same run publishes them")

    def newer_candidates() -> list[Candidate]:
        found = load_newest_candidate(context.store)
        is_newer = found is not None and (newest is None or found.version != newest.version)
        return [found] if found is not None and is_newer else []

    candidate = progress.wait_for("candidate", newer_candidates, 1, CANDIDATE_TIMEOUT_SECONDS)[0]
    progress.finish_step("published", f"candidate {candidate.version}")

    def judgements() -> list[Judgement]:
        judgement = load_judgement(context.store, candidate.version)
        return [judgement] if judgement is not None else []

    judgement = progress.wait_for("judgement", judgements, 1, JUDGEMENT_TIMEOUT_SECONDS)[0]
    outcomes = ", ".join(f"{one.verdict.outcome} the {role}" for role, one in judgement.models.items())
    progress.finish_step("judged", f"the gate {outcomes}; what it does not pass is not used")
    return _summary(context, candidate, judgement, before, progress)


def _upload_uncertain(
    context: FlowContext, frames: int, released: Candidate | None, progress: "_Progress"
) -> list[Capture]:
    """Let the bins upload frames at random, and those that their model is least sure of; any if they have
    none.
    """
    student = context.detector("student")
    release = released.version if released and student else None
    progress.report(f"bins run {release}" if release else "bins have no model yet: they upload at random")
    seed = int(datetime.now(UTC).timestamp())
    min_score = load_params("labeling", LabelingParams).prelabel_score
    count = frames * (2 if student else 1)
    captures = list(draw_captures(seed, count, student, context.taxonomy, min_score))
    # A capture at random comes first, whatever its score: that is a share of all captures, not of the unsure.
    uploads = sorted(captures, key=lambda capture: (not capture.at_random, capture.confidence))[:frames]
    for capture in uploads:
        upload(context, capture, release)
    at_random = sum(capture.at_random for capture in uploads)
    how = f"{at_random} at random, the others their model was least sure of" if student else "at random"
    progress.finish_step("uploaded", f"{len(uploads)} of {len(captures)} frames from {NUM_BINS} bins, {how}")
    return uploads


def _wait_until_tasked(
    context: FlowContext, uploads: Sequence[Capture], progress: "_Progress"
) -> dict[str, Sequence[Box]]:
    """What was drawn on each frame that became a task, by SHA-256."""
    ledger = context.ledger

    def ingested() -> list[FrameRow]:
        rows = [ledger.frame_by_upload(capture.sha256) for capture in uploads]
        return [row for row in rows if row is not None and row.state != "received"]

    found = progress.wait_for("ingested", ingested, len(uploads), INGEST_TIMEOUT_SECONDS)
    rows = {row.uploaded_sha256: row for row in found}
    truths: dict[str, Sequence[Box]] = {
        rows[capture.sha256].sha256: capture.truth
        for capture in uploads
        if rows[capture.sha256].state not in ("duplicate", "quarantined")
    }
    refused = len(uploads) - len(truths)
    progress.finish_step("ingested by event", f"{len(truths)} accepted, {refused} duplicates or refused")

    def tasked() -> list[str]:
        return [sha256 for sha256 in truths if (row := ledger.frame(sha256)) and row.state != "accepted"]

    tasks = progress.wait_for("tasks", tasked, len(truths), TASKS_TIMEOUT_SECONDS)
    boxes = "without boxes, as there is no model"
    if context.detector("teacher"):
        boxes = "with the teacher's boxes"
    elif context.detector("student"):
        boxes = "with the bins' boxes"
    progress.finish_step("asked for labels", f"{len(tasks)} tasks, {boxes}: {context.project.url}")
    return truths


def _summary(
    context: FlowContext,
    candidate: Candidate,
    judgement: Judgement,
    before: Mapping[State, int],
    progress: "_Progress",
) -> str:
    """The steps with their seconds, changes in the ledger, scores, verdicts, and where to look further."""
    after = context.ledger.count_by_state()
    counts = {state: after.get(state, 0) - before.get(state, 0) for state in after}
    moved = ", ".join(f"{change:+d} {state}" for state, change in counts.items() if change)
    addresses = [
        f"annotators' tasks   {context.project.url}",
        f"flows and artifacts {os.environ.get('PREFECT_API_URL', '').removesuffix('/api')}",
        f"frames and models   {context.store.endpoint}/{context.store.bucket}",
        f"credentials         {STACK_ENVIRONMENT_FILE}",
        f"dataset and models  git log {BRANCH}; git tag",
    ]
    scores = compare_scores({}, candidate.scores)
    return "\n".join(
        ["", progress.table(), "", f"ledger: {moved}", "", scores, "", judgement.markdown(), *addresses]
    )


def annotate(context: FlowContext, truths: Mapping[str, Sequence[Box]]) -> None:
    """Annotate the tasks of these frames through Label Studio's API, as users who are called demo annotators.

    ``truths`` maps a frame's SHA-256 to its boxes. Raises :class:`UserError` for a frame without a task.
    """
    users = [_ensure_user(context, name) for name in ANNOTATORS]
    double_share = load_params("labeling", LabelingParams).double_share
    for sha256, truth in truths.items():
        row = context.ledger.frame(sha256)
        if row is None or row.task_id is None:
            raise UserError(f"frame {sha256} has no task")
        annotators = users if needs_second_annotator(sha256, double_share) else users[:1]
        for user in annotators:
            context.label_studio.annotations.create(
                id=row.task_id, result=_to_result(truth, row), completed_by=user, lead_time=5.0
            )


def _to_result(boxes: Sequence[Box], row: FrameRow) -> list[dict[str, Any]]:
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


def _ensure_user(context: FlowContext, name: str) -> int:
    client, email = context.label_studio, f"{name}@localhost.localdomain"
    found = [user for user in client.users.list() if user.email == email]
    user = found[0] if found else client.users.create(email=email, username=name, first_name=name)
    return int(user.id)


def _run_deployment(progress: "_Progress", name: str, parameters: Mapping[str, Any]) -> None:
    """Run a deployment and wait for its end. Raises :class:`UserError` if it does not complete."""
    run: Any = run_deployment(name, parameters=dict(parameters), timeout=0)

    def finished() -> list[FlowRun]:
        with get_client(sync_client=True) as client:
            newest = client.read_flow_run(run.id)
        return [newest] if newest.state is not None and newest.state.is_final() else []

    state = progress.wait_for(name, finished, 1, FLOW_TIMEOUT_SECONDS)[0].state
    if state is None or not state.is_completed():
        raise UserError(
            f"{name} ended as {state and state.name}: {state and state.message}; see its run in Prefect"
        )


class _Progress:
    """Waits for what servers and flows do, and remembers how long each step took."""

    def __init__(self, report: Report) -> None:
        self.report, self._steps = report, list[tuple[str, float, str]]()
        self._started = self._step_started = time.monotonic()

    def wait_for(
        self, what: str, find: Callable[[], Sequence[T]], count: int, timeout_seconds: float
    ) -> Sequence[T]:
        """Wait until ``find`` returns ``count`` things, and return them.

        Raises :class:`UserError` after the timeout.
        """
        deadline, reported = time.monotonic() + timeout_seconds, -1
        while len(found := find()) < count:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{what}: {len(found)} of {count} after {timeout_seconds:.0f} s; "
                    "`trashnet status` and Prefect's page say why"
                )
            if len(found) != reported:
                reported = len(found)
                self.report(f"  waiting for {what}: {reported} of {count}")
            time.sleep(1)
        return found

    def finish_step(self, step: str, result: str) -> None:
        """Note that a step has been done, and report its result."""
        now = time.monotonic()
        self._steps.append((step, now - self._step_started, result))
        self._step_started = now
        self.report(f"{step}: {result}")

    def table(self) -> str:
        """All steps with their seconds and results."""
        width = max(len(step) for step, _, _ in self._steps)
        lines = [f"{step:<{width}}  {seconds:6.0f} s  {result}" for step, seconds, result in self._steps]
        total = self._step_started - self._started
        return "\n".join([*lines, f"{'all':<{width}}  {total:6.0f} s"])
