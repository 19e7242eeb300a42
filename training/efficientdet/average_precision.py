"""COCO AP on the validation frames, to watch during training; ``evaluation`` makes the scorecard."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
    from hotcoco import COCO, COCOeval

    truth = _annotations(frames)
    rows = [np.column_stack((np.full(len(found), index), found)) for index, found in detections.items()]
    results = np.concatenate([*rows, np.empty((0, 7))])
    results[:, 3:5] -= results[:, 1:3]  # from corners to width and height
    if not len(truth) or not len(results):
        return {"ap50": 0.0, "ap": 0.0}
    results[:, 6] += 1
    image, class_ids, boxes, crowd = truth[:, 0], truth[:, 1], truth[:, 2:6], truth[:, 6]
    coco = COCO.from_arrays(
        [{"id": index, "width": 1, "height": 1} for index in range(len(frames))],
        [{"id": i + 1, "name": str(i + 1)} for i in range(num_classes)],
        image.astype(np.int64),
        class_ids.astype(np.int64),
        boxes,
        area=boxes[:, 2] * boxes[:, 3],
        iscrowd=crowd.astype(np.int64),
    )
    evaluation = COCOeval(coco, coco.load_res(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    tables = evaluation.eval
    assert tables is not None  # accumulate() filled it
    precision = tables["precision"][:, :, :, 0, -1]  # all areas, 100 detections an image
    return {"ap50": _mean(precision[0]), "ap": _mean(precision)}


def _mean(precision: NDArray[np.float64]) -> float:
    """The mean over classes that have boxes; 0 where none has."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else 0.0


def _annotations(frames: Frames) -> NDArray[np.float64]:
    """The boxes of all frames, ``(N, 7)``: index of the frame, class id, x, y, w, h, whether a crowd."""
    tables: list[NDArray[np.float64]] = [np.empty((0, 7))]
    for index in range(len(frames)):
        labels = frames.labels(index)
        assert labels is not None  # Log.frames() gives labelled frames
        tables.append(
            np.column_stack((np.full(len(labels), index), labels.class_ids, labels.boxes, labels.crowd))
        )
    return np.concatenate(tables)
