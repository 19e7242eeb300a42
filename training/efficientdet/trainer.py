"""The training run of the teacher: its digest, resuming, Lightning's trainer, and the files it leaves."""

import hashlib
import json
import logging
import os
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from safetensors.torch import save_file

from dataset import Frames
from training.efficientdet.backbone import BackboneWeights, load_backbone
from training.efficientdet.callbacks import EmaWeights, MetricsLogger, ProgressReporter, ThroughputMonitor
from training.efficientdet.data import make_loader
from training.efficientdet.lightning_module import EfficientDetModule
from training.efficientdet.model import DESCRIPTION_FILE, WEIGHTS_FILE, EfficientDetD0, describe_model
from training.efficientdet.params import EfficientDetParams
from training.efficientdet.report import EfficientDetReport
from trashnet.errors import UserError
from trashnet.files import atomic_write, write_json
from trashnet.taxonomy import Taxonomy

CHECKPOINT_PREFIX = "epoch="  # Lightning's


def train(
    train_frames: Frames,
    val_frames: Frames,
    taxonomy: Taxonomy,
    params: EfficientDetParams,
    seed: int,
    out: Path,
    live: Path,
    checkpoints: Path,
) -> EfficientDetReport:
    """Train the teacher and write ``out/model.safetensors`` and, last, ``out/model.json``.

    The weights kept are the moving average at the end of the schedule, not the best epoch by validation: the
    cosine ends where it was meant to, the average is what the paper evaluates, and no epoch is picked by its
    luck on a small validation split.

    Called again after a crash with the same frames, labels, parameters and seed, training resumes after the
    last finished epoch from ``checkpoints/<digest of the run>``, which is removed at the end. One process
    trains on one device; for several GPUs start the same command with ``torchrun --nproc-per-node``.

    Raises:
        UserError: There is nothing to train on, or no GPU for the precision that was asked for.
    """
    _check_inputs(train_frames, val_frames, params)
    pl.seed_everything(seed, verbose=False)
    folder = checkpoints / run_digest(train_frames, val_frames, taxonomy, params, seed)
    num_classes = len(taxonomy.names)
    model = EfficientDetD0(num_classes, params.image_size, params.drop_path, params.batch_norm_momentum)
    checkpoint = latest_checkpoint(folder)
    backbone = load_backbone(model, params)
    precision = choose_precision(params)
    fused = torch.cuda.is_available() and precision != "16-mixed"
    module = EfficientDetModule(model, params, seed, val_frames, fused=fused)
    throughput = ThroughputMonitor()
    metrics = MetricsLogger(live, throughput)
    trainer = _make_trainer(params, precision, folder, [EmaWeights(params.ema_decay), throughput, metrics])
    make_split_loader = partial(
        make_loader,
        params=params,
        seed=seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        pin_memory=torch.cuda.is_available(),
    )
    trainer.fit(
        module,
        make_split_loader(train_frames, training=True),
        make_split_loader(val_frames, training=False),
        ckpt_path=checkpoint,
        weights_only=False,  # our own file: it carries the rows of the metrics logger beside the weights
    )
    resumed_from_epoch = _finished_epochs(checkpoint) if checkpoint else 0
    report = _make_report(trainer, metrics, backbone, precision, resumed_from_epoch)
    if trainer.is_global_zero:
        counts = {"train_frames": len(train_frames), "val_frames": len(val_frames)}
        _save_trained(out, model, taxonomy, params, seed, report, counts)
        shutil.rmtree(folder, ignore_errors=True)
    trainer.strategy.barrier()
    return report


def _check_inputs(train: Frames, val: Frames, params: EfficientDetParams) -> None:
    if not len(train):
        raise UserError("no labelled frame is in the training split: import some with `trashnet import`")
    if not len(val):
        raise UserError("no labelled frame is in the validation split: import more, or of more groups")
    if params.precision in ("16-mixed", "bf16-mixed") and not torch.cuda.is_available():
        raise UserError(
            f"efficientdet.precision: {params.precision} needs a CUDA GPU and there is none; set `auto`"
        )


