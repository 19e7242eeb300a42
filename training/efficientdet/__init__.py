"""The teacher: effdet's ``tf_efficientdet_d0``, trained on the dataset log with PyTorch Lightning.

The package itself imports no torch: a verb does when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from training.efficientdet.params import EfficientDetParams

if TYPE_CHECKING:
    from training.efficientdet.model import load_trained
    from training.efficientdet.report import EfficientDetReport
    from training.efficientdet.trainer import train

__all__ = ["EfficientDetParams", "EfficientDetReport", "load_trained", "train"]

_MODULES = {
    "EfficientDetReport": "training.efficientdet.report",
    "load_trained": "training.efficientdet.model",
    "train": "training.efficientdet.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
