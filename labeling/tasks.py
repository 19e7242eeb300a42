"""Frames become tasks: in bulk, with pre-labels, most valuable first, and never twice."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from labeling.client import Client
from labeling.interface import BOXES_TAG, IMAGE_TAG
from labeling.params import LabelingParams
from labeling.project import Project
from trashnet.boxes import Box, to_percent
from trashnet.errors import UserError
from trashnet.ledger import FrameRow, Ledger
from trashnet.store import ObjectStore

# Label Studio starts an annotator from the predictions of one version only, and a queue holds tasks of many:
# which model it really was is in the task's data.
PRELABELS = "pre-labels"
LOOKUP_BATCH_SIZE = (
    80  # SHA-256s in one query, which travels in the address: under the 8 KB that proxies allow
)


def request_labels(
    client: Client,
    project: Project,
    ledger: Ledger,
    store: ObjectStore,
    shas: Sequence[str],
    params: LabelingParams,
) -> int:
    """Make tasks of these accepted frames, in this order; they become ``tasked``; returns how many were new.

    Frames that are past ``accepted`` are left alone. Before a batch is imported Label Studio is asked which
    of its frames it has, so that a run which died between its answer and the ledger is taken up without a
    second task. Raises :class:`UserError` for a frame that the ledger does not know, and what
    :meth:`labeling.client.Client.with_retries` raises.
    """
    created = 0
    for start in range(0, len(shas), params.import_batch_size):
        batch = [
            row
            for row in _rows(ledger, shas[start : start + params.import_batch_size])
            if row.state == "accepted"
        ]
        if batch:
            task_ids: dict[str, int] = {}
            created += client.with_retries(
                partial(_import_missing, client, project, batch, store.bucket, params, task_ids)
            )
            ledger.mark_tasked({row.sha256: task_ids[row.sha256] for row in batch})
    return created


def _import_missing(
    client: Client,
    project: Project,
    batch: Sequence[FrameRow],
    bucket: str,
    params: LabelingParams,
    task_ids: dict[str, int],
) -> int:
    """Import those frames that have no task, and put every frame's task into ``task_ids``.

    It may be called again after a fault. The response of an import may be lost after the import was done, so
    each call looks up first which frames have tasks.
    """
    task_ids |= tasks_of(client, project, [row.sha256 for row in batch])
    missing = [row for row in batch if row.sha256 not in task_ids]
    if missing:
        tasks: Any = [task_of(row, project, bucket, params) for row in missing]
        answer: Any = client.projects.import_tasks(project.id, request=tasks, return_task_ids=True)
        task_ids |= zip((row.sha256 for row in missing), answer.task_ids, strict=True)
    return len(missing)


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
    """A frame as Label Studio imports it: its image, its explanation, and the boxes to start from."""
    model, boxes = _prelabels(row)
    data = {
        "image": f"s3://{bucket}/{row.key or f'frames/{row.sha256}.jpg'}",
        "why": row.explanation or row.reason or "",
        "value": row.score or 0.0,
        "feedback": "",
        "bin_id": row.bin_id or "",
        "captured_at": row.captured_at.isoformat() if row.captured_at else "",
        "model": model,
        "sha256": row.sha256,
    }
    regions = list(_regions(boxes, row, project, params))
    if not regions:
        return {"data": data}
    score = max(region["score"] for region in regions)
    return {"data": data, "predictions": [{"model_version": PRELABELS, "score": score, "result": regions}]}


def needs_second_annotator(sha256: str, share: float) -> bool:
    """Whether two people should answer this frame: the same frames on every machine, whoever asks."""
    return int.from_bytes(hashlib.sha256(f"double {sha256}".encode()).digest()[:8], "big") < share * 2**64


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


def _rows(ledger: Ledger, shas: Sequence[str]) -> Iterator[FrameRow]:
    for sha in shas:
        row = ledger.frame(sha)
        if row is None:
            raise UserError(
                f"frame {sha}: the ledger does not know it; a frame can be asked about once it was ingested"
            )
        yield row
