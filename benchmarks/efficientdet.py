"""Throughput of the teacher's training loop, loader included, against the bare network; and of the loader.

    python benchmarks/efficientdet.py [LOG] [--image-size N] [--batch-size N] [--steps N]
                                      [--workers N] [--weights-dir DIR]

All figures come from one run on one machine. "bare" is forward, loss, backward and optimizer step on one
batch on the device; "loop" is :func:`training.efficientdet.train` itself, its first epoch left out;
"loader" is the batches from the log, which nothing consumes.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from dataset import Frames, Log
from training.efficientdet import EfficientDetParams, train
from training.efficientdet.data import Batch, make_loader
from training.efficientdet.lightning_module import EfficientDetModule
from training.efficientdet.model import EfficientDetD0
from training.efficientdet.trainer import choose_precision
from trashnet.taxonomy import load_taxonomy


def repeat(frames: Frames, count: int) -> Frames:
    repeated = frames
    while len(repeated) < count:
        repeated = repeated + frames
    return repeated[:count]


def synchronised_time() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_bare_network(batch: Batch, params: EfficientDetParams, num_classes: int, steps: int) -> float:
    """Images per second of the network on one cached batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(params)
    model = EfficientDetD0(num_classes, params.image_size, params.drop_path, params.batch_norm_momentum)
    module = EfficientDetModule(model, params, 0, Frames([]), fused=device.type == "cuda").to(device).train()
    optimizer = torch.optim.AdamW(module.parameters(), fused=device.type == "cuda")
    batch = Batch(*(part.to(device) for part in batch))
    autocast = torch.autocast(
        device.type, torch.bfloat16 if "bf16" in precision else torch.float16, enabled="mixed" in precision
    )
    torch.backends.cudnn.benchmark = True

    def step() -> None:
        with autocast:
            losses, _, _ = module.compute_losses(batch)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), params.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(min(5, steps)):
        step()
    started = synchronised_time()
    for _ in range(steps):
        step()
    return steps * len(batch.images) / (synchronised_time() - started)


def measure_loader(frames: Frames, params: EfficientDetParams, steps: int) -> float:
    """Images per second out of the loader once its workers run."""
    repeated = repeat(frames, (2 * steps + 5) * params.batch_size)
    batches = iter(make_loader(repeated, params, 0, training=True))
    for _ in range(5):
        next(batches)
    started = time.perf_counter()
    images = sum(len(next(batches).images) for _ in range(2 * steps))
    return images / (time.perf_counter() - started)


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
    arguments = parser.parse_args()
    params = EfficientDetParams(
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        workers=arguments.workers,
        weights="imagenet" if arguments.weights_dir else "none",
        weights_dir=arguments.weights_dir,
        map_every=0,
        warmup_epochs=0,
    )
    taxonomy = load_taxonomy()
    frames = Log(arguments.log, taxonomy).frames("train")
    loader = measure_loader(frames, params, arguments.steps)
    batch = next(iter(make_loader(repeat(frames, params.batch_size), params, 0, training=True)))
    network = measure_bare_network(batch, params, len(taxonomy.names), arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train_frames = repeat(frames, arguments.steps * params.batch_size)
        val_frames = frames[: params.batch_size]
        folders = work / "out", work / "live", work / "checkpoints"
        report = train(train_frames, val_frames, taxonomy, params, 0, *folders)
    print(
        f"device: {report.device}, {report.precision}, {params.image_size} px, batches of {params.batch_size}"
    )
    print(f"loader alone: {loader:.1f} images/s")
    print(f"bare forward, backward and step on one cached batch: {network:.1f} images/s")
    waiting = f"{report.data_wait_share:.1%} of the time waiting for data"
    print(f"training loop: {report.images_per_second:.1f} images/s, {waiting}")
    print(f"ratio: {report.images_per_second / network:.3f} of the bare network's pace")


if __name__ == "__main__":
    main()
