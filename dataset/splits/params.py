from pydantic import Field

from trashnet.params import Params


class SplitParams(Params):
    """Section ``split`` of ``params.yaml``: how frames are grouped, the shares of val and test, and the
    steps in which the gate set grows.
    """

    group_hash_distance: int = Field(6, ge=0, le=16)
    val: float = Field(0.15, ge=0, lt=0.5)
    test: float = Field(0.15, ge=0, lt=0.5)
