"""The keys of objects in the store: uploads in the inbox, received frames, and what is in quarantine."""

import hashlib
import re
from dataclasses import dataclass

from trashnet.quarantine import QuarantineReason

INBOX, QUARANTINE = "inbox/", "quarantine/"
JPEG, JSON = "image/jpeg", "application/json"
MAX_NAME_LENGTH = 64

NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*"  # of a bin or a release: it cannot lead to another path
RELEASE = re.compile(NAME)
UPLOAD = re.compile(
    rf"{INBOX}(?P<bin>{NAME})/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<sha256>[0-9a-f]{{64}})\.(?P<kind>jpg|json)"
)
REFUSED = re.compile(
    rf"{QUARANTINE}(?P<reason>{'|'.join(QuarantineReason)})/(?P<sha256>[0-9a-f]{{64}})\.(?P<kind>\w+)"
)


@dataclass(frozen=True, slots=True)
class InboxKey:
    """The key of an upload in the inbox: ``inbox/<bin>/<date>/<sha256>`` and a suffix."""

    bin_id: str
    sha256: str
    stem: str  # the key without its suffix

    @property
    def frame(self) -> str:
        """The picture's key."""
        return f"{self.stem}.jpg"

    @property
    def sidecar(self) -> str:
        """The sidecar's key."""
        return f"{self.stem}.json"


def parse_inbox_key(key: str) -> InboxKey | None:
    """Read an inbox key; ``None`` for one that bins do not write."""
    found = UPLOAD.fullmatch(key)
    if found is None or len(found["bin"]) > MAX_NAME_LENGTH:
        return None
    return InboxKey(found["bin"], found["sha256"], key.rpartition(".")[0])


def frame_key(sha256: str) -> str:
    """The key of a received frame."""
    return f"frames/{sha256}.jpg"


def quarantine_key(reason: str, sha256: str, kind: str = "jpg") -> str:
    """The key of a refused frame (``jpg``) or its sidecar (``json``)."""
    return f"{QUARANTINE}{reason}/{sha256}.{kind}"


@dataclass(frozen=True, slots=True)
class QuarantineKey:
    """The key of an object in quarantine: ``quarantine/<reason>/<sha256>.<kind>``."""

    reason: QuarantineReason
    sha256: str
    kind: str


def parse_quarantine_key(key: str) -> QuarantineKey | None:
    """Read a key in quarantine; ``None`` for one that :func:`quarantine_key` does not make."""
    found = REFUSED.fullmatch(key)
    return (
        None
        if found is None
        else QuarantineKey(QuarantineReason(found["reason"]), found["sha256"], found["kind"])
    )


def refusal_digest(inbox_key: str, sidecar: bytes) -> str:
    """The digest that replaces the SHA-256 of an upload whose picture is not the reason for its refusal.

    The same picture may come again in an upload that is right. The digest does not depend on the picture, so
    that a sidecar that was left alone in the inbox is still known.
    """
    return hashlib.sha256(inbox_key.encode() + b"\0" + sidecar).hexdigest()
