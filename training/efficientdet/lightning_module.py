"""One training step, one validation epoch, and the schedule, as Lightning wants them said."""

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dataset import Frames
from training.efficientdet.average_precision import average_precision, detections
from training.efficientdet.data import Batch
from training.efficientdet.loss import Loss, detection_loss
from training.efficientdet.model import Teacher
from training.efficientdet.params import EfficientDetParams
from training.efficientdet.targets import assign


class TeacherModule(pl.LightningModule):
    """The teacher in training. ``fused``: AdamW in one kernel, which fp16's gradient scaling does not allow together with clipping."""

    def __init__(
        self, model: Teacher, params: EfficientDetParams, seed: int, val: Frames, *, fused: bool
    ) -> None:
        super().__init__()
        self.model, self.params, self.seed, self.val, self.fused = model, params, seed, val, fused
        self._found: dict[int, np.ndarray[Any, Any]] = {}

    def losses(self, batch: Batch) -> tuple[Loss, Tensor, Tensor]:
        """The losses, the class logits and the box codes of a batch."""
        logits, codes = self.model(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            targets = assign(batch.boxes, batch.classes, self.model.anchors)
            return detection_loss(logits, codes, targets), logits, codes

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Loss of one batch. Stochastic depth draws the same at a step of a resumed run as of an undisturbed one."""
        torch.manual_seed(hash((self.seed, self.trainer.global_step, self.global_rank)) & 0x7FFFFFFF)
        loss, _, _ = self.losses(batch)
        self._log("train", loss, len(batch.images))
        return loss.total

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Loss of one batch; its detections too in the epochs that are scored."""
        loss, logits, codes = self.losses(batch)
        self._log("val", loss, len(batch.images))
        if self.scored:
            for frame, scale, rows in zip(
                batch.frame, batch.scale, detections(logits, codes, self.model.anchors), strict=True
            ):
                boxes = rows.cpu().double().numpy()
                boxes[:, :4] /= float(scale)
                self._found[int(frame)] = boxes

    def on_validation_epoch_end(self) -> None:
        """AP over all processes' detections."""
        if not self.scored or self.trainer.sanity_checking:
            return
        if self.trainer.world_size > 1:
            shares: list[dict[int, np.ndarray[Any, Any]]] = [{} for _ in range(self.trainer.world_size)]
            dist.all_gather_object(shares, self._found)
            self._found = {index: rows for share in shares for index, rows in share.items()}
        scores = average_precision(self.val, self._found, self.model.classes)
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, prog_bar=True)
        self._found = {}

    @property
    def scored(self) -> bool:
        """Whether this epoch is one of those with AP: every ``map_every``-th, and the last."""
        every, epoch = self.params.map_every, self.current_epoch + 1
        return every > 0 and (epoch % every == 0 or epoch == self.params.epochs)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by norm here: Lightning's own refuses fused optimizers under any mixed precision, bf16 too, which has no scaler."""
        nn.utils.clip_grad_norm_(self.parameters(), self.params.gradient_clip)

    def configure_optimizers(self) -> Any:
        """AdamW or SGD, warmed up linearly and then down a cosine to 1 %; norms and biases do not decay."""
        weights = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": self.params.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        if self.params.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=self.params.learning_rate, fused=self.fused)
        else:
            optimizer = torch.optim.SGD(
                groups, lr=self.params.learning_rate, momentum=0.9, nesterov=True, fused=self.fused
            )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = min(steps / 2, self.params.warmup_epochs * steps / self.params.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_at(step, steps, warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _log(self, split: str, loss: Loss, images: int) -> None:
        values = {
            f"{split}/loss": loss.total,
            f"{split}/focal_loss": loss.focal,
            f"{split}/box_loss": loss.box,
        }
        values = {name: value.detach() for name, value in values.items()}
        self.log_dict(
            values, on_step=False, on_epoch=True, batch_size=images, sync_dist=self.trainer.world_size > 1
        )


def learning_rate_at(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step: up a line over ``warmup`` steps, then down half a cosine to 0.01.

    Loshchilov & Hutter 2017, SGDR, eq. 5, without restarts.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    along = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * along)) / 2
