"""The parameters of the sample data set."""

from pydantic import Field

from trashnet.params import Params


class SampleParams(Params):
    """Section ``sample`` of ``params.yaml``: how many scenes are drawn, and which items they show."""

    seed: int = 20
    image_size: int = Field(320, ge=64, le=2048)
    largest_class: int = Field(1300, ge=1)
    smallest_class: int = Field(7, ge=1)
    scale: float = Field(0.25, gt=0)
    items: tuple[int, int] = (3, 9)
    views: tuple[float, ...] = (0.6, 0.25, 0.15)
    bins: int = Field(12, ge=1)
    empty: float = Field(0.02, ge=0, lt=1)
    jpeg_quality: int = Field(80, ge=1, le=100)