def run_digest(train: Frames, val: Frames, taxonomy: Taxonomy, params: EfficientDetParams, seed: int) -> str:
    """A digest of all that decides the result of a run; only an equal run may resume from its checkpoint.

    It covers frames, labels, class names, parameters and seed, but not the number of workers.
    """
    digest = hashlib.sha256()
    settings = params.model_dump(mode="json", exclude={"workers"})
    digest.update(json.dumps([settings, seed, taxonomy.names], sort_keys=True).encode())
    for frames in (train, val):
        digest.update(len(frames).to_bytes(8, "little"))
        for frame in frames:
            assert frame.labels is not None
            digest.update(frame.sha256.encode())
            for values in (frame.labels.boxes, frame.labels.class_ids, frame.labels.crowd):
                digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the last finished epoch.

    Lightning writes each to a temporary name first, so each is complete.
    """
    return max(folder.glob(f"{CHECKPOINT_PREFIX}*.ckpt"), key=_finished_epochs, default=None)


def _finished_epochs(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix(CHECKPOINT_PREFIX)) + 1


def choose_precision(params: EfficientDetParams) -> Any:
    """Lightning's name of the arithmetic: as asked, else bf16 or fp16 with AMP on a GPU, fp32 on a CPU."""
    if params.precision != "auto":
        return "32-true" if params.precision == "32" else params.precision
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _make_trainer(
    params: EfficientDetParams, precision: Any, folder: Path, callbacks: list[Callback]
) -> pl.Trainer:
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun else 1
    checkpoint = ModelCheckpoint(
        folder,
        "{epoch}",
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # At the info level Lightning lists the devices that are missing, and advertisements.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # A resumed run finds a checkpoint there, and a small machine has few workers: both as they should be.
    for message in ("Checkpoint directory .* exists and is not empty", ".*does not have many workers"):
        warnings.filterwarnings("ignore", message, module="lightning")
    return pl.Trainer(
        accelerator="auto",
        devices=local_processes,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local_processes if under_torchrun else 1,
        strategy="ddp" if under_torchrun else "auto",
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=params.epochs,
        callbacks=[*callbacks, ProgressReporter(), checkpoint],
        enable_progress_bar=False,  # Lightning's own is silent without a terminal
        enable_model_summary=False,
        num_sanity_val_steps=0,
        benchmark=True,
        logger=False,
    )


def _make_report(
    trainer: pl.Trainer,
    metrics: MetricsLogger,
    backbone: BackboneWeights,
    precision: str,
    resumed_from_epoch: int,
) -> EfficientDetReport:
    gpu = torch.cuda.is_available()
    return EfficientDetReport(
        metrics=metrics.rows[-1],
        epochs=trainer.current_epoch,
        resumed_from_epoch=resumed_from_epoch,
        backbone=backbone.initialisation,
        backbone_source=backbone.source,
        backbone_missing=backbone.missing,
        notices=backbone.notices,
        device=torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        precision=precision,
        processes=trainer.world_size,
        **metrics.throughput.overall(),
    )


def _save_trained(
    out: Path,
    model: EfficientDetD0,
    taxonomy: Taxonomy,
    params: EfficientDetParams,
    seed: int,
    report: EfficientDetReport,
    counts: dict[str, int],
) -> None:
    """Write the weights and, last, ``model.json``.

    The presence of the latter means that both are complete and belong together.
    """
    (out / DESCRIPTION_FILE).unlink(missing_ok=True)
    with atomic_write(out / WEIGHTS_FILE) as temporary:
        save_file({name: value.contiguous().cpu() for name, value in model.state_dict().items()}, temporary)
    description = describe_model(model, taxonomy.names, params.image_size)
    # Nothing that differs between two runs of the same training: this folder is an input of later stages of
    # the pipeline, which would then run again for nothing.
    training = {
        "seed": seed,
        "params": params.model_dump(mode="json"),
        "counts": counts,
        "report": report.reproducible_fields(),
    }
    write_json(out / DESCRIPTION_FILE, description | training)
