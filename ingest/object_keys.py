"""Where objects lie, by their keys; the inbox's own are in ``ingest/sidecar.py``."""

import hashlib

INBOX = "inbox/"
JPEG, JSON = "image/jpeg", "application/json"


def frame_key(sha256: str) -> str:
    """Where a frame lies once it is received."""
    return f"frames/{sha256}.jpg"


def quarantine_key(reason: str, sha256: str, kind: str = "jpg") -> str:
    """Where a refused frame (``jpg``) or its sidecar (``json``) lies."""
    return f"quarantine/{reason}/{sha256}.{kind}"


def refusal_digest(inbox_key: str, sidecar: bytes) -> str:
    """What stands for the SHA-256 of an upload that is refused for more than its picture's bytes, which may
    come again and be right.

    It does not depend on the picture, so that a sidecar left alone in the inbox is still known.
    """
    return hashlib.sha256(inbox_key.encode() + b"\0" + sidecar).hexdigest()
