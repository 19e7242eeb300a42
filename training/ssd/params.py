from pathlib import Path
from typing import Literal

from pydantic import Field

from trashnet.params import Params


class SsdParams(Params):
    """Section ``ssd`` of ``params.yaml``: how the student is trained."""

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
    """Section ``tfrecords`` of ``params.yaml``: the number of shards of each split."""

    train_shards: int = Field(8, ge=1, le=99_999)
    val_shards: int = Field(2, ge=1, le=99_999)
