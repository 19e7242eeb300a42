"""The teacher: effdet's ``tf_efficientdet_d0`` trained on the dataset log with PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

from training.efficientdet.params import EfficientDetParams

if TYPE_CHECKING:
    from training.efficientdet.fit import TrainReport, train
    from training.efficientdet.model import load_trained

__all__ = ["EfficientDetParams", "TrainReport", "load_trained", "train"]


def __getattr__(name: str) -> Any:
    """Import torch only when somebody trains."""
    if name in ("TrainReport", "train"):
        from training.efficientdet import fit

        return getattr(fit, name)
    if name == "load_trained":
        from training.efficientdet.model import load_trained

        return load_trained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
