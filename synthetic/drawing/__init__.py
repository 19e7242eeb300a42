"""Drawn waste: a pen, archetypes of items, and the look of every class."""

from synthetic.drawing.looks import LOOKS, look_of
from synthetic.drawing.pen import Pen

__all__ = ["LOOKS", "Pen", "look_of"]
