"""COCO AP on the validation frames while training goes on: a headline to watch; the scorecard is the evaluation room's."""

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms  # type: ignore[import-untyped]

from dataset import Frames
from training.efficientdet.targets import decode

CANDIDATES, MOST, NMS_IOU = 5000, 100, 0.5


def detections(logits: Tensor, codes: Tensor, anchors: Tensor) -> list[Tensor]:
    """Per image ``(N, 6)``: ``(x0, y0, x1, y1, score, class index)`` in pixels of the model's input, best first, at most 100."""
    batch, _, classes = logits.shape
    scores, flat = logits.float().flatten(1).topk(min(CANDIDATES, logits[0].numel()), dim=1)
    anchor, label = flat // classes, flat % classes
    boxes = decode(codes.float().gather(1, anchor[..., None].expand(-1, -1, 4)), anchors[anchor])[
        ..., [1, 0, 3, 2]
    ]
    found = []
    for i in range(batch):
        keep = batched_nms(boxes[i], scores[i], label[i], NMS_IOU)[:MOST]
        found.append(
            torch.cat([boxes[i][keep], scores[i][keep, None].sigmoid(), label[i][keep, None].float()], dim=1)
        )
    return found


def average_precision(
    frames: Frames, found: dict[int, np.ndarray[Any, Any]], classes: int
) -> dict[str, float]:
    """``ap50`` and ``ap`` (COCO, IoU .5 and .5 to .95) of detections by frame index, rows as in :func:`detections` but in frame pixels.

    Crowd boxes are neither to be found nor wrong to find. Both are 0 where no frame has a box.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    annotations: list[dict[str, Any]] = []
    for index in range(len(frames)):
        labels = frames.labels(index)
        assert labels is not None  # Log.frames() gives labelled frames
        for box, class_id, crowd in zip(
            labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), strict=True
        ):
            row = {
                "image_id": index,
                "category_id": class_id,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            annotations.append({"id": len(annotations) + 1, **row})
    results = [
        {
            "image_id": index,
            "category_id": int(row[5]) + 1,
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
            "score": row[4],
        }
        for index, rows in found.items()
        for row in rows.astype(float).tolist()
    ]
    if not annotations or not results:
        return {"ap50": 0.0, "ap": 0.0}
    images = [{"id": index} for index in range(len(frames))]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools' habit of printing its tables
        truth = COCO(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": i + 1} for i in range(classes)],
            }
        )
        judge = COCOeval_faster(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {"ap50": max(0.0, float(judge.stats[1])), "ap": max(0.0, float(judge.stats[0]))}
