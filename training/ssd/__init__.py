"""The student: SSD MobileNet v2, small enough for a Coral EdgeTPU; its TFRecords and its training.

The package itself imports no TensorFlow: a verb does when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from training.ssd.params import SsdParams, TfrecordParams

if TYPE_CHECKING:
    from training.ssd.model import load_trained
    from training.ssd.report import SsdReport
    from training.ssd.tfrecords import write_tfrecords
    from training.ssd.trainer import train

__all__ = ["SsdParams", "SsdReport", "TfrecordParams", "load_trained", "train", "write_tfrecords"]

_MODULES = {
    "SsdReport": "training.ssd.report",
    "load_trained": "training.ssd.model",
    "train": "training.ssd.trainer",
    "write_tfrecords": "training.ssd.tfrecords",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
