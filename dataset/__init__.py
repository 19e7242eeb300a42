"""The memory: the log of frames and labels, what comes in and goes out of it, and what training makes of it."""

from dataset.append import append_turn
from dataset.log import SPLITS, Frame, Frames, Labels, Log, Split, turns_of

__all__ = ["SPLITS", "Frame", "Frames", "Labels", "Log", "Split", "append_turn", "turns_of"]
