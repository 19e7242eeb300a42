"""The ledger: one row per frame and its state, in SQL; every transition is one transaction.

``received`` (validated, cleaned, stored) -> ``accepted`` (new) or ``duplicate`` (a re-encode of another) ->
``tasked`` (in Label Studio) -> ``labelled`` (its annotations were collected) -> ``released`` (a published
candidate was trained on it); ``quarantined`` frames were refused, ``withdrawn`` ones must be forgotten.
All SQL is in this package: rooms ask :class:`Ledger` in words.
"""

from trashnet.ledger.annotations import (
    OUTCOMES,
    USABLE,
    AnnotationKey,
    AnnotationRow,
    Outcome,
    RecordedAnnotations,
)
from trashnet.ledger.bin_days import BinDay
from trashnet.ledger.database import LedgerError
from trashnet.ledger.deduplication import MAX_HASH_DISTANCE, Duplicate, Fingerprint
from trashnet.ledger.growth import FrameLabels, SetAside
from trashnet.ledger.ledger import Ledger, open_ledger
from trashnet.ledger.locks import Lock, LockLostError
from trashnet.ledger.retention import REFUSED_STATES, ExpiredRefusal, Removal, TransitionPage
from trashnet.ledger.rows import STATES, FrameRow, State
from trashnet.ledger.selection import EXPLORATION, Burst, FrameScore, ScoredFrame, UnscoredFrame
from trashnet.ledger.tables import BAND_MASKS
from trashnet.ledger.turns import TurnRow
from trashnet.ledger.uploads import Upserted
from trashnet.ledger.withdrawals import FrameToWithdraw, Withdrawal

__all__ = [
    "BAND_MASKS",
    "EXPLORATION",
    "MAX_HASH_DISTANCE",
    "OUTCOMES",
    "REFUSED_STATES",
    "STATES",
    "USABLE",
    "AnnotationKey",
    "AnnotationRow",
    "BinDay",
    "Burst",
    "Duplicate",
    "ExpiredRefusal",
    "Fingerprint",
    "FrameLabels",
    "FrameRow",
    "FrameScore",
    "FrameToWithdraw",
    "Ledger",
    "LedgerError",
    "Lock",
    "LockLostError",
    "Outcome",
    "RecordedAnnotations",
    "Removal",
    "ScoredFrame",
    "SetAside",
    "State",
    "TransitionPage",
    "TurnRow",
    "UnscoredFrame",
    "Upserted",
    "Withdrawal",
    "open_ledger",
]
