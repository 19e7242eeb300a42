"""How a frame was chosen: the words of a sidecar, and what makes a frame a fair sample."""

import pytest

from trashnet.choice import FrameChoice, read_choice, upload_reason
from trashnet.errors import UserError


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("exploration", "exploration"),
        (" exploration\n", "exploration"),
        ("exploration of a doubtful can", "model"),  # the word alone counts
        ("least sure of 0.31", "model"),
        ("", None),
        (None, None),
    ],
)
def test_only_the_word_alone_says_that_a_bin_uploaded_at_random(
    reason: str | None, meaning: str | None
) -> None:
    """Any other reason is one that the bin's model may have had a say in; none is unknown."""
    assert upload_reason(reason) == meaning


@pytest.mark.parametrize(
    ("choice", "origin", "random"),
    [
        (FrameChoice("exploration", "exploration"), "exploration", True),
        (FrameChoice("exploration", "held_out"), "held_out", True),
        (FrameChoice("exploration", "score"), "other", False),  # the score chose it
        (FrameChoice("model", "exploration"), "other", False),  # the bin's model chose it
        (FrameChoice("model", "held_out"), "other", False),
        (FrameChoice("import", None), "import", False),
        (FrameChoice("exploration", None), "unknown", False),
        (FrameChoice(None, "exploration"), "unknown", False),
        (FrameChoice(), "unknown", False),
    ],
)
def test_a_frame_is_a_fair_sample_if_it_was_drawn_at_random_twice(
    choice: FrameChoice, origin: str, random: bool
) -> None:
    """Once is not enough, and unknown never becomes test."""
    assert (choice.origin, choice.is_random) == (origin, random)


def test_a_word_of_a_newer_program_is_refused() -> None:
    """It names the word and the remedy."""
    with pytest.raises(UserError, match=r"'oracle'.*update"):
        read_choice("exploration", "oracle")
