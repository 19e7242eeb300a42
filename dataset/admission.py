"""Which labelled frames may grow: those whose bytes are there, and whose labels the taxonomy knows.

Any other frame is set aside in the ledger with its reason, so that it does not hold up the rest. It is looked
at again before every turn, and grows once its fault is gone.
"""

import hashlib
import logging
from collections.abc import Container, Sequence

import numpy as np

from trashnet.boxes import stack
from trashnet.ledger import FrameLabels, FrameRow, Ledger
from trashnet.store import NoSuchObject, ObjectStore
from trashnet.taxonomy import Taxonomy

log = logging.getLogger(__name__)


class UnusableFrame(Exception):
    """A frame that cannot grow, and why."""

    def __init__(self, sha256: str, reason: str) -> None:
        super().__init__(f"frame {sha256}: {reason}")
        self.sha256, self.reason = sha256, reason


def verified_jpeg(store: ObjectStore, row: FrameRow) -> bytes:
    """A frame's bytes, which must be those that its name says.

    Raises :class:`UnusableFrame` if they are not, :class:`trashnet.store.StoreDown` if the store cannot say.
    """
    try:
        jpeg = store.get(str(row.key))
    except NoSuchObject:
        raise UnusableFrame(
            row.sha256, f"there is no object {row.key} in the store; restore it from the store's backup"
        ) from None
    if (found := hashlib.sha256(jpeg).hexdigest()) != row.sha256:
        raise UnusableFrame(
            row.sha256,
            f"{row.key} holds other bytes than its name says (SHA-256 {found}); "
            "restore it from the store's backup",
        )
    return jpeg


def stored_frame(ledger: Ledger, sha256: str) -> FrameRow:
    """A frame whose object the ledger knows. Raises :class:`UnusableFrame` for any other."""
    row = ledger.frame(sha256)
    if row is None or row.key is None or not row.width or not row.height:
        raise UnusableFrame(sha256, "the ledger does not know its object; restore the ledger's backup")
    return row


def check_label(labels: FrameLabels, taxonomy: Taxonomy) -> None:
    """Raise :class:`UnusableFrame` for a label that the dataset cannot hold."""
    boxes = labels.newest.boxes if labels.newest is not None else ()
    if unknown := sorted({box.label for box in boxes} - set(taxonomy.id_of)):
        raise UnusableFrame(
            labels.sha256,
            f"the taxonomy has no class {', '.join(unknown)}; put it back at the end of taxonomy.yaml, or "
            "correct the annotation",
        )
    xywh = stack(boxes)
    if not (np.isfinite(xywh).all() and (xywh[:, 2:] > 0).all()):
        raise UnusableFrame(labels.sha256, "a box has no area or is not a number; correct the annotation")


def find_faults(
    labels: Sequence[FrameLabels],
    known: Container[str],
    ledger: Ledger,
    store: ObjectStore | None,
    taxonomy: Taxonomy,
) -> dict[str, str]:
    """Why frames cannot grow, by SHA-256; those without a fault are left out.

    Args:
        labels: The frames and their labels.
        known: Frames whose bytes the dataset log holds, so that no object is needed.
        ledger: Knows the objects.
        store: Where the bytes are read; ``None`` to read none.
        taxonomy: The classes that labels may have.
    """
    faults: dict[str, str] = {}
    for frame in labels:
        try:
            check_label(frame, taxonomy)
            row = stored_frame(ledger, frame.sha256)
            if store is not None and frame.newest is not None and frame.sha256 not in known:
                verified_jpeg(store, row)
        except UnusableFrame as fault:
            faults[fault.sha256] = fault.reason
    return faults


def readmit_frames(ledger: Ledger, store: ObjectStore, taxonomy: Taxonomy, limit: int) -> int:
    """Look again at frames that are set aside, at most ``limit``; returns how many may grow now.

    Those that were checked longest ago come first.
    """
    labels = ledger.labels_set_aside(limit)
    if not labels:
        return 0
    grown = {frame.sha256 for frame in labels if (row := ledger.frame(frame.sha256)) and row.turn is not None}
    faults = find_faults([frame for frame in labels if frame.keys], grown, ledger, store, taxonomy)
    ledger.recheck({frame.sha256: faults.get(frame.sha256) for frame in labels})
    return len(labels) - len(faults)


def set_aside(ledger: Ledger, digest: str, faults: dict[str, str]) -> None:
    """Take frames out of a turn's plan, and say so."""
    for sha256, reason in sorted(faults.items()):
        log.warning("frame %s is set aside: %s", sha256, reason)
    ledger.set_aside(digest, faults)
