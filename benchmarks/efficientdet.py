"""How much of the bare network's pace the training loop keeps, its loader included; and the loader alone.

    python benchmarks/efficientdet.py [LOG] [--image-size N] [--batch-size N] [--steps N] [--workers N] [--weights-dir DIR]

All figures come from one run on one machine. "bare" is forward, loss, backward and optimizer step on one
batch that lies on the device; "loop" is :func:`training.efficientdet.train` itself, its first epoch left out;
"loader" is batches from the log with nothing behind it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from dataset import Frames, Log
from training.efficientdet import EfficientDetParams, train
from training.efficientdet.data import Batch, make_loader
from training.efficientdet.fit import precision_of
from training.efficientdet.model import Teacher
from training.efficientdet.module import TeacherModule
from trashnet.taxonomy import load_taxonomy


def repeated(frames: Frames, count: int) -> Frames:
    many = frames
    while len(many) < count:
        many = many + frames
    return many[:count]


def waited() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def bare(batch: Batch, params: EfficientDetParams, classes: int, steps: int) -> float:
    """Images per second of the network alone."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = precision_of(params)
    model = Teacher(classes, params.image_size, params.drop_path, params.batch_norm_momentum)
    module = TeacherModule(model, params, 0, Frames([]), fused=device.type == "cuda").to(device).train()
    optimizer = torch.optim.AdamW(module.parameters(), fused=device.type == "cuda")
    batch = Batch(*(part.to(device) for part in batch))
    mixed = torch.autocast(
        device.type, torch.bfloat16 if "bf16" in precision else torch.float16, enabled="mixed" in precision
    )
    torch.backends.cudnn.benchmark = True

    def step() -> None:
        with mixed:
            loss, _, _ = module.losses(batch)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), params.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(min(5, steps)):
        step()
    begun = waited()
    for _ in range(steps):
        step()
    return steps * len(batch.images) / (waited() - begun)


def loader_alone(frames: Frames, params: EfficientDetParams, steps: int) -> float:
    """Images per second out of the loader once its workers run."""
    batches = iter(
        make_loader(repeated(frames, (2 * steps + 5) * params.batch_size), params, 0, training=True)
    )
    for _ in range(5):
        next(batches)
    begun = time.perf_counter()
    images = sum(len(next(batches).images) for _ in range(2 * steps))
    return images / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "log", type=Path, nargs="?", default=Path("data"), help="a dataset log; `dvc pull` fetches the sample"
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--image-size", type=int, default=512 if on_gpu else 256)
    parser.add_argument("--batch-size", type=int, default=32 if on_gpu else 8)
    parser.add_argument("--steps", type=int, default=40 if on_gpu else 10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--weights-dir", type=Path)
    asked = parser.parse_args()
    params = EfficientDetParams(
        image_size=asked.image_size,
        batch_size=asked.batch_size,
        epochs=asked.epochs,
        workers=asked.workers,
        weights="imagenet" if asked.weights_dir else "none",
        weights_dir=asked.weights_dir,
        map_every=0,
        warmup_epochs=0,
    )
    taxonomy = load_taxonomy()
    frames = Log(asked.log, taxonomy).frames("train")
    alone = loader_alone(frames, params, asked.steps)
    batch = next(iter(make_loader(repeated(frames, params.batch_size), params, 0, training=True)))
    network = bare(batch, params, len(taxonomy.names), asked.steps)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        several = repeated(frames, asked.steps * params.batch_size)
        report = train(
            several,
            frames[: params.batch_size],
            taxonomy,
            params,
            0,
            work / "out",
            work / "live",
            work / "checkpoints",
        )
    print(
        f"device: {report.device}, {report.precision}, {params.image_size} px, batches of {params.batch_size}"
    )
    print(f"loader alone: {alone:.1f} images/s")
    print(f"bare forward, backward and step on one cached batch: {network:.1f} images/s")
    print(
        f"training loop: {report.images_per_second:.1f} images/s, {report.data_wait_share:.1%} of the time waiting for data"
    )
    print(f"ratio: {report.images_per_second / network:.3f} of the bare network's pace")


if __name__ == "__main__":
    main()
