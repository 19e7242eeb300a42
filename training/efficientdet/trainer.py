"""The training run: identity, resume, Lightning's trainer, and what it leaves behind."""

import hashlib
import json
import logging
import os
import shutil
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from safetensors.torch import save_file

from dataset import Frames
from training.efficientdet.callbacks import EmaWeights, Journal, Pace
from training.efficientdet.data import make_loader
from training.efficientdet.model import Backbone, Teacher, begin, describe
from training.efficientdet.module import TeacherModule
from training.efficientdet.params import EfficientDetParams
from trashnet.errors import UserError
from trashnet.files import atomic_write, write_json
from trashnet.taxonomy import Taxonomy

log = logging.getLogger(__name__)

PASSING = {"images_per_second", "data_wait_share", "resumed_from"}  # of a run, not of its result


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a run did: also under ``report`` in ``model.json``, but for its pace and its interruptions.

    ``metrics``: the last epoch's; ``resumed_from``: epochs already done when this process took over, 0 for an
    undisturbed run; ``images_per_second`` and ``data_wait_share``: training alone, without validation and
    without the first epoch.
    """

    metrics: dict[str, float]
    epochs: int
    resumed_from: int
    images_per_second: float
    data_wait_share: float
    backbone: str
    backbone_source: str | None
    backbone_missing: tuple[str, ...]
    notices: tuple[str, ...]
    device: str
    precision: str
    processes: int

    def summary(self) -> str:
        """The run in a few lines, for a person."""
        scores = ", ".join(
            f"{name} {self.metrics[name]:.4g}"
            for name in ("train/loss", "val/loss", "val/ap50", "val/ap")
            if name in self.metrics
        )
        done = f"{self.epochs} epochs" + (
            f" ({self.resumed_from} of them before a resume)" if self.resumed_from else ""
        )
        pace = (
            f"{self.images_per_second:.1f} images/s, {self.data_wait_share:.0%} of the time waiting for data"
        )
        where = f"{self.device}, {self.precision}" + (
            f", {self.processes} processes" if self.processes > 1 else ""
        )
        return "\n".join(
            [f"{done}: {scores}", f"{pace} ({where})", f"backbone: {self.backbone}", *self.notices]
        )


def train(
    train: Frames,
    val: Frames,
    taxonomy: Taxonomy,
    params: EfficientDetParams,
    seed: int,
    out: Path,
    live: Path,
    checkpoints: Path,
) -> TrainReport:
    """Train the teacher and write ``out/model.safetensors`` and, last, ``out/model.json``.

    The weights kept are the moving average at the end of the schedule, not the best epoch by validation: the
    cosine ends where it was meant to, the average is what the paper evaluates, and no epoch is picked by its
    luck on a small validation split.

    Killed and called again with the same frames, labels, parameters and seed, it goes on after the last
    finished epoch from ``checkpoints/<identity>``, which is removed at the end. One process trains on one
    device; for several GPUs start the same command with ``torchrun --nproc-per-node``. Raises
    :class:`UserError` if there is nothing to train on.
    """
    if not len(train):
        raise UserError("no labelled frame is in the training split: import some with `trashnet import`")
    if not len(val):
        raise UserError("no labelled frame is in the validation split: import more, or of more groups")
    if params.precision in ("16-mixed", "bf16-mixed") and not torch.cuda.is_available():
        raise UserError(
            f"efficientdet.precision: {params.precision} needs a CUDA GPU and there is none; set `auto`"
        )
    pl.seed_everything(seed, verbose=False)
    folder = checkpoints / identity(train, val, taxonomy, params, seed)
    model = Teacher(len(taxonomy.names), params.image_size, params.drop_path, params.batch_norm_momentum)
    checkpoint = newest_checkpoint(folder)
    backbone = begin(model, params)
    precision = precision_of(params)
    module = TeacherModule(
        model, params, seed, val, fused=torch.cuda.is_available() and precision != "16-mixed"
    )
    pace = Pace()
    journal = Journal(live, pace)
    trainer = _trainer(params, precision, folder, [EmaWeights(params.ema_decay), pace, journal])
    rank, world, pin = trainer.global_rank, trainer.world_size, torch.cuda.is_available()
    trainer.fit(
        module,
        make_loader(train, params, seed, training=True, rank=rank, world=world, pin=pin),
        make_loader(val, params, seed, training=False, rank=rank, world=world, pin=pin),
        ckpt_path=checkpoint,
        weights_only=False,  # our own file: it carries the journal beside the weights
    )
    report = _report(
        trainer, journal, backbone, precision, resumed_from=_epoch_of(checkpoint) if checkpoint else 0
    )
    if trainer.is_global_zero:
        write_trained(
            model,
            taxonomy,
            params,
            seed,
            out,
            report,
            counts={"train_frames": len(train), "val_frames": len(val)},
        )
        shutil.rmtree(folder, ignore_errors=True)
    trainer.strategy.barrier()
    return report


def identity(train: Frames, val: Frames, taxonomy: Taxonomy, params: EfficientDetParams, seed: int) -> str:
    """A digest of all that decides the result: frames, labels, class names, parameters, seed. A changed run begins anew."""
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


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the last finished epoch. Lightning writes each to a temporary name first, so what is there is whole."""
    return max(folder.glob("epoch=*.ckpt"), key=_epoch_of, default=None)


