"""Learning: the teacher and the student, each in a package of its own, and whether training is due.

Import ``training.efficientdet`` or ``training.ssd`` for a model: each loads its framework when it is used.
"""

from training.params import RetrainingParams
from training.retraining import retrain_due

__all__ = ["RetrainingParams", "retrain_due"]
