"""Rebalancing of the train split: as few augmented copies as lift every rare class to its target."""

from dataset.rebalance.copies import rebalance
from dataset.rebalance.params import RebalanceParams
from dataset.rebalance.report import RebalanceReport

__all__ = ["RebalanceParams", "RebalanceReport", "rebalance"]
