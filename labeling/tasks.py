"""Frames become tasks: in bulk, with pre-labels, most valuable first, and never twice."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from labeling.client import Client
from labeling.interface import BOXES_TAG, IMAGE_TAG
from labeling.params import LabelingParams
from labeling.project import Project
from labeling.task_pages import tasks_behind
from trashnet.boxes import Box, to_percent
from trashnet.errors import UserError
from trashnet.ledger import FrameRow, Ledger
from trashnet.progress import track
from trashnet.store import ObjectStore

# Label Studio starts an annotator from the predictions of one version only, and a queue holds tasks of many:
# which model it really was is in the task's data.
PRELABELS = "pre-labels"
BLIND = "without a model's boxes: please look for everything"  # instead of an explanation
LOOKUP_BATCH_SIZE = (
    80  # SHA-256s in one query, which travels in the address: under the 8 KB that proxies allow
)
LOOKUP_PAGE_SIZE = 500  # tasks without annotations in one answer


def request_labels(
    client: Client,
    project: Project,
    ledger: Ledger,
    store: ObjectStore,
    shas: Sequence[str],
    params: LabelingParams,
) -> int:
    """Make tasks of these accepted frames, in this order; they become ``tasked``; returns how many were new.

    Frames that are past ``accepted`` are left alone. An import is announced in the ledger before it is sent,
    so that a run which died between Label Studio's answer and the ledger is taken up without a second task.
    Raises :class:`UserError` for a frame that the ledger does not know, and what
    :meth:`labeling.client.Client.with_retries` raises.
    """
    if not _accepted(ledger, shas):
        return 0
    run = _Import(client, project, ledger, store.bucket, params)
    run.find_unknown_tasks()
    created = 0
    starts = range(0, len(shas), params.import_batch_size)
    for start in track(starts, len(starts), "make tasks", "batch"):
        if batch := _accepted(ledger, shas[start : start + params.import_batch_size]):
            created += run.import_batch(batch)
    return created


def _accepted(ledger: Ledger, shas: Sequence[str]) -> list[FrameRow]:
    """Those of these frames that are accepted, in this order."""
    known = ledger.frames_by_sha256(shas)
    if missing := [sha for sha in shas if sha not in known]:
        raise UserError(
            f"frame {missing[0]}: the ledger does not know it; "
            "a frame can be asked about once it was ingested"
        )
    return [known[sha] for sha in shas if known[sha].state == "accepted"]


class _Import:
    """One run of :func:`request_labels`. In the ledger it keeps two cursors.

    ``tasks``: up to which id it has seen the project's tasks; ``import``: the frames of an import under way.
    """

    def __init__(
        self, client: Client, project: Project, ledger: Ledger, bucket: str, params: LabelingParams
    ) -> None:
        self.client, self.project, self.ledger = client, project, ledger
        self.bucket, self.params = bucket, params
        scope = f"{project.id}/{project.installation}"
        self.newest_cursor, self.import_cursor = f"tasks/{scope}", f"import/{scope}"

    def find_unknown_tasks(self) -> None:
        """Enter tasks that the project has and the ledger does not.

        They are of an import whose run died, or newer than the ledger, if that was restored from a backup.
        """
        found: dict[str, int] = {}
        newest = int(self.ledger.cursor(self.newest_cursor) or 0)
        for page in tasks_behind(
            self.client, self.project.id, newest, LOOKUP_PAGE_SIZE, with_annotations=False
        ):
            for task in page:
                sha256, newest = task["data"].get("sha256"), task["id"]
                if isinstance(sha256, str):
                    found.setdefault(sha256, task["id"])  # the oldest, should somebody have made two
        interrupted = json.loads(self.ledger.cursor(self.import_cursor) or "[]")
        found |= self.client.with_retries(partial(tasks_of, self.client, self.project, interrupted))
        self._enter(found, newest)

    def import_batch(self, batch: Sequence[FrameRow]) -> int:
        """Make tasks of accepted frames and enter them; how many tasks are new."""
        # People were asked about these before, and then their tasks were gone: perhaps from another project.
        asked = [row.sha256 for row in batch if row.task_id is not None]
        found = self.client.with_retries(partial(tasks_of, self.client, self.project, asked))
        missing = [row for row in batch if row.sha256 not in found]
        created = 0
        if missing:
            self.ledger.set_cursor(self.import_cursor, json.dumps([row.sha256 for row in missing]))
            tasks: Any = [task_of(row, self.project, self.bucket, self.params) for row in missing]
            created = self.client.with_retries(partial(self._import_missing, missing, tasks, found, []))
        self._enter(found, max(found.values()))
        return created

    def _import_missing(
        self, rows: Sequence[FrameRow], tasks: Sequence[Any], found: dict[str, int], attempts: list[int]
    ) -> int:
        """Import those frames that are not in ``found``, and put their tasks there; returns how many.

        It may be called again after a fault. The response of an import may be lost after the import was done,
        so every call but the first looks up which frames have tasks.
        """
        if attempts:
            found |= tasks_of(self.client, self.project, [row.sha256 for row in rows])
        attempts.append(1)
        pairs = [(row.sha256, task) for row, task in zip(rows, tasks, strict=True) if row.sha256 not in found]
        if pairs:
            request: Any = [task for _, task in pairs]
            answer: Any = self.client.projects.import_tasks(
                self.project.id, request=request, return_task_ids=True
            )
            found |= zip((sha256 for sha256, _ in pairs), answer.task_ids, strict=True)
        return len(pairs)

    def _enter(self, task_ids: Mapping[str, int], newest: int) -> None:
        if task_ids:
            self.ledger.mark_tasked(task_ids)
        if newest > int(self.ledger.cursor(self.newest_cursor) or 0):
            self.ledger.set_cursor(self.newest_cursor, str(newest))
        if self.ledger.cursor(self.import_cursor):
            self.ledger.set_cursor(self.import_cursor, "")


def tasks_of(client: Client, project: Project, shas: Sequence[str]) -> dict[str, int]:
    """Which of these frames have a task in the project, and which; the oldest if somebody made two."""
    found: dict[str, int] = {}
    for start in range(0, len(shas), LOOKUP_BATCH_SIZE):
        some = list(shas[start : start + LOOKUP_BATCH_SIZE])
        item = {"filter": "filter:tasks:data.sha256", "operator": "in_list", "type": "String", "value": some}
        query = {"filters": {"conjunction": "and", "items": [item]}, "ordering": ["-tasks:id"]}
        tasks = client.list_tasks(project.id, query, page_size=2 * LOOKUP_BATCH_SIZE, with_annotations=False)
        found |= {task["data"]["sha256"]: task["id"] for task in tasks}
    return found


def task_of(row: FrameRow, project: Project, bucket: str, params: LabelingParams) -> dict[str, Any]:
    """A frame as Label Studio imports it: its image, its explanation, and the boxes to start from.

    A blind task (:func:`is_blind`) shows neither boxes nor what any model thought of the frame.
    """
    blind = is_blind(row, params)
    model, boxes = ("", ()) if blind else _prelabels(row)
    regions = list(_regions(boxes, row, project, params))
    data = {
        "image": f"s3://{bucket}/{row.key or f'frames/{row.sha256}.jpg'}",
        "why": BLIND if blind else row.explanation or row.reason or "",
        "value": 0.0 if blind else row.score or 0.0,
        "feedback": "",
        "bin_id": row.bin_id or "",
        "captured_at": row.captured_at.isoformat() if row.captured_at else "",
        "model": model,
        "sha256": row.sha256,
        "prelabelled": bool(regions),
    }
    if not regions:
        return {"data": data}
    score = max(region["score"] for region in regions)
    return {"data": data, "predictions": [{"model_version": PRELABELS, "score": score, "result": regions}]}


def needs_second_annotator(sha256: str, share: float) -> bool:
    """Whether two people should answer this frame: the same frames on every machine, whoever asks."""
    return _is_in_share("double", sha256, share)


def is_blind(row: FrameRow, params: LabelingParams) -> bool:
    """Whether the frame is annotated without pre-labels: they draw people towards what the model thinks.

    So are all frames that val and test may get, and ``params.blind_share`` of the others, the same ones on
    every machine.
    """
    return row.choice.is_random or _is_in_share("blind", row.sha256, params.blind_share)


def _is_in_share(purpose: str, sha256: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(f"{purpose} {sha256}".encode()).digest()[:8], "big") < share * 2**64


def _prelabels(row: FrameRow) -> tuple[str, tuple[Box, ...]]:
    """The teacher's prediction, or the bin's own detections while there is none."""
    if row.prediction is not None:
        return f"teacher {row.model or ''}".strip(), row.prediction
    return f"bin {row.release or ''}".strip() if row.detections else "", row.detections


def _regions(
    boxes: Sequence[Box], row: FrameRow, project: Project, params: LabelingParams
) -> Iterator[dict[str, Any]]:
    if not row.width or not row.height:
        return
    confident = sorted(
        (box for box in boxes if box.confidence >= params.prelabel_score), key=lambda box: -box.confidence
    )
    for number, box in enumerate(confident[: params.prelabel_boxes]):
        box = box.clipped(row.width, row.height)
        # An older release may know classes that the taxonomy has lost: Label Studio would refuse the whole
        # batch for one of them.
        if box.label not in project.names or min(box.w, box.h) < params.min_box_side:
            continue
        yield {
            "id": f"box{number}",
            "type": "rectanglelabels",
            "from_name": BOXES_TAG,
            "to_name": IMAGE_TAG,
            "original_width": row.width,
            "original_height": row.height,
            "image_rotation": 0,
            "score": box.confidence,
            "value": to_percent(box.xywh, row.width, row.height)
            | {"rotation": 0, "rectanglelabels": [box.label]},
        }
