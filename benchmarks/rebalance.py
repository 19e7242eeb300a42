"""Compare rebalancing on all cores with a plain albumentations loop: `python benchmarks/rebalance.py`."""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import albumentations
import cv2
import numpy as np

from dataset import Frames, Log
from dataset.rebalance import RebalanceParams, rebalance
from synthetic import SampleParams, draw_sample
from trashnet.params import load_params
from trashnet.taxonomy import load_taxonomy


def plain_loop(frames: Frames, copies: int, out: Path, params: RebalanceParams) -> None:
    """Augment one original after the other, as in a notebook, into JPEGs and one JSON file of boxes."""
    step = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=params.flip),
            albumentations.Affine(
                scale=params.scale,
                translate_percent=(-params.translate, params.translate),
                rotate=(-params.rotate, params.rotate),
                keep_ratio=True,
                p=1.0,
            ),
        ],
        bbox_params=albumentations.BboxParams(
            format="coco", label_fields=["classes"], min_visibility=params.min_visible, clip=True
        ),
        seed=0,
    )
    boxes = {}
    for number in range(copies):
        frame = frames[number % len(frames)]
        if frame.labels is None:
            continue
        made = step(image=frame.image(), bboxes=frame.labels.boxes, classes=frame.labels.class_ids)
        name = f"{frame.sha256}-{number}.jpg"
        cv2.imwrite(
            str(out / name), made["image"][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, params.jpeg_quality]
        )
        boxes[name] = [
            [*map(float, box), int(c)] for box, c in zip(made["bboxes"], made["classes"], strict=True)
        ]
    (out / "boxes.json").write_text(json.dumps(boxes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--target", type=int, default=250)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    taxonomy = load_taxonomy()
    drawn = load_params("sample", SampleParams).model_copy(
        update={"image_size": options.image_size, "scale": 0.02}
    )
    params = load_params("rebalance", RebalanceParams).model_copy(update={"target_images": options.target})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_sample(root / "data", taxonomy, drawn)
        log = Log(root / "data", taxonomy)
        frames = log.frames("train")
        frames = frames.take(np.array([i for i in range(len(frames)) if len(frames.labels(i) or ())]))
        print(f"{len(frames)} originals of {options.image_size} px, {options.workers} workers")

        start = time.perf_counter()
        report = rebalance(log, root / "rebalanced", params, seed=20, workers=options.workers)
        rebalance_seconds = time.perf_counter() - start
        print(
            f"rebalance  {report.copies:6,} copies {rebalance_seconds:7.2f} s "
            f"{report.copies / rebalance_seconds:7.0f} images/s, "
            "planning and start-up included"
        )

        (root / "plain").mkdir()
        start = time.perf_counter()
        plain_loop(frames, report.copies, root / "plain", params)
        plain_seconds = time.perf_counter() - start
        print(
            f"plain loop {report.copies:6,} copies {plain_seconds:7.2f} s "
            f"{report.copies / plain_seconds:7.0f} images/s"
        )
        print(f"ratio {plain_seconds / rebalance_seconds:.2f}")


if __name__ == "__main__":  # worker processes import this file
    main()
