from pydantic import Field

from trashnet.params import Params


class GrowthParams(Params):
    """Section ``growth`` of ``params.yaml``: how many labelled frames make a turn of the dataset log."""

    min_frames: int = Field(100, ge=1)
    max_frames: int = Field(5000, ge=1)
    recheck_frames: int = Field(500, ge=1)
    gate_frames: int = Field(25, ge=1)
    gate_imports: bool = True
