"""The memory: the log of frames and labels, what comes in and goes out of it, and what training makes of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dataset.append import append_turn
from dataset.log import SPLITS, Frame, Frames, Labels, Log, Split, turns_of

if TYPE_CHECKING:
    from dataset.describing import describe
    from dataset.exporting import export_dataset
    from dataset.growing import FlywheelParams, Grown, grow
    from dataset.importing import ImportParams, ImportReport, import_dataset, load_mapping
    from dataset.rebalancing import RebalanceParams, RebalanceReport, rebalance
    from dataset.sample import SampleParams, draw_sample
    from dataset.scenes import draw_scene
    from dataset.splitting import assign_splits, place_frames
    from dataset.tfrecords import TfrecordParams, write_tfrecords
    from trashnet.images import perceptual_hash

# Verbs whose libraries take a second or more to load: imported when somebody asks for them.
_LAZY = {
    "FlywheelParams": "dataset.growing",
    "Grown": "dataset.growing",
    "grow": "dataset.growing",
    "ImportParams": "dataset.importing",
    "ImportReport": "dataset.importing",
    "assign_splits": "dataset.splitting",
    "describe": "dataset.describing",
    "export_dataset": "dataset.exporting",
    "import_dataset": "dataset.importing",
    "load_mapping": "dataset.importing",
    "perceptual_hash": "trashnet.images",
    "place_frames": "dataset.splitting",
    "RebalanceParams": "dataset.rebalancing",
    "RebalanceReport": "dataset.rebalancing",
    "rebalance": "dataset.rebalancing",
    "SampleParams": "dataset.sample",
    "draw_sample": "dataset.sample",
    "draw_scene": "dataset.scenes",
    "TfrecordParams": "dataset.tfrecords",
    "write_tfrecords": "dataset.tfrecords",
}

__all__ = [
    "SPLITS",
    "FlywheelParams",
    "Frame",
    "Frames",
    "Grown",
    "ImportParams",
    "ImportReport",
    "Labels",
    "Log",
    "RebalanceParams",
    "RebalanceReport",
    "SampleParams",
    "Split",
    "TfrecordParams",
    "append_turn",
    "assign_splits",
    "describe",
    "draw_sample",
    "draw_scene",
    "export_dataset",
    "grow",
    "import_dataset",
    "load_mapping",
    "perceptual_hash",
    "place_frames",
    "rebalance",
    "turns_of",
    "write_tfrecords",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
