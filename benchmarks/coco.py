"""Our COCO evaluator against pycocotools on a problem of COCO val2017's size. `python benchmarks/coco.py`."""

import argparse
import contextlib
import io
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.coco import coco_metrics, to_coco_documents
from evaluation.flat_arrays import GroundTruth, Predictions


def draw_problem(images: int, classes: int, boxes: int, seed: int) -> tuple[GroundTruth, Predictions]:
    """Boxes of COCO's sizes and long-tailed classes.

    Detections as a mAP-0.3 model makes them: hits that jitter, confusions, background.
    """
    draw = np.random.default_rng(seed)
    image = np.sort(draw.integers(0, images, boxes))
    share = 1 / np.arange(1, classes + 1) ** 0.8
    class_ids = draw.choice(np.arange(1, classes + 1), boxes, p=share / share.sum())
    size = np.exp(draw.normal(4.0, 1.0, (boxes, 2))).clip(4, 500)
    box = np.concatenate([draw.uniform(0, 640 - size.clip(max=600)), size], axis=1)
    names = tuple(f"{i:064x}" for i in range(images))
    truth = GroundTruth(names, image, box, class_ids, draw.random(boxes) < 0.01)

    copies = draw.integers(
        0, boxes, boxes * 4
    )  # on average four detections per item, as a detector without much NMS gives
    spread = draw.exponential(0.12, (len(copies), 1))
    near = box[copies] + draw.normal(0, 1, (len(copies), 4)) * spread * np.tile(size[copies], 2)
    near[:, 2:] = np.abs(near[:, 2:]).clip(2)
    right = draw.random(len(copies)) < 0.7
    named = np.where(right, class_ids[copies], draw.integers(1, classes + 1, len(copies)))
    score = (np.exp(-4 * spread[:, 0]) * np.where(right, 1, 0.5) * draw.uniform(0.3, 1, len(copies))).round(6)
    clutter = boxes * 10  # with the copies about 100 detections an image, COCO's limit
    noise = np.concatenate(
        [draw.uniform(0, 500, (clutter, 2)), np.exp(draw.normal(4, 1, (clutter, 2)))], axis=1
    )
    return truth, Predictions.from_arrays(
        names,
        np.concatenate([image[copies], draw.integers(0, images, clutter)]),
        np.concatenate([near, noise]),
        np.concatenate([named, draw.integers(1, classes + 1, clutter)]),
        np.concatenate([score, draw.beta(1, 12, clutter).round(6)]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--boxes", type=int, default=36_000)
    options = parser.parse_args()
    truth, predictions = draw_problem(options.images, options.classes, options.boxes, seed=20)
    class_ids = np.arange(1, options.classes + 1)
    print(
        f"{options.images} images, {options.classes} classes, {len(truth)} boxes, {len(predictions)} "
        "detections"
    )

    began = time.perf_counter()
    ours = coco_metrics(truth, predictions, class_ids)
    seconds = time.perf_counter() - began

    documents = to_coco_documents(truth, predictions, class_ids)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for document in documents:
            coco = COCO()
            coco.dataset = document
            coco.createIndex()
            sides.append(coco)
        judge = COCOeval(*sides, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    reference = time.perf_counter() - began
    equal = [-1.0 if v is None else v for v in ours.summary.values()] == list(judge.stats)
    print(
        f"AP {ours.summary['ap']:.4f}; the twelve numbers are "
        f"{'equal to the last bit' if equal else 'DIFFERENT'}"
    )
    print(
        f"coco: pycocotools {reference:.2f} s, evaluation.coco_metrics {seconds:.2f} s, ratio "
        f"{reference / seconds:.1f}x"
    )
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
