from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from trashnet.params import Params


class TransformParams(Params):
    """Random changes of each training image; all zero (and scale 1 to 1) means none."""

    scale: tuple[float, float] = (0.6, 2.0)
    flip: float = Field(0.5, ge=0, le=1)
    colour: float = Field(0.8, ge=0, le=1)
    min_visibility: float = Field(0.4, ge=0, le=1)

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("scale is [smallest, largest], both above 0")
        return value


class EfficientDetParams(Params):
    """Section ``efficientdet`` of ``params.yaml``: how the teacher is trained."""

    image_size: int = 512
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)
    weights: Literal["imagenet", "none"] = "imagenet"
    weights_dir: Path | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_epochs: float = Field(2.0, ge=0)
    gradient_clip: float = Field(10.0, gt=0)
    ema_decay: float = Field(0.9998, ge=0, lt=1)
    batch_norm_momentum: float = Field(0.1, gt=0, le=1)
    drop_path: float = Field(0.2, ge=0, le=1)
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    transforms: TransformParams = TransformParams()
    map_every: int = Field(5, ge=0)
    workers: int | None = Field(None, ge=0)

    @field_validator("image_size")
    @classmethod
    def _image_size_fits_the_pyramid(cls, value: int) -> int:
        if value < 128 or value % 128:
            raise ValueError("image_size must be a multiple of 128, the stride of the coarsest level (P7)")
        return value
