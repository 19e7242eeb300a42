"""Faults of a data set to be imported; they are all collected before any is reported."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_LISTED = 20  # faults of one kind that are listed one by one


class FaultKind(StrEnum):
    """Kinds of fault; the values are the headings they are listed under."""

    BROKEN_ANNOTATIONS = "annotation files that cannot be read"
    MALFORMED = "annotations that lack something or hold the wrong type"
    DUPLICATE_ID = "ids that occur more than once"
    UNKNOWN_IMAGE = "annotations of images that are not listed"
    UNKNOWN_CATEGORY = (
        "categories that the taxonomy does not have "
        "(rename or drop them with a mapping: `their name: our name`, or null)"
    )
    MISSING_FILE = "files that are missing"
    BROKEN_IMAGE = "image files that cannot be used"
    TOO_SMALL = "images that are too small"
    TOO_LARGE = "images that are too large"
    SIZE_DISAGREES = "images whose declared size is not that of the file"
    NOT_A_NUMBER = "boxes with a coordinate that is not a finite number"
    NO_AREA = "boxes without area"
    OUTSIDE = "boxes that reach outside their image by more than a pixel"
    CONTRADICTION = "images that occur twice in the set, with different boxes or splits"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind, the file or annotation that has it, and what exactly is wrong."""

    kind: FaultKind
    where: str
    what: str


def listing(faults: Iterable[Fault]) -> str:
    """List the faults by kind: the count of each kind, and its first 20 faults."""
    by_kind: dict[FaultKind, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    lines = []
    for kind in FaultKind:
        if found := by_kind.get(kind):
            lines.append(f"{len(found)} {kind}:")
            lines += [f"  {fault.where}: {fault.what}" for fault in found[:MAX_LISTED]]
            if len(found) > MAX_LISTED:
                lines.append(f"  ... and {len(found) - MAX_LISTED} more")
    return "\n".join(lines)
