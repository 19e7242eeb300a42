from pydantic import Field

from trashnet.params import Params


class LabelingParams(Params):
    """Section ``labeling`` of ``params.yaml``."""

    hotkeys: int = Field(ge=0, le=23)
    prelabel_score: float = Field(ge=0, le=1)
    prelabel_boxes: int = Field(ge=0)
    import_batch: int = Field(ge=1, le=10_000)
    presign_minutes: int = Field(ge=1)
    page_size: int = Field(ge=2, le=1000)
    overlap_seconds: float = Field(ge=0)
    edge_tolerance: float = Field(ge=0)
    smallest_side: float = Field(gt=0)
    double_share: float = Field(ge=0, le=1)
    double_days: float = Field(ge=0)
    match_iou: float = Field(gt=0, le=1)
    least_agreement: float = Field(ge=0, le=1)
