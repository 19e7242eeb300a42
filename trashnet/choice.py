"""How a frame was chosen: why its bin uploaded it, and how selection chose it. The values' names are here.

Both matter for a test set. A frame that a bin uploaded because its model was unsure says nothing about the
frames that the model was sure of, even if selection drew it at random afterwards; and so does one that was
uploaded at random and then chosen for its score. Only what was drawn at random both times is a fair sample of
what bins see. ``None`` stands for "unknown" everywhere: frames from before version 0.4, and bins that give no
reason.
"""

from dataclasses import dataclass
from typing import Literal

from trashnet.errors import UserError

UploadReason = Literal["exploration", "model", "import"]
SelectedBy = Literal["exploration", "held_out", "score"]
ChoiceOrigin = Literal["exploration", "held_out", "import", "other", "unknown"]

EXPLORATION: Literal["exploration"] = "exploration"  # at random, whatever any model thought of the frame
MODEL: Literal["model"] = "model"  # the bin gave another reason: its model had a say
IMPORT: Literal["import"] = "import"  # it came with a data set, and no bin uploaded it here
HELD_OUT: Literal["held_out"] = "held_out"  # at random, of a bin that no training may see
SCORE: Literal["score"] = "score"  # for its acquisition score


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """Why a frame was uploaded and how it was selected; ``None`` is unknown."""

    upload_reason: UploadReason | None = None
    selected_by: SelectedBy | None = None

    @property
    def origin(self) -> ChoiceOrigin:
        """What the frame is in a test set.

        ``exploration`` and ``held_out`` frames were drawn at random twice; ``import`` ones are as random as
        their data set; ``other`` ones were chosen by somebody, and of ``unknown`` ones nobody can tell.

        >>> FrameChoice("exploration", "exploration").origin, FrameChoice("model", "exploration").origin
        ('exploration', 'other')
        """
        if self.upload_reason == IMPORT:
            return IMPORT
        if self.upload_reason is None or self.selected_by is None:
            return "unknown"
        if self.upload_reason != EXPLORATION or self.selected_by == SCORE:
            return "other"
        return self.selected_by

    @property
    def is_random(self) -> bool:
        """Whether the frame was drawn at random twice, so that it may become val or test."""
        return self.origin in (EXPLORATION, HELD_OUT)


def upload_reason(reason: str | None) -> UploadReason | None:
    """What a sidecar's ``reason`` says: the word ``exploration`` alone means at random.

    >>> upload_reason("exploration"), upload_reason("least sure of 0.31"), upload_reason(None)
    ('exploration', 'model', None)
    """
    if not reason:
        return None
    return EXPLORATION if reason.strip() == EXPLORATION else MODEL


def read_choice(upload: str | None, selected: str | None) -> FrameChoice:
    """A choice as it was written down. Raises :class:`UserError` for a value that this program does not
    know.
    """
    if upload not in (None, EXPLORATION, MODEL, IMPORT) or selected not in (
        None,
        EXPLORATION,
        HELD_OUT,
        SCORE,
    ):
        raise UserError(
            f"a frame was chosen by {upload!r} and {selected!r}, which this program does not know; "
            "update the program"
        )
    return FrameChoice(upload, selected)
