from pydantic import Field

from trashnet.params import Params


class AugmentParams(Params):
    """How much an augmented copy may differ from its original."""

    flip: float = Field(0.5, ge=0, le=1)
    translate: float = Field(0.2, ge=0, lt=1)
    rotate: float = Field(2, ge=0, le=45)
    scale: tuple[float, float] = (0.8, 1.2)
    min_visible: float = Field(0.4, gt=0, le=1)
    jpeg_quality: int = Field(90, ge=1, le=100)


class RebalanceParams(AugmentParams):
    """Section ``rebalance`` of ``params.yaml``: images wanted per class, and copies allowed per original."""

    target_images: int = Field(200, ge=1)
    max_copies: int = Field(40, ge=0)
    solver_nodes: int = Field(20_000, ge=1)
