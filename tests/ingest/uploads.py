"""Frames as bins upload them."""

import hashlib
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from trashnet.store import ObjectStore

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
