"""What a training run of the teacher did."""

from dataclasses import asdict, dataclass
from typing import Any

# Fields and metrics that describe one run and not its result: two runs of the same training differ in them.
VOLATILE_FIELDS = {"images_per_second", "data_wait_share", "resumed_from_epoch"}


@dataclass(frozen=True, slots=True)
class EfficientDetReport:
    """What a training run did; all but the volatile fields also stands under ``report`` in ``model.json``.

    ``metrics``: those of the last epoch; ``resumed_from_epoch``: epochs that an earlier process had finished,
    0 for an undisturbed run; ``images_per_second`` and ``data_wait_share``: of training alone, without
    validation and without the first epoch.
    """

    metrics: dict[str, float]
    epochs: int
    resumed_from_epoch: int
    images_per_second: float
    data_wait_share: float
    backbone: str
    backbone_source: str | None
    backbone_missing: tuple[str, ...]
    notices: tuple[str, ...]
    device: str
    precision: str
    processes: int

    def reproducible_fields(self) -> dict[str, Any]:
        """The fields, and in them the metrics, that are equal for two runs of the same training."""
        fields = {name: value for name, value in asdict(self).items() if name not in VOLATILE_FIELDS}
        metrics = {name: value for name, value in self.metrics.items() if name not in VOLATILE_FIELDS}
        return fields | {"metrics": metrics}

    def summary(self) -> str:
        """The run in a few lines, for a person."""
        names = ("train/loss", "val/loss", "val/ap50", "val/ap")
        scores = ", ".join(f"{name} {self.metrics[name]:.4g}" for name in names if name in self.metrics)
        resumed = f" ({self.resumed_from_epoch} of them before a resume)" if self.resumed_from_epoch else ""
        processes = f", {self.processes} processes" if self.processes > 1 else ""
        lines = [
            f"{self.epochs} epochs{resumed}: {scores}",
            f"{self.images_per_second:.1f} images/s, {self.data_wait_share:.0%} of the time waiting for data "
            f"({self.device}, {self.precision}{processes})",
            f"backbone: {self.backbone}",
        ]
        return "\n".join([*lines, *self.notices])
