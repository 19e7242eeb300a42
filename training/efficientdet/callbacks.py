"""Lightning callbacks: averaged weights, throughput, progress, and the metrics that DVCLive records."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor
from tqdm import tqdm

from trashnet.progress import progress_bar

# Left out of the overall throughput where there are more: worker processes start, cuDNN tries its algorithms.
UNTIMED_EPOCHS = 1


class EmaWeights(WeightAveraging):
    """Exponential moving average of weights and BatchNorm statistics: what is validated and kept.

    The decay warms up as ``(1 + t) / (10 + t)`` (as TensorFlow's ``ExponentialMovingAverage(num_updates)``,
    which EfficientDet used), so that a run of a few hundred steps does not end near its random start.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=ema_update(decay))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the average on the training device; Lightning moves the module itself there only later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            # The counter is read at every step; on the GPU each read would wait for it.
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()


def ema_update(decay: float) -> Any:
    """The function that moves averaged tensors towards the current ones, in place, on their device."""

    def update(averaged: Any, current: Any, num_updates: Any) -> None:
        # Called once per data type; BatchNorm's step counters are integers and are copied.
        if not torch.is_floating_point(averaged[0]):
            torch._foreach_copy_(averaged, current)
            return
        share = 1 - torch.clamp((1 + num_updates) / (10 + num_updates), max=decay)
        difference = torch._foreach_sub(current, averaged)
        torch._foreach_add_(averaged, torch._foreach_mul(difference, share.to(averaged[0].dtype)))

    return update


class ThroughputMonitor(Callback):
    """Images per second, and the share of training time spent waiting for data.

    A wait lasts from the end of a batch to the start of the next. Validation is not counted. The host
    measures: on a GPU the wait includes the copy of the batch, and is an upper bound.
    """

    def __init__(self) -> None:
        self.epochs: list[tuple[int, float, float]] = []  # images, seconds, seconds waited
        self._images, self._waited, self._validation_seconds = 0, 0.0, 0.0
        self._epoch_started = self._batch_ended = self._validation_started = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._images, self._waited, self._validation_seconds = 0, 0.0, 0.0
        self._epoch_started = self._batch_ended = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """The batch has arrived."""
        self._waited += time.perf_counter() - self._batch_ended

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: Any, _outputs: Any, batch: Any, _index: int
    ) -> None:
        """The step is issued; the wait for the next batch begins."""
        self._images += len(batch.images) * trainer.world_size
        self._batch_ended = time.perf_counter()

    def on_validation_start(self, *_: Any) -> None:
        """Stop counting; what the GPU still has to do for the last step belongs to training."""
        _synchronise()
        self._validation_started = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Count again."""
        self._validation_seconds += time.perf_counter() - self._validation_started

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop the clock."""
        _synchronise()
        seconds = time.perf_counter() - self._epoch_started - self._validation_seconds
        self.epochs.append((self._images, seconds, self._waited))

    def state_dict(self) -> dict[str, Any]:
        """The state from which a resumed run continues."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.epochs = [tuple(epoch) for epoch in state_dict["epochs"]]

    def rates(self, first: int, last: int | None = None) -> dict[str, float]:
        """Images per second and data wait share over the epochs ``[first:last]``."""
        images, seconds, waited = (sum(column) for column in zip(*self.epochs[first:last], strict=True))
        return {"images_per_second": images / seconds, "data_wait_share": waited / seconds}

    def overall(self) -> dict[str, float]:
        """The rates over all epochs but the first, or over that one if there is no other."""
        return self.rates(min(UNTIMED_EPOCHS, len(self.epochs) - 1))


class ProgressReporter(Callback):
    """Says how far the epoch is, in a terminal and in a log; of several processes only the first does."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Begin with the training batches."""
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._begin(trainer, int(trainer.num_training_batches), epoch)

    def on_train_batch_end(self, *_: Any) -> None:
        """Count a training batch."""
        self._count()

    def on_validation_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Begin with the validation batches, which follow the training batches of an epoch."""
        self._begin(trainer, int(sum(trainer.num_val_batches)), "validation")

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count a validation batch."""
        self._count()

    def on_validation_end(self, *_: Any) -> None:
        """End the bar."""
        self._end()

    def on_train_epoch_end(self, *_: Any) -> None:
        """End the bar of an epoch without validation."""
        self._end()

    def on_exception(self, *_: Any) -> None:
        """End the bar, so that the error stands on a line of its own."""
        self._end()

    def _begin(self, trainer: pl.Trainer, total: int, description: str) -> None:
        self._end()
        if trainer.is_global_zero:
            self._bar = progress_bar(total, description, "batch")

    def _count(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class MetricsLogger(Callback):
    """Logs one line per epoch to the screen and to DVCLive.

    Its rows travel in the checkpoint: a resumed run writes the whole history again, even if the folder was
    emptied, and no epoch twice.
    """

    def __init__(self, folder: Path, throughput: ThroughputMonitor) -> None:
        self.folder, self.throughput = folder, throughput
        self.rows: list[dict[str, float]] = []
        self._live: Any = None

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Open DVCLive and log the epochs of an interrupted run again."""
        if not trainer.is_global_zero:
            return
        from dvclive import Live

        self._live = Live(dir=str(self.folder), dvcyaml=False, save_dvc_exp=False, report=None)
        for epoch, row in enumerate(self.rows):
            self._log(epoch, row)
        if self.rows:
            print(f"resuming after epoch {len(self.rows)}, where an earlier run was interrupted", flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the epoch.

        Lightning keeps the last AP for ever, so epochs that did not measure it leave it out.
        """
        measured = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if isinstance(value, Tensor) and (module.measures_ap or not name.startswith("val/ap"))
        }
        learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {**measured, **self.throughput.rates(-1), "learning_rate": learning_rate}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._log(trainer.current_epoch, row)
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {format_epoch(row)}", flush=True)

    def on_train_end(self, *_: Any) -> None:
        """Close DVCLive."""
        if self._live is not None:
            self._live.end()

    def state_dict(self) -> dict[str, Any]:
        """The state from which a resumed run continues."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.rows = list(state_dict["rows"])

    def _log(self, epoch: int, row: dict[str, float]) -> None:
        self._live.step = epoch
        for name, value in row.items():
            self._live.log_metric(name, value)
        self._live.sync()


def format_epoch(row: dict[str, float]) -> str:
    """The metrics of an epoch in one line."""
    formats = {
        "train/loss": "loss {:.3f}",
        "val/loss": "val {:.3f}",
        "val/ap50": "AP50 {:.3f}",
        "images_per_second": "{:.1f} images/s",
    }
    parts = [template.format(row[name]) for name, template in formats.items() if name in row]
    return ", ".join([*parts, f"{row['data_wait_share']:.0%} waiting for data"])


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
