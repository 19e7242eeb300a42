"""Finished annotations are collected: read from a cursor on, validated, recorded in the ledger.

Besides, Label Studio is asked for the task of every frame that the ledger has as ``tasked``: what the cursor
passed by is collected all the same, and a frame whose task is gone is returned to ``accepted``.
"""

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
from labeling.task_pages import parse_time, tasks_by_id, tasks_changed_since
from labeling.tasks import needs_second_annotator
from labeling.validation import validate_annotation
from trashnet.ledger import USABLE, AnnotationRow, FrameRow, Ledger
from trashnet.progress import track
from trashnet.taxonomy import Taxonomy

WITHDRAWN = "deleted in Label Studio"
FOREIGN = (
    "another frame's annotation has the same number, so the two cannot be told apart (was Label Studio "
    "restored from a backup?); please delete this one and annotate the frame again"
)
DIFFERENT = "Two answers differ. Please look at both and give the one that counts."
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectedLabels:
    """New or changed annotations by outcome, frames that became ``labelled``, and refusals with addresses.

    ``returned``: frames whose tasks are gone, and which are ``accepted`` again.
    """

    boxes: int
    nothing: int
    skipped: int
    refused: int
    labelled: int
    refusals: tuple[str, ...]
    deleted: int = 0
    returned: int = 0


