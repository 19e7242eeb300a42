from pydantic import Field

from trashnet.params import Params


class EvaluationParams(Params):
    """Section ``evaluation`` of ``params.yaml``: how models are judged.

    None of it touches COCO's own numbers.
    """

    sort_score: float = Field(0.3, ge=0, le=1)
    warm_up: int = Field(3, ge=0)
    worst_confusions: int = Field(20, ge=1)
    examples: int = Field(12, ge=0)
    quantisation_gate: float = Field(1.0, ge=0)
