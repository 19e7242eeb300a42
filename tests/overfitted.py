"""A student that has learnt eight drawn frames by heart, for the tests of training and of export; trained once a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import Frames, Log
from training.ssd.tfrecords import TfrecordParams, write_tfrecords
from trashnet.detectors import Detections, Detector
from trashnet.taxonomy import Taxonomy

SIDE, LEARNT, REPEATS = 96, 8, 10
_trained: dict[Path, Any] = {}


@dataclass(frozen=True)
class Overfitted:
    """The trained folder, the frames it knows, and what training reported."""

    folder: Path
    frames: Frames
    report: Any


def overfitted_ssd(sample_log: Log, taxonomy: Taxonomy) -> Overfitted:
    """Train from random weights on the first eight frames of the sample log, 100 steps at 96 pixels."""
    from training.ssd import SsdParams, train

    root = sample_log.root.parent / "overfitted"
    if root not in _trained:
        frames = sample_log.frames("train")[:LEARNT]
        repeated = sum([frames] * (REPEATS - 1), frames)
        write_tfrecords(
            repeated,
            frames,
            taxonomy,
            root / "tfrecords",
            TfrecordParams(train_shards=2, val_shards=1),
            seed=1,
        )
        (
            root / "tfrecords/val-00000-of-00001.tfrecord"
        ).unlink()  # judged by its boxes, not its loss: saves compiling the validation step
        params = SsdParams(
            image_size=SIDE,
            epochs=10,
            batch_size=8,
            learning_rate=0.002,
            warmup_epochs=0.5,
            weights="none",
            batch_norm_momentum=0.8,  # the run is short, and what the statistics describe changes with every step
            augment=False,
        )
        report = train(
            root / "tfrecords", taxonomy, params, 1, root / "ssd", root / "live", root / "checkpoints"
        )
        _trained[root] = Overfitted(root / "ssd", frames, report)
    return _trained[root]


class KerasDetector:
    """The Keras model itself as a detector: decoding in numpy, OpenCV's NMS; nothing of TFLite."""

    name = "keras"

    def __init__(self, folder: Path) -> None:
        from export.tflite import load_trained
        from training.ssd.model import anchors_of

        self.model, _ = load_trained(folder)
        self.anchors = anchors_of(self.model)

    def raw(self, images: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encodings ``(B, N, 4)`` and scores ``(B, N, C)``."""
        from trashnet.detectors._tflite import fit_image, normalise

        pixels = normalise(np.stack([fit_image(image, self.model.input_shape[1]) for image in images]))
        encodings, logits = self.model(pixels, training=False)
        return np.asarray(encodings), 1 / (1 + np.exp(-np.asarray(logits)))

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """As :class:`Detector` has it."""
        from training.ssd.anchors import decode

        found = []
        for image, encodings, scores in zip(images, *self.raw(images), strict=True):
            y0, x0, y1, x1 = decode(encodings, self.anchors).clip(0, 1).T
            height, width = image.shape[:2]
            boxes = np.stack([x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height], axis=1)
            best = scores.max(axis=1)
            keep = np.array(cv2.dnn.NMSBoxes(boxes.tolist(), best.tolist(), 0.01, 0.6))[:20]
            found.append(
                Detections(boxes[keep].astype(np.float32), scores[keep].argmax(axis=1) + 1, best[keep])
            )
        return found


def average_precision(detector: Detector, frames: Frames) -> float:
    """COCO's AP at IoU 0.5 of a detector on frames, by pycocotools."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    labels = [frame.labels for frame in frames]
    boxes = [
        (n, box, int(c))
        for n, one in enumerate(labels, 1)
        if one
        for box, c in zip(one.boxes, one.class_ids, strict=True)
    ]
    truth.dataset = {
        "images": [{"id": n} for n in range(1, len(frames) + 1)],
        "categories": [{"id": c} for c in sorted({c for *_, c in boxes})],
        "annotations": [
            {
                "id": i,
                "image_id": n,
                "category_id": c,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
            }
            for i, (n, box, c) in enumerate(boxes, 1)
        ],
    }
    found = [
        {"image_id": n, "category_id": int(c), "bbox": box.tolist(), "score": float(s)}
        for n, d in enumerate(detector.detect([frame.image() for frame in frames]), 1)
        for box, c, s in zip(d.boxes, d.class_ids, d.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[1])
