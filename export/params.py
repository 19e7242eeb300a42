"""How the student is exported."""

from typing import Annotated

from pydantic import Field

from trashnet.params import Params


class ExportParams(Params):
    """The section ``export`` of ``params.yaml``, where each value is explained."""

    calibration_images: Annotated[int, Field(ge=1)] = 200
    seed: int = 20
    max_detections: Annotated[int, Field(ge=1)] = 20
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.6
    score_threshold: Annotated[float, Field(ge=1e-8, lt=1)] = 1e-8
    per_class_nms: bool = False
