"""Finished annotations come home: drained by cursor, checked, entered in the ledger."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from labeling.agreement import label_agreement
from labeling.client import Client
from labeling.params import LabelingParams
from labeling.project import Project
from labeling.tasks import is_double
from labeling.validation import check_answer
from trashnet.ledger import USABLE, AnnotationRow, FrameRow, Ledger
from trashnet.taxonomy import Taxonomy

WITHDRAWN = "deleted in Label Studio"
DIFFERENT = "Two answers differ. Please look at both and give the one that counts."
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only form that Label Studio's filters take
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """New or changed answers by outcome, frames that became ``labelled``, and refusals in words, each with its task's address."""

    boxes: int
    nothing: int
    skipped: int
    refused: int
    labelled: int
    complaints: tuple[str, ...]


def collect(
    client: Client,
    project: Project,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: LabelingParams,
    now: Callable[[], datetime] | None = None,
) -> Collected:
    """Bring every annotation that is new or was changed since the last time into the ledger; costs what is new, whatever there is.

    A usable answer moves its frame from ``tasked`` to ``labelled`` in one transaction; an edited one grows
    again. A refused answer leaves the frame ``tasked`` and its reason on the task's page (tab "To mend"). A
    skipped frame stays ``tasked`` too and goes to somebody else. Of a frame that two people should answer the
    newest answer counts; where the two are too unlike, a third is asked for and counts; after ``double_days``
    what there is counts. Raises what :meth:`labeling.client.Client.ask` raises; what was collected until then
    is kept.
    """
    run = _Run(client, project, ledger, frozenset(taxonomy.names), params, now or (lambda: datetime.now(UTC)))
    name = f"annotations/{project.id}"
    cursor = ledger.cursor(name)
    # A transaction of Label Studio's that began earlier may have ended later: look again at the last moments.
    # Answers have ids.
    since = (
        datetime.fromisoformat(cursor) - timedelta(seconds=params.cursor_overlap_seconds)
        if cursor
        else BEGINNING
    )
    for page in _changed_since(client, project, since, params.page_size):
        for task in page:
            run.take(task)
        newest = max(_time(task["updated_at"]) for task in page)
        if cursor is None or newest > datetime.fromisoformat(cursor):
            cursor = newest.isoformat()
            ledger.set_cursor(name, cursor)
    run.end_waiting()
    counts = run.counts
    return Collected(
        counts["boxes"],
        counts["nothing"],
        counts["skipped"],
        counts["refused"],
        counts["labelled"],
        tuple(run.complaints),
    )


