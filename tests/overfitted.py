"""A student overfitted to eight drawn frames, for tests of training and export; trained once a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import Frames, Log
from trashnet.detectors import Detections, Detector
from trashnet.taxonomy import Taxonomy

IMAGE_SIZE, NUM_FRAMES, REPEATS = 96, 8, 10
_trained: dict[Path, Any] = {}


@dataclass(frozen=True)
class Overfitted:
    """The trained folder, the frames it was trained on, and the report of the training."""

    folder: Path
    frames: Frames
    report: Any


def overfitted_ssd(sample_log: Log, taxonomy: Taxonomy) -> Overfitted:
    """Train from random weights on the first eight frames of the sample log, 100 steps at 96 pixels."""
    from training.ssd import SsdParams, TfrecordParams, train, write_tfrecords

    root = sample_log.root.parent / "overfitted"
    if root not in _trained:
        frames = sample_log.frames("train")[:NUM_FRAMES]
        repeated = sum([frames] * (REPEATS - 1), frames)
        shards = TfrecordParams(train_shards=2, val_shards=1)
        write_tfrecords(repeated, frames, taxonomy, root / "tfrecords", shards, seed=1)
        # Its boxes are tested, not its loss: without validation records no validation step is compiled.
        (root / "tfrecords/val-00000-of-00001.tfrecord").unlink()
        params = SsdParams(
            image_size=IMAGE_SIZE,
            epochs=10,
            batch_size=8,
            learning_rate=0.002,
            warmup_epochs=0.5,
            weights="none",
            batch_norm_momentum=0.8,  # the run is short, and the activations change with every step
            augment=False,
        )
        folders = root / "ssd", root / "live", root / "checkpoints"
        report = train(root / "tfrecords", taxonomy, params, 1, *folders)
        _trained[root] = Overfitted(root / "ssd", frames, report)
    return _trained[root]


class KerasDetector:
    """The Keras model itself as a detector: decoding in NumPy, OpenCV's NMS; nothing of TFLite."""

    name = "keras"

    def __init__(self, folder: Path) -> None:
        from training.ssd import load_trained
        from training.ssd.model import model_anchors

        self.model, _ = load_trained(folder)
        self.anchors = model_anchors(self.model)

    def raw_heads(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encodings ``(B, N, 4)`` and scores ``(B, N, C)``."""
        from trashnet.detectors._tflite import normalise, stretch

        pixels = normalise(np.stack([stretch(image, self.model.input_shape[1]) for image in images]))
        encodings, logits = self.model(pixels, training=False)
        return np.asarray(encodings), 1 / (1 + np.exp(-np.asarray(logits)))

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """As :meth:`Detector.detect` says."""
        detections = []
        for image, encodings, scores in zip(images, *self.raw_heads(images), strict=True):
            y0, x0, y1, x1 = decode_boxes(encodings, self.anchors).clip(0, 1).T
            height, width = image.shape[:2]
            boxes = np.stack([x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height], axis=1)
            best = scores.max(axis=1)
            keep = np.array(cv2.dnn.NMSBoxes(boxes.tolist(), best.tolist(), 0.01, 0.6))[:20]
            class_ids = scores[keep].argmax(axis=1) + 1
            detections.append(Detections(boxes[keep].astype(np.float32), class_ids, best[keep]))
        return detections


def decode_boxes(encodings: NDArray[np.float32], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of ``training.ssd.loss.encode_boxes``; on the bin TFLite's post-processing does it.

    Args:
        encodings: ``(..., N, 4)``.
        anchors: ``(N, 4)``, (centre y, centre x, height, width).

    Returns:
        ``(..., N, 4)``, (y0, x0, y1, x1) in the unit of the anchors.
    """
    from training.ssd.anchors import BOX_SCALES, to_corners

    scaled = encodings / np.asarray(BOX_SCALES, np.float32)
    centre = scaled[..., :2] * anchors[:, 2:] + anchors[:, :2]
    return to_corners(np.concatenate([centre, np.exp(scaled[..., 2:]) * anchors[:, 2:]], axis=-1))


def average_precision(detector: Detector, frames: Frames) -> float:
    """COCO's AP at IoU 0.5 of a detector on frames, by pycocotools."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    boxes = [
        (image_id, box, int(class_id))
        for image_id, frame in enumerate(frames, 1)
        if frame.labels
        for box, class_id in zip(frame.labels.boxes, frame.labels.class_ids, strict=True)
    ]
    annotations = [
        {
            "id": index,
            "image_id": image_id,
            "category_id": class_id,
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for index, (image_id, box, class_id) in enumerate(boxes, 1)
    ]
    truth.dataset = {
        "images": [{"id": image_id} for image_id in range(1, len(frames) + 1)],
        "categories": [{"id": class_id} for class_id in sorted({class_id for *_, class_id in boxes})],
        "annotations": annotations,
    }
    results = [
        {"image_id": image_id, "category_id": int(class_id), "bbox": box.tolist(), "score": float(score)}
        for image_id, detections in enumerate(detector.detect([frame.image() for frame in frames]), 1)
        for box, class_id, score in zip(
            detections.boxes, detections.class_ids, detections.scores, strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])
