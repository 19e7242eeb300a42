from pydantic import Field

from trashnet.params import Params


class EvaluationParams(Params):
    """Section ``evaluation`` of ``params.yaml``: how models are judged.

    None of it touches COCO's own numbers.
    """

    sort_score: float | None = Field(None, ge=0, le=1)
    fallback_score: float = Field(0.3, ge=0, le=1)
    wrong_cost: float = Field(1.0, ge=0)
    false_cost: float = Field(0.5, ge=0)
    resamples: int = Field(2000, ge=100)
    seed: int = 20
    warm_up: int = Field(3, ge=0)
    worst_confusions: int = Field(20, ge=1)
    examples: int = Field(12, ge=0)
    quantisation_gate: float = Field(1.0, ge=0)
