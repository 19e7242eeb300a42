"""Training images/s of the student with its input pipeline, against the bare train step fed one batch over and over; same process."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tfrecords", type=Path, help="TFRecords to train on; drawn scenes unless given")
    arguments.add_argument("--image-size", type=int, default=300)
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--steps", type=int, default=10, help="timed steps of each")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tfrecords = asked.tfrecords or _draw(Path(folder))
        bare, whole, input_alone = _measure(tfrecords, asked.image_size, asked.batch_size, asked.steps)
    print(f"bare train step          {bare:8.1f} images/s")
    print(f"input pipeline alone     {input_alone:8.1f} images/s")
    print(f"training, input included {whole:8.1f} images/s")
    print(f"ratio of training to the bare step: {whole / bare:.2f}")


def _measure(tfrecords: Path, image_size: int, batch_size: int, steps: int) -> tuple[float, float, float]:
    from training.ssd.input import count_records, find_records, training_batches
    from training.ssd.loop import Run, compiled_step
    from training.ssd.params import SsdParams
    from trashnet.taxonomy import load_taxonomy

    images = count_records(find_records(tfrecords, "train"))
    epochs = 3 + 4 * steps * batch_size // images
    params = SsdParams(image_size=image_size, batch_size=batch_size, epochs=epochs, weights="none")
    run = Run(tfrecords, load_taxonomy(Path("taxonomy.yaml")), params, seed=1)
    with run.strategy.scope():
        model, _ = run.make_model()
    batches = run.strategy.experimental_distribute_dataset(
        training_batches(run.train_files, params, run.batch_size, run.seed)
    )
    step = compiled_step(model.train_step, run.strategy, batches)
    arriving = iter(batches)
    kept = next(arriving)
    float(step(kept)["loss"])  # compiles

    def bare() -> Any:
        return step(kept)

    def whole() -> Any:
        return step(next(arriving))

    # Bare, whole, whole, bare: a machine that slows down or speeds up meanwhile does so for both.
    seconds = [_timed(each, steps) for each in (bare, whole, whole, bare)]
    began = time.perf_counter()
    for _ in range(steps):
        next(arriving)
    waited = time.perf_counter() - began
    per_run = steps * run.batch_size
    return 2 * per_run / (seconds[0] + seconds[3]), 2 * per_run / (seconds[1] + seconds[2]), per_run / waited


def _timed(call: Callable[[], Any], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        logs = call()
    float(logs["loss"])  # waits for the GPU
    return time.perf_counter() - began


def _draw(folder: Path, count: int = 128, side: int = 512) -> Path:
    """TFRecords of drawn scenes at the size of a bin's frame."""
    import hashlib

    import cv2
    import numpy as np

    from dataset import Frame, Labels, Log, append_turn
    from synthetic import draw_scene
    from training.ssd.tfrecords import TfrecordParams, write_tfrecords
    from trashnet.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(Path("taxonomy.yaml"))
    frames, labels = [], []
    for number in range(count):
        rng = np.random.default_rng(number)
        image, boxes, class_ids = draw_scene(rng, rng.integers(1, 58, 5).tolist(), side, taxonomy)
        jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
        sha = hashlib.sha256(jpeg).hexdigest()
        frames.append(
            Frame(
                sha, jpeg, side, side, "train" if number % 16 else "val", str(number), number, f"{number}.jpg"
            )
        )
        labels.append((sha, Labels(boxes, class_ids, np.zeros(len(class_ids), bool))))
    append_turn(folder / "data", "drawn", frames, labels, taxonomy)
    log = Log(folder / "data", taxonomy)
    params = TfrecordParams(train_shards=4, val_shards=1)
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, folder / "tfrecords", params, seed=1)
    return folder / "tfrecords"


if __name__ == "__main__":
    main()
