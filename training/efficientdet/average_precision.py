"""COCO AP on the validation frames, to watch during training; ``evaluation`` makes the scorecard."""

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms  # type: ignore[import-untyped]

from dataset import Frames
from training.efficientdet.targets import decode_boxes

MAX_CANDIDATES = 5000  # of all anchors and classes, as in EfficientDet's own post-processing
MAX_DETECTIONS = 100
IOU_THRESHOLD = 0.5


def decode_detections(logits: Tensor, codes: Tensor, anchors: Tensor) -> list[Tensor]:
    """Decode the raw heads of a batch: top-k candidates, then non-maximum suppression per class.

    Args:
        logits: ``(B, A, C)``.
        codes: ``(B, A, 4)``, (ty, tx, th, tw).
        anchors: ``(A, 4)``, (y0, x0, y1, x1) in pixels of the network's input.

    Returns:
        Per image ``(N, 6)``: (x0, y0, x1, y1) in pixels of the network's input, score, class index; best
        first, at most 100.
    """
    batch_size, _, num_classes = logits.shape
    scores, flat = logits.float().flatten(1).topk(min(MAX_CANDIDATES, logits[0].numel()), dim=1)
    anchor, label = flat // num_classes, flat % num_classes
    candidates = codes.float().gather(1, anchor[..., None].expand(-1, -1, 4))
    boxes = decode_boxes(candidates, anchors[anchor])[..., [1, 0, 3, 2]]
    detections = []
    for i in range(batch_size):
        keep = batched_nms(boxes[i], scores[i], label[i], IOU_THRESHOLD)[:MAX_DETECTIONS]
        columns = [boxes[i][keep], scores[i][keep, None].sigmoid(), label[i][keep, None].float()]
        detections.append(torch.cat(columns, dim=1))
    return detections


def average_precision(
    frames: Frames, detections: dict[int, np.ndarray[Any, Any]], num_classes: int
) -> dict[str, float]:
    """COCO AP of detections; a crowd box is neither a miss nor a false alarm.

    Args:
        frames: The frames that were searched.
        detections: By index of the frame, rows as in :func:`decode_detections` but in pixels of the frame.
        num_classes: Number of classes.

    Returns:
        ``ap50`` (IoU 0.5) and ``ap`` (IoU 0.5 to 0.95); both 0 where no frame has a box.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    annotations = _annotations(frames)
    results = [
        {
            "image_id": index,
            "category_id": int(row[5]) + 1,
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
            "score": row[4],
        }
        for index, rows in detections.items()
        for row in rows.astype(float).tolist()
    ]
    if not annotations or not results:
        return {"ap50": 0.0, "ap": 0.0}
    truth = {
        "images": [{"id": index} for index in range(len(frames))],
        "annotations": annotations,
        "categories": [{"id": i + 1} for i in range(num_classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints its tables
        coco = COCO(truth)
        evaluation = COCOeval_faster(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"ap50": max(0.0, float(evaluation.stats[1])), "ap": max(0.0, float(evaluation.stats[0]))}


def _annotations(frames: Frames) -> list[dict[str, Any]]:
    """The boxes of all frames as COCO annotations."""
    annotations: list[dict[str, Any]] = []
    for index in range(len(frames)):
        labels = frames.labels(index)
        assert labels is not None  # Log.frames() gives labelled frames
        rows = zip(labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), strict=True)
        for box, class_id, crowd in rows:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": index,
                "category_id": class_id,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            annotations.append(annotation)
    return annotations