def _epoch_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("epoch=")) + 1


def precision_of(params: EfficientDetParams) -> Any:
    """Lightning's word for the arithmetic: as asked, or bf16, else fp16 with AMP on a GPU and fp32 on a CPU."""
    if params.precision != "auto":
        return "32-true" if params.precision == "32" else params.precision
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _trainer(
    params: EfficientDetParams, precision: Any, folder: Path, callbacks: list[Callback]
) -> pl.Trainer:
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun else 1
    keep = ModelCheckpoint(
        folder,
        "{epoch}",
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    logging.getLogger("lightning.pytorch").setLevel(
        logging.WARNING
    )  # which devices there are not, and advertisements
    warnings.filterwarnings(
        "ignore", "Checkpoint directory .* exists and is not empty", module="lightning"
    )  # so it should be on resume
    warnings.filterwarnings(
        "ignore", ".*does not have many workers", module="lightning"
    )  # on a small machine, rightly
    watched = sys.stderr.isatty()  # in a log file the lines of the journal say enough
    return pl.Trainer(
        accelerator="auto",
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local if under_torchrun else 1,
        strategy="ddp" if under_torchrun else "auto",
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=params.epochs,
        callbacks=[*callbacks, keep, *([TQDMProgressBar(refresh_rate=10)] if watched else [])],
        enable_progress_bar=watched,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        benchmark=True,
        logger=False,
    )


def _lasting(report: TrainReport) -> dict[str, Any]:
    """What two runs of the same training agree on: the model's folder is an input of later stages, and must not differ by a second."""
    said = {name: value for name, value in asdict(report).items() if name not in PASSING}
    return said | {"metrics": {name: value for name, value in report.metrics.items() if name not in PASSING}}


def _report(
    trainer: pl.Trainer, journal: Journal, backbone: Backbone, precision: str, resumed_from: int
) -> TrainReport:
    gpu = torch.cuda.is_available()
    return TrainReport(
        metrics=journal.rows[-1],
        epochs=trainer.current_epoch,
        resumed_from=resumed_from,
        backbone=backbone.initialisation,
        backbone_source=backbone.source,
        backbone_missing=backbone.missing,
        notices=backbone.notices,
        device=torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        precision=precision,
        processes=trainer.world_size,
        **journal.pace.overall(),
    )


def write_trained(
    model: Teacher,
    taxonomy: Taxonomy,
    params: EfficientDetParams,
    seed: int,
    out: Path,
    report: TrainReport,
    counts: dict[str, int],
) -> None:
    """Write the weights and, last, ``model.json``: where that stands, both are whole and belong together."""
    (out / "model.json").unlink(missing_ok=True)
    with atomic_write(out / "model.safetensors") as temporary:
        save_file({name: value.contiguous().cpu() for name, value in model.state_dict().items()}, temporary)
    write_json(
        out / "model.json",
        {
            **describe(model, taxonomy.names, params.image_size),
            "seed": seed,
            "params": params.model_dump(mode="json"),
            "counts": counts,
            "report": _lasting(report),
        },
    )
