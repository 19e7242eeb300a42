from pydantic import Field

from trashnet.params import Params


class ExportParams(Params):
    """Section ``export`` of ``params.yaml``: quantisation and post-processing of the student."""

    seed: int = 20
    calibration_images: int = Field(200, ge=1)
    max_detections: int = Field(20, ge=1)
    nms_iou: float = Field(0.6, gt=0, le=1)
    score_threshold: float = Field(1e-8, ge=1e-8, lt=1)
    per_class_nms: bool = False
