"""Why a frame may be refused."""

from enum import StrEnum


class QuarantineReason(StrEnum):
    """What is wrong with an upload: the words are those of the ledger and of the quarantine's folders."""

    # of its picture
    NOT_AN_IMAGE = "not-an-image"
    WRONG_FORMAT = "wrong-format"
    BROKEN = "broken-image"
    TOO_SMALL = "too-small"
    TOO_LARGE = "too-many-pixels"
    TOO_COSTLY = "too-costly"
    # of its upload
    BAD_KEY = "bad-key"
    BAD_SIDECAR = "bad-sidecar"
    TOO_MANY_BYTES = "too-many-bytes"
    WRONG_CHECKSUM = "wrong-checksum"
    INCOMPLETE = "incomplete"
    STRAY = "stray"
    # of a frame that was received
    DUPLICATE = "duplicate"
    LOST = "lost"
    WITHDRAWN = "withdrawn"  # also of its uploads that come later; no bytes are kept
