"""Frames as bins upload them, and a store in memory that behaves as the real one."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image

from trashnet.store import NoSuchObject, ObjectStore, ObjectTooLarge, StoredObject

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def scene(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A picture like no other: coarse random blocks, so that perceptual hashes of two seeds are far apart."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90, **options: Any) -> bytes:
    """The picture as a JPEG, as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def sidecar(bin_id: str = "bin01", **changes: Any) -> dict[str, Any]:
    """A valid sidecar with ``changes``."""
    box = {"label": "Drink can", "score": 0.5, "box": [10, 10, 30, 20]}
    content = {
        "bin_id": bin_id,
        "captured_at": NOON.isoformat(),
        "release": None,
        "detections": [box],
        "reason": "uncertain",
    }
    return content | changes


def upload(
    store: ObjectStore,
    data: bytes,
    content: dict[str, Any] | bytes | None = None,
    *,
    name: str | None = None,
    bin_id: str = "bin01",
) -> str:
    """Put a frame and then its sidecar into the inbox, as a bin does; the sidecar's key."""
    stem = f"inbox/{bin_id}/2026-11-20/{name or hashlib.sha256(data).hexdigest()}"
    store.put(f"{stem}.jpg", data, "image/jpeg")
    content = sidecar(bin_id) if content is None else content
    store.put(
        f"{stem}.json",
        content if isinstance(content, bytes) else json.dumps(content).encode(),
        "application/json",
    )
    return f"{stem}.json"


class MemoryStore(ObjectStore):
    """The object store's interface over a dictionary, for properties that are checked hundreds of times.

    Other tests use a real server.
    """

    def __init__(self) -> None:
        """An empty bucket."""
        self.endpoint, self.bucket = "memory://", "test"
        self.objects: dict[str, tuple[bytes, datetime]] = {}

    def put(self, key: str, data: bytes, content_type: str = "") -> None:
        """Write an object."""
        self.objects[key] = (data, NOON + timedelta(hours=1))

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Read an object."""
        if key not in self.objects:
            raise NoSuchObject(key)
        data = self.objects[key][0]
        if limit is not None and len(data) > limit:
            raise ObjectTooLarge(key)
        return data

    def get_with_etag(self, key: str, limit: int | None = None) -> tuple[bytes, str | None]:
        """Read an object with its ETag."""
        data = self.get(key, limit)
        return data, hashlib.md5(data, usedforsecurity=False).hexdigest()

    def stat(self, key: str) -> StoredObject | None:
        """Size, time and ETag of an object."""
        if key not in self.objects:
            return None
        data, modified = self.objects[key]
        return StoredObject(key, len(data), modified, hashlib.md5(data, usedforsecurity=False).hexdigest())

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """Objects by key."""
        for key in sorted(self.objects):
            if (
                key.startswith(prefix)
                and (start_after is None or key > start_after)
                and (found := self.stat(key))
            ):
                yield found

    def copy(self, source: str, target: str) -> None:
        """Copy an object."""
        self.put(target, self.get(source))

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.objects.pop(key, None)

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove objects one after the other: a process may die between two of them."""
        for key in keys:
            self.remove(key)
