"""Train, val and test: which frames belong together, and to which split each group goes, for ever."""

from dataset.splits.assignment import assign_groups_and_splits, assign_splits
from dataset.splits.params import SplitParams

__all__ = ["SplitParams", "assign_groups_and_splits", "assign_splits"]
