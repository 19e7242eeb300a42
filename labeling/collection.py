"""Finished annotations are collected: read from a cursor on, validated, recorded in the ledger."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from labeling.agreement import label_agreement
from labeling.client import Client
from labeling.params import LabelingParams
from labeling.project import Project
from labeling.task_pages import parse_time, tasks_changed_since
from labeling.tasks import needs_second_annotator
from labeling.validation import validate_annotation
from trashnet.ledger import USABLE, AnnotationRow, FrameRow, Ledger
from trashnet.taxonomy import Taxonomy

WITHDRAWN = "deleted in Label Studio"
DIFFERENT = "Two answers differ. Please look at both and give the one that counts."
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectedLabels:
    """New or changed annotations by outcome, frames that became ``labelled``, and refusals with addresses."""

    boxes: int
    nothing: int
    skipped: int
    refused: int
    labelled: int
    refusals: tuple[str, ...]


def collect_labels(
    client: Client,
    project: Project,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: LabelingParams,
    now: Callable[[], datetime] | None = None,
) -> CollectedLabels:
    """Record every annotation that is new or changed since the last run; costs what is new.

    A usable annotation moves its frame from ``tasked`` to ``labelled`` in one transaction; an edited one
    grows again. A refused one leaves the frame ``tasked`` and writes its reason on the task's page (tab
    "Needs fixing"). A skipped frame stays ``tasked`` too, and somebody else gets it.

    Of a frame that two people should annotate the newest annotation counts. Where the two agree too little, a
    third is asked for, and counts; after ``double_days`` what there is counts.

    Raises what :meth:`labeling.client.Client.with_retries` raises; what was collected until then is kept.
    """
    run = _Collection(client, project, ledger, taxonomy, params)
    name = f"annotations/{project.id}"
    cursor = ledger.cursor(name)
    since = BEGINNING
    if cursor is not None:
        # A transaction of Label Studio's that began before the cursor may have ended after it: the last
        # moments are read again. Recording an annotation twice changes nothing.
        since = datetime.fromisoformat(cursor) - timedelta(seconds=params.cursor_overlap_seconds)
    for page in tasks_changed_since(client, project.id, since, params.page_size):
        for task in page:
            run.collect_task(task)
        newest = max(parse_time(task["updated_at"]) for task in page)
        if cursor is None or newest > datetime.fromisoformat(cursor):
            cursor = newest.isoformat()
            ledger.set_cursor(name, cursor)
    run.finish_overdue((now or (lambda: datetime.now(UTC)))())
    counts = run.counts
    outcomes = (counts["boxes"], counts["nothing"], counts["skipped"], counts["refused"])
    return CollectedLabels(*outcomes, counts["labelled"], tuple(run.refusals))


class _Collection:
    """One run of :func:`collect_labels`: what it needs and what it has counted."""

    def __init__(
        self, client: Client, project: Project, ledger: Ledger, taxonomy: Taxonomy, params: LabelingParams
    ) -> None:
        self.client, self.project, self.ledger, self.params = client, project, ledger, params
        self.class_names = frozenset(taxonomy.names)
        self.annotators = client.with_retries(lambda: {user.id: user.email for user in client.users.list()})
        self.counts: Counter[str] = Counter()
        self.refusals: list[str] = []

    def collect_task(self, task: dict[str, Any]) -> None:
        """Record a task's annotations, and decide whether its frame is labelled."""
        sha256 = task["data"].get("sha256")
        frame = self.ledger.frame(sha256) if isinstance(sha256, str) else None
        if frame is None:
            if task["annotations"]:
                log.warning(
                    "task %d of %s shows a frame that the ledger does not know; its annotations are ignored",
                    task["id"],
                    self.project.url,
                )
            return
        if frame.state == "accepted":  # the run that imported the task died before it told the ledger
            self.ledger.mark_tasked({frame.sha256: task["id"]})
            frame = replace(frame, state="tasked", task_id=task["id"])
        if frame.task_id is None or frame.task_id != task["id"]:
            return  # a second task of this frame, made by hand
        annotations = [self._validate(annotation, frame) for annotation in task["annotations"]]
        withdrawn = self._withdrawn(frame, {row.annotation_id for row in annotations})
        if annotations or withdrawn:
            self._record(frame, [*annotations, *withdrawn])
        self._update_task(task, frame, annotations)

    def finish_overdue(self, now: datetime) -> None:
        """Frames whose second annotation has not come for ``double_days`` go on with the first."""
        days = self.params.double_days
        for sha256 in self.ledger.frames_awaiting_second_annotation(now - timedelta(days=days)):
            note = f"no further answer in {days:g} days"
            self.counts["labelled"] += self.ledger.move(sha256, "tasked", "labelled", note=note)

    def _validate(self, annotation: dict[str, Any], frame: FrameRow) -> AnnotationRow:
        validated = validate_annotation(annotation, frame, self.class_names, self.params)
        person = annotation.get("completed_by")
        email = self.annotators.get(person, f"user {person}") if isinstance(person, int) else "unknown"
        assert frame.task_id is not None
        return AnnotationRow(
            annotation_id=annotation["id"],
            task_id=frame.task_id,
            sha256=frame.sha256,
            annotator=email,
            labelled_at=parse_time(annotation["updated_at"]),
            outcome=validated.outcome,
            boxes=validated.boxes,
            reason=validated.reason,
            seconds=annotation.get("lead_time"),
        )

    def _withdrawn(self, frame: FrameRow, present: set[int]) -> list[AnnotationRow]:
        """Annotations of the task that the ledger has and Label Studio no more."""
        return [
            replace(row, outcome="refused", boxes=(), reason=WITHDRAWN)
            for row in self.ledger.annotations_of(frame.sha256)
            if row.task_id == frame.task_id and row.annotation_id not in present and row.reason != WITHDRAWN
        ]

    def _record(self, frame: FrameRow, rows: Sequence[AnnotationRow]) -> None:
        recorded = self.ledger.record_annotations(
            frame.sha256, rows, finished=self._is_finished(frame, rows), note=f"task {frame.task_id}"
        )
        self.counts["labelled"] += recorded.labelled
        for row in recorded.changed:
            self.counts[row.outcome] += 1
            if row.outcome == "refused":
                address = f"{self.project.url}/data?task={frame.task_id}"
                self.refusals.append(f"{address}: {row.annotator}'s answer is refused: {row.reason}")

    def _is_finished(self, frame: FrameRow, rows: Sequence[AnnotationRow]) -> bool:
        usable = _newest_per_person([row for row in rows if row.outcome in USABLE])
        if len(usable) < self._wanted(frame):
            return False
        return len(usable) != 2 or self._agree(usable)

    def _wanted(self, frame: FrameRow) -> int:
        """How many people should annotate the frame; one where there is nobody to ask a second time."""
        several = len(self.annotators) > 1
        return 2 if several and needs_second_annotator(frame.sha256, self.params.double_share) else 1

    def _agree(self, rows: Sequence[AnnotationRow]) -> bool:
        first, second = rows
        agreement = label_agreement(first.boxes, second.boxes, self.params.match_iou)
        return agreement >= self.params.min_agreement

    def _update_task(self, task: dict[str, Any], frame: FrameRow, rows: Sequence[AnnotationRow]) -> None:
        """Write feedback on the task's page, and open it again where another annotation is needed."""
        usable = _newest_per_person([row for row in rows if row.outcome in USABLE])
        feedback = [
            f"{row.annotator}: {row.reason}" for row in _newest_per_person(rows) if row.outcome == "refused"
        ]
        wanted = self._wanted(frame)
        if len(usable) == 2 and not self._agree(usable):
            feedback.append(DIFFERENT)
            wanted = 3
        changes: dict[str, Any] = {}
        if task["data"].get("feedback", "") != "; ".join(feedback):
            changes["data"] = task["data"] | {"feedback": "; ".join(feedback)}
        current = self.ledger.frame(frame.sha256)
        if usable and current is not None and current.state == "tasked" and task["overlap"] < wanted:
            changes |= {"overlap": wanted, "is_labeled": len(usable) >= wanted}
        if changes:
            options: Any = {"additional_body_parameters": changes}
            self.client.with_retries(lambda: self.client.tasks.update(task["id"], request_options=options))


def _newest_per_person(rows: Sequence[AnnotationRow]) -> list[AnnotationRow]:
    """Each annotator's newest annotation, oldest first."""
    by_time = sorted(rows, key=lambda row: (row.labelled_at, row.annotation_id))
    return list({row.annotator: row for row in by_time}.values())
