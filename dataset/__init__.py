"""The memory: the log of frames and labels, what comes in and goes out of it, and what training makes of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dataset.append import append_turn
from dataset.log import SPLITS, Frame, Frames, Labels, Log, Split, turns_of

if TYPE_CHECKING:
    from dataset.sample import SampleParams, draw_sample
    from dataset.scenes import draw_scene

# Verbs whose libraries take a second or more to load: imported when somebody asks for them.
_LAZY = {
    "SampleParams": "dataset.sample",
    "draw_sample": "dataset.sample",
    "draw_scene": "dataset.scenes",
}

__all__ = [
    "SPLITS",
    "Frame",
    "Frames",
    "Labels",
    "Log",
    "SampleParams",
    "Split",
    "append_turn",
    "draw_sample",
    "draw_scene",
    "turns_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
