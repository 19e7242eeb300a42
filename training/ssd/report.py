"""What a training run of the student did."""

from dataclasses import asdict, dataclass
from typing import Any

# Fields that describe one run and not its result: two runs of the same training differ in them.
VOLATILE_FIELDS = {"images_per_second", "waiting_share", "seconds", "resumed_from_epoch"}


@dataclass(frozen=True, slots=True)
class SsdReport:
    """What a training run did; all but the volatile fields also stands in ``model.json``."""

    epochs: int
    steps: int
    resumed_from_epoch: int  # epochs that an earlier process had finished, 0 for an undisturbed run
    images: int
    loss: float
    val_loss: float | None
    images_per_second: float
    waiting_share: float  # of the time of the training steps, spent waiting for the input pipeline
    seconds: float
    backbone: str

    def reproducible_fields(self) -> dict[str, Any]:
        """The fields that are equal for two runs of the same training."""
        return {name: value for name, value in asdict(self).items() if name not in VOLATILE_FIELDS}

    def summary(self) -> str:
        """The run in one line."""
        resumed = f", resumed after epoch {self.resumed_from_epoch}" if self.resumed_from_epoch else ""
        val = "" if self.val_loss is None else f", validation {self.val_loss:.3f}"
        speed = (
            f"{self.images_per_second:.1f} images/s, {self.waiting_share:.0%} of the time waiting for data"
        )
        return (
            f"SSD MobileNet v2, {self.epochs} epochs of {self.images:,} images{resumed} in "
            f"{self.seconds / 60:.1f} min: loss {self.loss:.3f}{val}; {speed}; backbone: {self.backbone}"
        )