def collect_labels(
    client: Client,
    project: Project,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: LabelingParams,
    now: Callable[[], datetime] | None = None,
) -> CollectedLabels:
    """Record every annotation that is new or changed since the last run; costs what is new or in the queue.

    A usable annotation moves its frame from ``tasked`` to ``labelled`` in one transaction; an edited one
    grows again. A refused one leaves the frame ``tasked`` and writes its reason on the task's page (tab
    "Needs fixing"). A skipped frame stays ``tasked`` too, and somebody else gets it. A frame whose task is
    gone from the project becomes ``accepted``, so that people are asked about it again.

    Of a frame that two people should annotate the newest annotation counts. Where the two agree too little, a
    third is asked for, and counts; after ``double_days`` what there is counts.

    Raises what :meth:`labeling.client.Client.with_retries` raises; what was collected until then is kept.
    """
    run = _Collection(client, project, ledger, taxonomy, params)
    begun = (now or (lambda: datetime.now(UTC)))()
    run.collect_changed(begun)
    run.collect_tasked()
    run.finish_overdue(begun)
    counts = run.counts
    outcomes = (counts["boxes"], counts["nothing"], counts["skipped"], counts["refused"])
    return CollectedLabels(
        *outcomes, counts["labelled"], tuple(run.refusals), counts["deleted"], counts["returned"]
    )


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
        self.collected: set[str] = set()

    def collect_changed(self, now: datetime) -> None:
        """Collect the tasks that changed since the last run, and move the cursor behind them.

        The cursor is never later than our own clock. Label Studio's may be ahead; answers that it dates
        earlier, once somebody has set it right, would be passed by.
        """
        name = f"annotations/{self.project.id}/{self.project.installation}"
        cursor = self.ledger.cursor(name)
        reached = None if cursor is None else datetime.fromisoformat(cursor)
        since = BEGINNING
        if reached is not None and reached <= now:
            # A transaction of Label Studio's that began before the cursor may have ended after it: the last
            # moments are read again. Recording an annotation twice changes nothing.
            since = reached - timedelta(seconds=self.params.cursor_overlap_seconds)
        elif reached is not None:
            log.warning(
                "the last collection reached %s, which is yet to come: all tasks are read again", cursor
            )
        pages = tasks_changed_since(self.client, self.project.id, since, self.params.page_size)
        for page in track(pages, None, "collect changed tasks", "page"):
            for task in page:
                self.collect_task(task)
            newest = min(max(parse_time(task["updated_at"]) for task in page), now)
            if reached is None or newest > reached or reached > now:
                reached = newest
                self.ledger.set_cursor(name, reached.isoformat())

    def collect_tasked(self) -> None:
        """Ask for the tasks of frames that wait for an answer and were not read above, by their ids.

        A task of that id that shows another frame is one of another installation's.
        """
        waiting = {sha: task for sha, task in self.ledger.tasked_frames() if sha not in self.collected}
        ids = sorted({task for task in waiting.values() if task is not None})
        pages = tasks_by_id(self.client, self.project.id, ids, self.params.page_size)
        for page in track(pages, -(-len(ids) // self.params.page_size), "look for waiting tasks", "page"):
            for task in page:
                if waiting.get(task["data"].get("sha256")) == task["id"]:
                    self.collect_task(task)
        for sha, task_id in waiting.items():
            if sha not in self.collected:
                self.counts["returned"] += self.ledger.return_to_accepted(sha, task_id)

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
        self.collected.add(frame.sha256)
        annotations = [
            self._validate(annotation, frame, task["data"].get("prelabelled"))
            for annotation in task["annotations"]
        ]
        annotations, foreign = self._split_foreign(frame, annotations)
        if foreign and FOREIGN not in task["data"].get("feedback", ""):
            self.counts["refused"] += len(foreign)
            self.refusals += [self._complaint(frame, row) for row in foreign]
        known = self.ledger.annotations_of(frame.sha256)
        withdrawn = self._withdrawn(frame, known, {row.annotation_id for row in annotations})
        if annotations or withdrawn:
            self._record(frame, [*annotations, *withdrawn], known)
        self._update_task(task, frame, [*annotations, *foreign])

    def finish_overdue(self, now: datetime) -> None:
        """Frames whose second annotation has not come for ``double_days`` go on with the first."""
        days = self.params.double_days
        for sha256 in self.ledger.frames_awaiting_second_annotation(now - timedelta(days=days)):
            note = f"no further answer in {days:g} days"
            self.counts["labelled"] += self.ledger.move(sha256, "tasked", "labelled", note=note)

    def _validate(self, annotation: dict[str, Any], frame: FrameRow, prelabelled: object) -> AnnotationRow:
        validated = validate_annotation(annotation, frame, self.class_names, self.params)
        person = annotation.get("completed_by")
        email = self.annotators.get(person, f"user {person}") if isinstance(person, int) else "unknown"
        assert frame.task_id is not None
        return AnnotationRow(
            installation=self.project.installation,
            annotation_id=annotation["id"],
            task_id=frame.task_id,
            sha256=frame.sha256,
            annotator=email,
            labelled_at=parse_time(annotation["updated_at"]),
            outcome=validated.outcome,
            boxes=validated.boxes,
            reason=validated.reason,
            seconds=annotation.get("lead_time"),
            # A task of before version 0.4 does not say.
            prelabelled=prelabelled if isinstance(prelabelled, bool) else None,
        )

    def _split_foreign(
        self, frame: FrameRow, rows: Sequence[AnnotationRow]
    ) -> tuple[list[AnnotationRow], list[AnnotationRow]]:
        """The annotations that are this frame's, and, refused, those whose id is known as another frame's."""
        ids = [row.annotation_id for row in rows]
        owners = self.ledger.frames_of_annotations(self.project.installation, ids)
        own = [row for row in rows if owners.get(row.annotation_id, frame.sha256) == frame.sha256]
        foreign = [
            replace(row, outcome="refused", boxes=(), reason=FOREIGN) for row in rows if row not in own
        ]
        return own, foreign

    def _is_of_task(self, row: AnnotationRow, frame: FrameRow) -> bool:
        """Whether a recorded annotation is one of the frame's present task."""
        return row.task_id == frame.task_id and row.installation in (self.project.installation, "")

    def _withdrawn(
        self, frame: FrameRow, known: Sequence[AnnotationRow], present: set[int]
    ) -> list[AnnotationRow]:
        """Annotations of the task that the ledger has and Label Studio no longer has."""
        return [
            replace(row, outcome="deleted", boxes=(), reason=WITHDRAWN)
            for row in known
            if self._is_of_task(row, frame) and row.annotation_id not in present and row.outcome != "deleted"
        ]

    def _record(self, frame: FrameRow, rows: Sequence[AnnotationRow], known: Sequence[AnnotationRow]) -> None:
        # Answers to a task that is gone count too: nobody is asked for the same thing twice.
        earlier = [row for row in known if not self._is_of_task(row, frame)]
        finished = self._is_finished(frame, [*rows, *earlier])
        recorded = self.ledger.record_annotations(
            frame.sha256, rows, finished=finished, note=f"task {frame.task_id}"
        )
        self.counts["labelled"] += recorded.labelled
        for row in recorded.changed:
            self.counts[row.outcome] += 1
            if row.outcome == "refused":
                self.refusals.append(self._complaint(frame, row))

    def _complaint(self, frame: FrameRow, row: AnnotationRow) -> str:
        address = f"{self.project.url}/data?task={frame.task_id}"
        return f"{address}: {row.annotator}'s answer is refused: {row.reason}"

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
