"""Throughput of the student's training, input pipeline included, against the step on one cached batch."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tfrecords", type=Path, help="TFRecords to train on; drawn scenes unless given")
    parser.add_argument("--image-size", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tfrecords = arguments.tfrecords or _draw_tfrecords(Path(folder))
        sizes = arguments.image_size, arguments.batch_size, arguments.steps
        bare, training, input_pipeline = _measure(tfrecords, *sizes)
    print(f"bare train step          {bare:8.1f} images/s")
    print(f"input pipeline alone     {input_pipeline:8.1f} images/s")
    print(f"training, input included {training:8.1f} images/s")
    print(f"ratio of training to the bare step: {training / bare:.2f}")


def _measure(tfrecords: Path, image_size: int, batch_size: int, steps: int) -> tuple[float, float, float]:
    from training.ssd import SsdParams
    from training.ssd.input_pipeline import count_records, find_shards, training_batches
    from training.ssd.trainer import TrainingRun, compile_step
    from trashnet.taxonomy import load_taxonomy

    images = count_records(find_shards(tfrecords, "train"))
    epochs = 3 + 4 * steps * batch_size // images
    params = SsdParams(image_size=image_size, batch_size=batch_size, epochs=epochs, weights="none")
    run = TrainingRun(tfrecords, load_taxonomy(Path("taxonomy.yaml")), params, seed=1)
    with run.strategy.scope():
        model, _ = run.make_model()
    batches = run.strategy.experimental_distribute_dataset(
        training_batches(run.train_shards, params, run.batch_size, run.seed)
    )
    step = compile_step(model.train_step, run.strategy, batches)
    batch_iterator = iter(batches)
    cached = next(batch_iterator)
    float(step(cached)["loss"])  # compiles

    def bare_step() -> Any:
        return step(cached)

    def training_step() -> Any:
        return step(next(batch_iterator))

    # In the order A, B, B, A: a machine that slows down or speeds up meanwhile does so for both.
    seconds = [_time(call, steps) for call in (bare_step, training_step, training_step, bare_step)]
    started = time.perf_counter()
    for _ in range(steps):
        next(batch_iterator)
    input_seconds = time.perf_counter() - started
    images = steps * run.batch_size
    bare, training = (2 * images / sum(pair) for pair in (seconds[::3], seconds[1:3]))
    return bare, training, images / input_seconds


def _time(call: Callable[[], Any], steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        logs = call()
    float(logs["loss"])  # waits for the GPU
    return time.perf_counter() - started


def _draw_tfrecords(folder: Path, count: int = 128, side: int = 512) -> Path:
    """TFRecords of drawn scenes at the size of a bin's frame."""
    import hashlib

    import cv2
    import numpy as np

    from dataset import Frame, Labels, Log, append_turn
    from synthetic import draw_scene
    from training.ssd import TfrecordParams, write_tfrecords
    from trashnet.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(Path("taxonomy.yaml"))
    frames, labels = [], []
    for number in range(count):
        rng = np.random.default_rng(number)
        image, boxes, class_ids = draw_scene(rng, rng.integers(1, 58, 5).tolist(), side, taxonomy)
        jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
        sha = hashlib.sha256(jpeg).hexdigest()
        split = "train" if number % 16 else "val"
        frames.append(Frame(sha, jpeg, side, side, split, str(number), number, f"{number}.jpg"))
        labels.append((sha, Labels(boxes, class_ids, np.zeros(len(class_ids), bool))))
    append_turn(folder / "data", "drawn", frames, labels, taxonomy)
    log = Log(folder / "data", taxonomy)
    params = TfrecordParams(train_shards=4, val_shards=1)
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, folder / "tfrecords", params, seed=1)
    return folder / "tfrecords"


if __name__ == "__main__":
    main()
