from pydantic import Field

from trashnet.params import Params


class RetrainingParams(Params):
    """Section ``retraining`` of ``params.yaml``: how many new frames make a retraining worth its hours."""

    min_new_frames: int = Field(500, ge=1)
