"""The ``evaluation`` section of ``params.yaml``."""

from typing import Annotated

from pydantic import Field

from trashnet.params import Params


class EvaluationParams(Params):
    """How models are judged. None of these touches COCO's own numbers, which leave nothing to choose."""

    sort_score: Annotated[float, Field(ge=0, le=1)]
    """A detection below it is not acted upon: the threshold of sorting accuracy, contamination, recall and the causes of errors."""
    warm_up: Annotated[int, Field(ge=0)]
    """Untimed calls before latency is measured."""
    worst_confusions: Annotated[int, Field(ge=1)]
    """How many pairs of classes the scorecard names as confused."""
    examples: Annotated[int, Field(ge=0)]
    """Frames on a model's contact sheet in the report."""
    quantisation_gate: Annotated[float, Field(ge=0)]
    """AP points (of 100) that the int8 model may lose to its float twin."""
