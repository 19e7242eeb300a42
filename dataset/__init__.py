"""The memory: the log of frames and labels; how it grows, what comes in and goes out, how it is split and rebalanced."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dataset.append import append_turn
from dataset.log import SPLITS, Frame, Frames, Labels, Log, Split, turns_of

if TYPE_CHECKING:
    from dataset.growth import GrownTurn, grow, grow_due
    from dataset.params import GrowthParams
    from dataset.summary import describe

# Verbs whose libraries take a second or more to load: imported when somebody asks for them.
_LAZY = {
    "GrowthParams": "dataset.params",
    "GrownTurn": "dataset.growth",
    "describe": "dataset.summary",
    "grow": "dataset.growth",
    "grow_due": "dataset.growth",
}

__all__ = [
    "SPLITS",
    "Frame",
    "Frames",
    "GrownTurn",
    "GrowthParams",
    "Labels",
    "Log",
    "Split",
    "append_turn",
    "describe",
    "grow",
    "grow_due",
    "turns_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
