"""Rebalance the train split: as few augmented copies as lift every rare class to its target."""

from dataset.rebalance.params import RebalanceParams
from dataset.rebalance.plan import RebalanceReport, rebalance

__all__ = ["RebalanceParams", "RebalanceReport", "rebalance"]
