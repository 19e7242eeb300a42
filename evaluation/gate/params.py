from pydantic import Field

from trashnet.params import Params


class GateParams(Params):
    """Section ``gate`` of ``params.yaml``: what a challenger must show before it replaces the champion.

    Margins, sizes and minima are shares: 0.02 is two points of 100. ``docs/gate.md`` shows how often the gate
    errs with the shipped values.
    """

    level: float = Field(0.05, gt=0, lt=0.5)
    utility_margin: float = Field(0.02, gt=0)
    ap50_margin: float = Field(0.02, gt=0)
    min_groups: int = Field(20, ge=2)
    class_boxes: int = Field(30, ge=1)
    harm_level: float = Field(0.05, gt=0, lt=0.5)
    harm_size: float = Field(0.03, ge=0)
    slice_groups: int = Field(10, ge=1)
    resamples: int = Field(2000, ge=100)
    flips: int = Field(10000, ge=100)
    min_utility: float = Field(0.0, ge=-10, le=1)
    min_ap50: float = Field(0.05, ge=0, le=1)
    max_latency_ratio: float = Field(1.25, gt=0)
    max_size_ratio: float = Field(1.25, gt=0)
