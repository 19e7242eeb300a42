"""Whether a step of the flywheel has work, and why: what a room answers before a flow starts anything."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Due:
    """Whether a step should run now, with the reason in words for its log.

    >>> bool(Due(False, "12 of 200 labelled frames"))
    False
    """

    due: bool
    reason: str

    def __bool__(self) -> bool:
        return self.due
