"""What can be wrong with a data set that somebody brings, collected in full before anything is said."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

SHOWN = 20  # faults of one kind that are named one by one


class FaultKind(StrEnum):
    """Kinds of fault, in the words of the heading they are listed under."""

    BROKEN_ANNOTATIONS = "annotation files that cannot be read"
    MALFORMED = "annotations that lack something or hold the wrong type"
    DUPLICATE_ID = "ids that stand more than once"
    UNKNOWN_IMAGE = "annotations of images that are not listed"
    UNKNOWN_CATEGORY = "categories that the taxonomy does not have (rename or drop them with a mapping: `their name: our name`, or null)"
    MISSING_FILE = "files that are missing"
    BROKEN_IMAGE = "image files that cannot be used"
    TOO_SMALL = "images that are too small"
    TOO_LARGE = "images that are too large"
    SIZE_DISAGREES = "images whose declared size is not that of the file"
    NOT_A_NUMBER = "boxes with a coordinate that is not a finite number"
    NO_AREA = "boxes without area"
    OUTSIDE = "boxes that reach outside their image by more than a pixel"
    CONTRADICTION = "images that stand in the set twice, with different boxes or splits"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: its kind, the file or annotation, and what exactly."""

    kind: FaultKind
    where: str
    what: str


def listing(faults: Iterable[Fault]) -> str:
    """All faults by kind, each kind with its count and at most 20 of them by name."""
    by_kind: dict[FaultKind, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    lines = []
    for kind in FaultKind:
        if found := by_kind.get(kind):
            lines.append(f"{len(found)} {kind}:")
            lines += [f"  {fault.where}: {fault.what}" for fault in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"  ... and {len(found) - SHOWN} more")
    return "\n".join(lines)
