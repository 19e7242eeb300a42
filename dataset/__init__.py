"""The dataset: a log of frames and labels, with import and export, splits, rebalancing and growth."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dataset.append import append_turn
from dataset.frame import SPLITS, Frame, Labels, Split
from dataset.log import Frames, Log
from dataset.turn_files import turns_of

if TYPE_CHECKING:
    from dataset.cache import clean_cache
    from dataset.gate_set import GateSet, gate_versions, read_gate_set
    from dataset.growth import GrownTurn, grow, grow_due
    from dataset.params import GrowthParams
    from dataset.summary import describe

# The libraries behind these names take a second or more to load, so they are imported on first use.
_LAZY = {
    "GateSet": "dataset.gate_set",
    "GrowthParams": "dataset.params",
    "GrownTurn": "dataset.growth",
    "clean_cache": "dataset.cache",
    "describe": "dataset.summary",
    "gate_versions": "dataset.gate_set",
    "grow": "dataset.growth",
    "grow_due": "dataset.growth",
    "read_gate_set": "dataset.gate_set",
}

__all__ = [
    "SPLITS",
    "Frame",
    "Frames",
    "GateSet",
    "GrownTurn",
    "GrowthParams",
    "Labels",
    "Log",
    "Split",
    "append_turn",
    "clean_cache",
    "describe",
    "gate_versions",
    "grow",
    "grow_due",
    "read_gate_set",
    "turns_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
