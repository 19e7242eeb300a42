"""The training step, the validation epoch, the optimizer and its schedule, as a LightningModule."""

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dataset import Frames
from training.efficientdet.average_precision import average_precision, decode_detections
from training.efficientdet.data import Batch
from training.efficientdet.loss import Losses, detection_loss
from training.efficientdet.model import EfficientDetD0
from training.efficientdet.params import EfficientDetParams
from training.efficientdet.targets import assign_targets


class EfficientDetModule(pl.LightningModule):
    """The teacher in training.

    ``fused``: the optimizer in one kernel, which fp16's gradient scaling does not allow together with
    clipping.
    """

    def __init__(
        self, model: EfficientDetD0, params: EfficientDetParams, seed: int, val: Frames, *, fused: bool
    ) -> None:
        super().__init__()
        self.model, self.params, self.seed, self.val, self.fused = model, params, seed, val, fused
        self._detections: dict[int, np.ndarray[Any, Any]] = {}  # by index of the frame

    def compute_losses(self, batch: Batch) -> tuple[Losses, Tensor, Tensor]:
        """The losses of a batch, its class logits ``(B, A, C)`` and its box codes ``(B, A, 4)``."""
        logits, codes = self.model(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            targets = assign_targets(batch.boxes, batch.classes, self.model.anchors)
            return detection_loss(logits, codes, targets), logits, codes

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """The loss of one batch.

        Stochastic depth draws the same at a step of a resumed run as of an undisturbed one.
        """
        torch.manual_seed(hash((self.seed, self.trainer.global_step, self.global_rank)) & 0x7FFFFFFF)
        losses, _, _ = self.compute_losses(batch)
        self._log_losses("train", losses, len(batch.images))
        return losses.total

    def validation_step(self, batch: Batch, _index: int) -> None:
        """The loss of one batch; its detections too in the epochs that measure AP."""
        losses, logits, codes = self.compute_losses(batch)
        self._log_losses("val", losses, len(batch.images))
        if self.measures_ap:
            detections = decode_detections(logits, codes, self.model.anchors)
            for index, scale, rows in zip(batch.frame_index, batch.scale, detections, strict=True):
                boxes = rows.cpu().double().numpy()
                boxes[:, :4] /= float(scale)
                self._detections[int(index)] = boxes

    def on_validation_epoch_end(self) -> None:
        """AP over the detections of all processes."""
        if not self.measures_ap or self.trainer.sanity_checking:
            return
        if self.trainer.world_size > 1:
            shares: list[dict[int, np.ndarray[Any, Any]]] = [{} for _ in range(self.trainer.world_size)]
            dist.all_gather_object(shares, self._detections)
            self._detections = {index: rows for share in shares for index, rows in share.items()}
        scores = average_precision(self.val, self._detections, self.model.num_classes)
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, prog_bar=True)
        self._detections = {}

    @property
    def measures_ap(self) -> bool:
        """Whether AP is measured in this epoch: every ``map_every``-th, and the last."""
        interval, epoch = self.params.map_every, self.current_epoch + 1
        return interval > 0 and (epoch % interval == 0 or epoch == self.params.epochs)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by norm here.

        Lightning's own refuses fused optimizers under any mixed precision, bf16 too, which has no scaler.
        """
        nn.utils.clip_grad_norm_(self.parameters(), self.params.gradient_clip)

    def configure_optimizers(self) -> Any:
        """AdamW or SGD, the rate warmed up, then lowered along a cosine; norms and biases do not decay."""
        weights = [p for p in self.parameters() if p.ndim > 1]
        norms_and_biases = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": self.params.weight_decay},
            {"params": norms_and_biases, "weight_decay": 0.0},
        ]
        learning_rate = self.params.learning_rate
        optimizer: torch.optim.Optimizer
        if self.params.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=self.fused)
        else:
            optimizer = torch.optim.SGD(
                groups, lr=learning_rate, momentum=0.9, nesterov=True, fused=self.fused
            )
        total = int(self.trainer.estimated_stepping_batches)
        warmup = min(total / 2, self.params.warmup_epochs * total / self.params.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, total, warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _log_losses(self, split: str, losses: Losses, batch_size: int) -> None:
        values = {
            f"{split}/loss": losses.total.detach(),
            f"{split}/focal_loss": losses.focal.detach(),
            f"{split}/box_loss": losses.box.detach(),
        }
        distributed = self.trainer.world_size > 1
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=batch_size, sync_dist=distributed)


def learning_rate_factor(step: int, total_steps: int, warmup_steps: float) -> float:
    """The factor of the learning rate at a step: up a line over the warm-up, then down half a cosine to 0.01.

    Loshchilov & Hutter 2017, SGDR, equation 5, without restarts.

    >>> [round(learning_rate_factor(step, total_steps=24, warmup_steps=4), 3) for step in (0, 4, 14, 24)]
    [0.2, 1.0, 0.505, 0.01]
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2
