"""Draws scenes from a seed, for the sample data, the demo and many tests."""

from synthetic.sample import SampleParams, draw_sample
from synthetic.scenes import draw_scene

__all__ = ["SampleParams", "draw_sample", "draw_scene"]
