from pydantic import Field

from trashnet.params import Params


class SelectionParams(Params):
    """Section ``selection`` of ``params.yaml``: what makes a frame worth a person's time, and how many there
    is time for.
    """

    budget: int = Field(200, ge=1)
    bin_share: float = Field(0.1, gt=0, le=1)
    exploration_share: float = Field(0.1, ge=0, le=1)
    exploration_share_on_hold: float = Field(0.5, ge=0, le=1)
    held_out_share: float = Field(0.0, ge=0, lt=1)
    held_out_bins: tuple[str, ...] = ()
    min_score: float = Field(0.1, ge=0, le=1)
    confidence_threshold: float = Field(0.3, ge=0, le=1)
    match_iou: float = Field(0.5, gt=0, le=1)
    uncertain_boxes: int = Field(3, ge=1)
    rare_share: float = Field(0.01, gt=0, le=1)
    uncertainty_weight: float = Field(1.0, gt=0)
    disagreement_weight: float = Field(1.0, ge=0)
    rarity_weight: float = Field(1.0, ge=0)
    candidates_per_task: int = Field(10, ge=1)
    diversity_bonus: float = Field(0.1, gt=0)
    similarity_scale: float = Field(40, gt=0)
    same_burst_discount: float = Field(0.1, ge=0, le=1)
    ranked_per_run: int = Field(10_000, ge=1)
    batch_size: int = Field(16, ge=1)
    batch_pixels: int = Field(50_000_000, ge=1)
    threads: int = Field(8, ge=1)

    def on_hold(self) -> "SelectionParams":
        """The same, with the share of exploration that there is while the gate lacks evidence."""
        share = max(self.exploration_share, self.exploration_share_on_hold)
        return self.model_copy(update={"exploration_share": share})
