"""What one training had learnt from and an earlier one had not: labels, the turns that brought them, and
how their frames were chosen.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dataset.log import Log
from trashnet.choice import SCORE, FrameChoice


@dataclass(frozen=True, slots=True)
class TurnShare:
    """What one turn brought of some labels.

    ``boxes``, ``frames``: how many; ``corrected``: of the frames those that had been learnt from before, with
    other labels; ``chosen``: frames by how they were chosen; ``bins``: frames by bin, those of no known bin
    left out.
    """

    turn: str
    boxes: int
    frames: int
    corrected: int
    chosen: dict[str, int]
    bins: dict[str, int]


@dataclass(frozen=True)
class NewLabels:
    """The new boxes of the train split: ``row`` of the log and ``class_index`` (id - 1), int64 ``(M,)``.

    ``log``: as the later training saw it; ``known``: the turns that the earlier one was trained on, too.
    """

    log: Log
    known: frozenset[str]
    row: NDArray[np.int64] = field(repr=False)
    class_index: NDArray[np.int64] = field(repr=False)

    @cached_property
    def _label_turns(self) -> list[str | None]:
        return self.log.turns_of_labels()

    @cached_property
    def _frame_turns(self) -> list[str]:
        return self.log.turns_of_rows()

    @cached_property
    def bin_ids(self) -> list[str | None]:
        """The bin of each row of the log."""
        return self.log.column("bin_id")

    def of_bin(self, bin_id: str) -> NDArray[np.bool_]:
        """Which boxes are of frames of this bin, bool ``(M,)``."""
        return np.array([name == bin_id for name in self.bin_ids], bool)[self.row]

    def shares(self, boxes: NDArray[np.bool_]) -> list[TurnShare]:
        """What each turn brought of these boxes, bool ``(M,)``, the turn with most of them first."""
        by_turn: dict[str, Counter[int]] = {}
        for row in self.row[boxes].tolist():
            by_turn.setdefault(self._label_turns[row] or "", Counter())[row] += 1
        shares = [self._share(turn, boxes_of) for turn, boxes_of in by_turn.items()]
        return sorted(shares, key=lambda share: (-share.boxes, share.turn))

    def frames(self, boxes: NDArray[np.bool_], limit: int) -> list[int]:
        """The rows of the frames with most of these boxes, bool ``(M,)``, at most ``limit``."""
        count = Counter(self.row[boxes].tolist())
        return [row for row, _ in sorted(count.items(), key=lambda item: (-item[1], item[0]))[:limit]]

    def _share(self, turn: str, boxes_of: Counter[int]) -> TurnShare:
        bins = [self.bin_ids[row] for row in boxes_of]
        return TurnShare(
            turn=turn,
            boxes=boxes_of.total(),
            frames=len(boxes_of),
            corrected=sum(self._frame_turns[row] in self.known for row in boxes_of),
            chosen=dict(Counter(chosen_in_words(self.log.choices[row]) for row in boxes_of).most_common()),
            bins=dict(Counter(name for name in bins if name is not None).most_common()),
        )


def new_labels(log: Log, known: Collection[str]) -> NewLabels:
    """The boxes of the train split whose labels came with other turns than the ``known`` ones.

    ``log``: opened with the turns of the later training.
    """
    rows, classes = log.boxes_by_row()
    is_train, turns = log.splits == "train", log.turns_of_labels()
    is_new = np.array([turn is not None and turn not in known for turn in turns], bool) & is_train
    return NewLabels(log, frozenset(known), rows[is_new[rows]], classes[is_new[rows]])


def chosen_in_words(choice: FrameChoice) -> str:
    """How a frame came to be labelled, in words for people.

    >>> chosen_in_words(FrameChoice("model", "score")), chosen_in_words(FrameChoice())
    ('uploaded by its bin, chosen for its score', 'unknown')
    """
    if choice.origin == "exploration":
        return "drawn at random"
    if choice.origin == "held_out":
        return "drawn at random, of a held-out bin"
    if choice.origin in ("import", "unknown"):
        return "imported" if choice.origin == "import" else "unknown"
    uploaded = "uploaded at random" if choice.upload_reason == "exploration" else "uploaded by its bin"
    return (
        f"{uploaded}, chosen for its score" if choice.selected_by == SCORE else f"{uploaded}, drawn at random"
    )
