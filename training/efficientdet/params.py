"""The ``efficientdet`` section of ``params.yaml``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from trashnet.params import Params

Share = Annotated[float, Field(ge=0, le=1)]


class TransformParams(Params):
    """Random changes of each training image, on top of the offline ones; all zero (and scale 1 to 1) is none."""

    scale: tuple[float, float] = (0.6, 2.0)
    flip: Share = 0.5
    colour: Share = 0.8
    min_visibility: Share = 0.4

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("scale is [smallest, largest], both above 0")
        return value


class EfficientDetParams(Params):
    """What the teacher is trained with."""

    image_size: int = 512
    epochs: Annotated[int, Field(ge=1)] = 50
    batch_size: Annotated[int, Field(ge=1)] = 32
    weights: Literal["imagenet", "none"] = "imagenet"
    weights_dir: Path | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_epochs: Annotated[float, Field(ge=0)] = 2.0
    gradient_clip: Annotated[float, Field(gt=0)] = 10.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    drop_path: Share = 0.2
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    transforms: TransformParams = TransformParams()
    map_every: Annotated[int, Field(ge=0)] = 5
    workers: Annotated[int, Field(ge=0)] | None = None

    @field_validator("image_size")
    @classmethod
    def _image_size_fits_the_pyramid(cls, value: int) -> int:
        if value < 128 or value % 128:
            raise ValueError("image_size must be a multiple of 128, the stride of the coarsest level (P7)")
        return value