class _Run:
    """One run of :func:`collect`: what it needs and what it has counted."""

    def __init__(
        self,
        client: Client,
        project: Project,
        ledger: Ledger,
        names: frozenset[str],
        params: LabelingParams,
        now: Callable[[], datetime],
    ) -> None:
        self.client, self.project, self.ledger, self.names, self.params, self.now = (
            client,
            project,
            ledger,
            names,
            params,
            now,
        )
        self.people = client.ask(lambda: {user.id: user.email for user in client.users.list()})
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []

    def take(self, task: dict[str, Any]) -> None:
        """Enter a task's annotations and decide whether its frame is done."""
        sha = task["data"].get("sha256")
        frame = self.ledger.frame(sha) if isinstance(sha, str) else None
        if frame is None:
            if task["annotations"]:
                log.warning(
                    "task %d of %s shows a frame that the ledger does not know; its answers are left alone",
                    task["id"],
                    self.project.url,
                )
            return
        if frame.state == "accepted":  # it was imported by a run that died before it could say so
            self.ledger.move(sha, "accepted", "tasked", task_id=task["id"])
            frame = replace(frame, state="tasked", task_id=task["id"])
        if frame.task_id is None or frame.task_id != task["id"]:
            return  # a second task of this frame, made by hand
        known = self.ledger.annotations_of(sha)
        answers = [self._read(annotation, frame) for annotation in task["annotations"]]
        present = {answer.annotation_id for answer in answers}
        answers += [
            replace(old, outcome="refused", boxes=(), reason=WITHDRAWN)
            for old in known
            if old.task_id == task["id"] and old.annotation_id not in present and old.reason != WITHDRAWN
        ]
        if answers:
            self._enter(frame, answers)
        self._tell(task, frame, [answer for answer in answers if answer.reason != WITHDRAWN])

    def end_waiting(self) -> None:
        """Frames whose second answer has not come for ``double_days`` go on with what there is."""
        oldest = self.now() - timedelta(days=self.params.double_days)
        shas = self.ledger.frames_awaiting_second_annotation(oldest)
        for sha in shas:
            self.counts["labelled"] += self.ledger.move(
                sha, "tasked", "labelled", note=f"no further answer in {self.params.double_days:g} days"
            )

    def _read(self, annotation: dict[str, Any], frame: FrameRow) -> AnnotationRow:
        checked = check_answer(annotation, frame, self.names, self.params)
        person = annotation.get("completed_by")
        assert frame.task_id is not None
        return AnnotationRow(
            annotation_id=annotation["id"],
            task_id=frame.task_id,
            sha256=frame.sha256,
            annotator=self.people.get(person, f"user {person}") if isinstance(person, int) else "unknown",
            labelled_at=_time(annotation["updated_at"]),
            outcome=checked.outcome,
            boxes=checked.boxes,
            reason=checked.reason,
            seconds=annotation.get("lead_time"),
        )

    def _enter(self, frame: FrameRow, answers: Sequence[AnnotationRow]) -> None:
        usable = [answer for answer in answers if answer.outcome in USABLE]
        recorded = self.ledger.record_annotations(
            frame.sha256, answers, finished=self._done(frame, usable), note=f"task {frame.task_id}"
        )
        self.counts["labelled"] += recorded.labelled
        for answer in recorded.changed:
            self.counts[answer.outcome] += 1
            if answer.outcome == "refused":
                self.complaints.append(
                    f"{self._address(frame)}: {answer.annotator}'s answer is refused: {answer.reason}"
                )

    def _done(self, frame: FrameRow, usable: Sequence[AnnotationRow]) -> bool:
        people = _by_person(usable)
        if len(people) < self._wanted(frame):
            return False
        return len(people) != 2 or self._alike(people)

    def _wanted(self, frame: FrameRow) -> int:
        # Where one person does all the labelling there is nobody to ask a second time.
        return 2 if len(self.people) > 1 and is_double(frame.sha256, self.params.double_share) else 1

    def _alike(self, people: Sequence[AnnotationRow]) -> bool:
        first, second = people
        return label_agreement(first.boxes, second.boxes, self.params.match_iou) >= self.params.min_agreement

    def _tell(self, task: dict[str, Any], frame: FrameRow, answers: Sequence[AnnotationRow]) -> None:
        """Write on the task's page what is to be mended, and open it again where another person's answer is wanted."""
        people = _by_person([answer for answer in answers if answer.outcome in USABLE])
        faults = [
            f"{answer.annotator}: {answer.reason}"
            for answer in _by_person(answers)
            if answer.outcome == "refused"
        ]
        wanted = self._wanted(frame)
        if len(people) == 2 and not self._alike(people):
            faults.append(DIFFERENT)
            wanted = 3
        changes: dict[str, Any] = {}
        if task["data"].get("mend", "") != (mend := "; ".join(faults)):
            changes["data"] = task["data"] | {"mend": mend}
        now = self.ledger.frame(frame.sha256)
        if people and now is not None and now.state == "tasked" and task["overlap"] < wanted:
            changes |= {"overlap": wanted, "is_labeled": len(people) >= wanted}
        if changes:
            self.client.ask(
                lambda: self.client.tasks.update(
                    task["id"], request_options={"additional_body_parameters": changes}
                )
            )

    def _address(self, frame: FrameRow) -> str:
        return f"{self.project.url}/data?task={frame.task_id}"


def _changed_since(
    client: Client, project: Project, since: datetime, page_size: int
) -> Iterator[list[dict[str, Any]]]:
    """Pages of tasks that were touched at ``since`` or later, oldest touch first, each task's annotations with it.

    Numbered pages would shift under our feet when a task is touched between two of them: each page begins
    where the one before it ended, and where many tasks share one moment they are read in the order of their
    ids.
    """

    def page(order: str, *items: dict[str, Any]) -> list[dict[str, Any]]:
        query = {"filters": {"conjunction": "and", "items": items}, "ordering": [f"tasks:{order}"]}
        return client.ask(lambda: client.tasks_page(project.id, query, page_size=page_size, answers=True))

    def touched(operator: str, moment: datetime) -> dict[str, Any]:
        return {
            "filter": "filter:tasks:updated_at",
            "operator": operator,
            "type": "Datetime",
            "value": moment.strftime(TIME),
        }

    operator = "greater_or_equal"
    while tasks := page("updated_at", touched(operator, since)):
        yield tasks
        if len(tasks) < page_size:
            return
        since, operator, last = _time(tasks[-1]["updated_at"]), "greater", 0
        while ties := page("id", touched("equal", since), _behind(last)):
            yield ties
            last = ties[-1]["id"]
            if len(ties) < page_size:
                break


def _behind(task: int) -> dict[str, Any]:
    return {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": task}


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value.replace("Z", "+00:00"))


def _by_person(answers: Sequence[AnnotationRow]) -> list[AnnotationRow]:
    """Each person's newest answer, oldest first."""
    newest = {
        answer.annotator: answer
        for answer in sorted(answers, key=lambda answer: (answer.labelled_at, answer.annotation_id))
    }
    return list(newest.values())
