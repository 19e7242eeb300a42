"""Whether both models should be trained again."""

from training.params import RetrainingParams
from trashnet.due import Due
from trashnet.ledger import Ledger


def retrain_due(ledger: Ledger, params: RetrainingParams, at_least: int | None = None) -> Due:
    """Whether enough labels joined the dataset that no published candidate was trained on.

    A label that was corrected or taken back counts like a new one.

    Args:
        ledger: Knows which frames models were trained on.
        params: ``min_new_frames`` says how many are enough.
        at_least: How many are enough this time, instead.
    """
    new = ledger.count_untrained_frames()
    wanted = params.min_new_frames if at_least is None else at_least
    return Due(
        new >= wanted, f"{new} new or changed labels that no candidate was trained on, {wanted} are enough"
    )
