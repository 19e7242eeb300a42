from pydantic import Field

from trashnet.params import Params


class LabelingParams(Params):
    """Section ``labeling`` of ``params.yaml``: how tasks are made and answers checked."""

    hotkeys: int = Field(12, ge=0, le=23)
    prelabel_score: float = Field(0.3, ge=0, le=1)
    blind_share: float = Field(0.1, ge=0, le=1)
    prelabel_boxes: int = Field(30, ge=0)
    import_batch_size: int = Field(500, ge=1, le=10_000)
    presign_minutes: int = Field(60, ge=1)
    page_size: int = Field(100, ge=2, le=1000)
    cursor_overlap_seconds: float = Field(120, ge=0)
    edge_tolerance: float = Field(1, ge=0)
    min_box_side: float = Field(2, gt=0)
    double_share: float = Field(0.1, ge=0, le=1)
    double_days: float = Field(7, ge=0)
    match_iou: float = Field(0.5, gt=0, le=1)
    min_agreement: float = Field(0.6, ge=0, le=1)
