"""What the student is trained with, and what training reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from trashnet.params import Params

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class SsdParams(Params):
    """The section ``ssd`` of ``params.yaml``, where each value is explained."""

    image_size: Annotated[int, Field(ge=32)] = 300
    epochs: Annotated[int, Field(ge=1)] = 60
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Positive = 0.001
    warmup_epochs: Annotated[float, Field(ge=0)] = 2
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 10.0
    matched_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.75
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    box_weight: Positive = 1.0
    weights: Literal["imagenet", "none"] = "imagenet"
    weights_dir: Path | None = None
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    batch_norm_momentum: Share = 0.97
    ema_decay: Share = 0.0
    augment: bool = True
    mixed_precision: Literal["auto", "off"] = "auto"
    max_boxes: Annotated[int, Field(ge=1)] = 100
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1024


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
        speed = f"{self.images_per_second:.1f} images/s, {self.waiting_share:.0%} of the time waiting for data"
        return (
            f"SSD MobileNet v2, {self.epochs} epochs of {self.images:,} images{resumed} in {self.seconds / 60:.1f} min: "
            f"loss {self.loss:.3f}{val}; {speed}; backbone: {self.backbone}"
        )
