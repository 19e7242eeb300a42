"""What watches training: averaged weights, the time spent waiting for data, and the journal that DVCLive keeps."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

WARM_EPOCHS = (
    1  # left out of the throughput where there are more: worker processes start, cuDNN tries its algorithms
)


class EmaWeights(WeightAveraging):
    """Exponential moving average of weights and BatchNorm statistics, the weights that are validated and kept.

    The decay warms up as ``(1 + t) / (10 + t)`` (as TensorFlow's ``ExponentialMovingAverage(num_updates)``,
    which EfficientDet used), so that a run of a few hundred steps does not end near its random start.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=ema(decay))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The average lives where training happens: the module itself is moved there only later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if (
            self._average_model is not None
        ):  # the counter is asked at every step: on the GPU each time would wait for it
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()


def ema(decay: float) -> Any:
    """How :class:`EmaWeights` moves lists of averaged tensors towards the current ones after so many updates, in place, on the GPU."""

    def average(averaged: Any, current: Any, updates: Any) -> None:
        if not torch.is_floating_point(
            averaged[0]
        ):  # called once per data type; BatchNorm's step counters are integers
            torch._foreach_copy_(averaged, current)
            return
        share = 1 - torch.clamp((1 + updates) / (10 + updates), max=decay)
        torch._foreach_add_(
            averaged, torch._foreach_mul(torch._foreach_sub(current, averaged), share.to(averaged[0].dtype))
        )

    return average


class Pace(Callback):
    """Images per second and the share of training time between a batch's end and the next one's start: waiting for data.

    Validation is not counted. The measure is the host's: on a GPU it includes the copy of the batch, and is
    an upper bound.
    """

    def __init__(self) -> None:
        self.epochs: list[tuple[int, float, float]] = []  # images, seconds, seconds waited
        self._images, self._waited, self._validated = 0, 0.0, 0.0
        self._begun = self._batch_ended = self._validation_begun = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._images, self._waited, self._validated = 0, 0.0, 0.0
        self._begun = self._batch_ended = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """The batch is here."""
        self._waited += time.perf_counter() - self._batch_ended

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: Any, _outputs: Any, batch: Any, _index: int
    ) -> None:
        """The step is issued; now for the next batch."""
        self._images += len(batch.images) * trainer.world_size
        self._batch_ended = time.perf_counter()

    def on_validation_start(self, *_: Any) -> None:
        """Validation's time is its own; what the GPU still has to do of the last step is training's."""
        _synchronise()
        self._validation_begun = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Back to training."""
        self._validated += time.perf_counter() - self._validation_begun

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop the clock."""
        _synchronise()
        self.epochs.append((self._images, time.perf_counter() - self._begun - self._validated, self._waited))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epochs = [tuple(epoch) for epoch in state_dict["epochs"]]

    def rates(self, first: int, last: int | None = None) -> dict[str, float]:
        """Images per second and data wait share over some of the epochs."""
        images, seconds, waited = (sum(column) for column in zip(*self.epochs[first:last], strict=True))
        return {"images_per_second": images / seconds, "data_wait_share": waited / seconds}

    def overall(self) -> dict[str, float]:
        """Over all epochs but the first, or that one if there is no other."""
        return self.rates(min(WARM_EPOCHS, len(self.epochs) - 1))


class Journal(Callback):
    """One line per epoch, on the screen and in DVCLive.

    Its rows travel in the checkpoint: a resumed run writes the whole history again, whatever became of the
    folder, and no epoch twice.
    """

    def __init__(self, folder: Path, pace: Pace) -> None:
        self.folder, self.pace = folder, pace
        self.rows: list[dict[str, float]] = []
        self._live: Any = None

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Open DVCLive, with what there already is."""
        if not trainer.is_global_zero:
            return
        from dvclive import Live

        self._live = Live(dir=str(self.folder), dvcyaml=False, save_dvc_exp=False, report=None)
        for epoch, row in enumerate(self.rows):
            self._write(epoch, row)
        if self.rows:
            print(f"going on after epoch {len(self.rows)}, where an earlier run was cut off", flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the epoch down; Lightning remembers the last AP for ever, so epochs that measured none leave it out."""
        measured = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if isinstance(value, Tensor) and (module.scored or not name.startswith("val/ap"))
        }
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {**measured, **self.pace.rates(-1), "learning_rate": float(rate)}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write(trainer.current_epoch, row)
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: " + line(row), flush=True)

    def on_train_end(self, *_: Any) -> None:
        """Close DVCLive."""
        if self._live is not None:
            self._live.end()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rows = list(state_dict["rows"])

    def _write(self, epoch: int, row: dict[str, float]) -> None:
        self._live.step = epoch
        for name, value in row.items():
            self._live.log_metric(name, value)
        self._live.sync()


def line(row: dict[str, float]) -> str:
    """An epoch in one line."""
    shown = {
        "train/loss": "loss {:.3f}",
        "val/loss": "val {:.3f}",
        "val/ap50": "AP50 {:.3f}",
        "images_per_second": "{:.1f} images/s",
    }
    parts = [form.format(row[name]) for name, form in shown.items() if name in row]
    return ", ".join([*parts, f"{row['data_wait_share']:.0%} waiting for data"])


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
