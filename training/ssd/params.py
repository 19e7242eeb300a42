from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from trashnet.params import Params


class SsdParams(Params):
    """Section ``ssd`` of ``params.yaml``: what the student is trained with."""

    image_size: int = Field(300, ge=32)
    epochs: int = Field(60, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.001, gt=0)
    warmup_epochs: float = Field(2, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(10.0, gt=0)
    matched_iou: float = Field(0.5, gt=0, lt=1)
    focal_alpha: float = Field(0.75, gt=0, lt=1)
    focal_gamma: float = Field(2.0, ge=0)
    box_weight: float = Field(1.0, gt=0)
    weights: Literal["imagenet", "none"] = "imagenet"
    weights_dir: Path | None = None
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    batch_norm_momentum: float = Field(0.97, ge=0, lt=1)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    augment: bool = True
    mixed_precision: Literal["auto", "off"] = "auto"
    max_boxes: int = Field(100, ge=1)
    shuffle_buffer: int = Field(1024, ge=1)


class TfrecordParams(Params):
    """Section ``tfrecords`` of ``params.yaml``: into how many shards each split is written."""

    train_shards: int = Field(8, ge=1, le=99_999)
    val_shards: int = Field(2, ge=1, le=99_999)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training run came to; all but its pace stands in ``model.json`` too."""

    epochs: int
    steps: int
    resumed_at: int  # epochs that were already done when this process began
    images: int
    loss: float
    val_loss: float | None
    images_per_second: float
    waiting_share: float  # of the time of training steps, spent waiting for the input pipeline
    seconds: float
    backbone: str

    def summary(self) -> str:
        """The run in one line."""
        resumed = f", resumed after epoch {self.resumed_at}" if self.resumed_at else ""
        val = "" if self.val_loss is None else f", validation {self.val_loss:.3f}"
        speed = (
            f"{self.images_per_second:.1f} images/s, {self.waiting_share:.0%} of the time waiting for data"
        )
        return (
            f"SSD MobileNet v2, {self.epochs} epochs of {self.images:,} images{resumed} in {self.seconds / 60:.1f} min: "
            f"loss {self.loss:.3f}{val}; {speed}; backbone: {self.backbone}"
        )
