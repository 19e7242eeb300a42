"""The ledger: one row per frame and its state, in SQL; every transition is one transaction.

``received`` (checked, cleaned, stored) -> ``accepted`` (new) or ``duplicate`` (a re-encode of another) -> ``tasked`` (in Label Studio)
-> ``labelled`` (a checked answer was collected) -> ``released`` (a published candidate was trained on it); ``quarantined`` is refused.
"""

from trashnet.ledger.annotations import OUTCOMES, Answer, AnswerRow
from trashnet.ledger.ledger import Ledger, open_ledger
from trashnet.ledger.rows import STATES, FrameRow, State
from trashnet.ledger.turns import TurnRow

__all__ = [
    "OUTCOMES",
    "STATES",
    "Answer",
    "AnswerRow",
    "FrameRow",
    "Ledger",
    "State",
    "TurnRow",
    "open_ledger",
]
