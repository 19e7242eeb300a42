"""Drawn items: a pen, drawing functions for kinds of items, and the drawing of each class."""

from synthetic.drawing.class_drawings import CLASS_DRAWINGS, drawing_of_class
from synthetic.drawing.pen import Pen

__all__ = ["CLASS_DRAWINGS", "Pen", "drawing_of_class"]
