"""The uploads of a fleet, each computed from the seed and its number alone."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

SIDE, CELLS = 16, 4  # pixels of a picture's side, and coloured cells that it is drawn from
QUALITY = 90
CUT_OFF = 40  # bytes that a broken picture lacks at its end: they are all coded pixels
MAX_RESTART_INTERVAL = 65_000
FIRST_UPLOAD = datetime(2026, 3, 1, tzinfo=UTC)
LOOK_BACK = 2000  # uploads: how far back the original of a re-encode lies at most


class Kind(StrEnum):
    """What an upload is."""

    NEW = "new picture"
    REENCODE = "re-encode of an earlier picture"
    REPEATED = "an earlier upload once more"
    OTHER_BIN = "an earlier picture from another bin"
    BROKEN = "broken picture"
    MISNAMED = "wrong checksum"
    HALF = "picture without a sidecar"


# Of 1,000 uploads; the others are new pictures.
SHARES = {
    Kind.REENCODE: 30,
    Kind.REPEATED: 10,
    Kind.OTHER_BIN: 5,
    Kind.BROKEN: 20,
    Kind.MISNAMED: 5,
    Kind.HALF: 5,
}


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload: its picture, its sidecar (``None`` if it never comes) and its keys without suffix.

    ``original`` is the number of the upload that it repeats or re-encodes, else its own.
    """

    number: int
    kind: Kind
    original: int
    bin_id: str
    captured_at: datetime
    stem: str
    jpeg: bytes
    sidecar: bytes | None


@dataclass(frozen=True)
class Fleet:
    """So many ``bins`` that send ``uploads`` in all, at ``rate`` uploads per second."""

    seed: int
    bins: int
    uploads: int
    rate: float

    def __iter__(self) -> Iterator[Upload]:
        """All uploads in the order of their times."""
        return map(self.upload, range(self.uploads))

    def seconds(self, number: int) -> float:
        """When an upload is made, in seconds from the first one: at the rate, but for some jitter."""
        return (number + 0.9 * self._draw(number, "time")) / self.rate

    def upload(self, number: int) -> Upload:
        """The upload of that number."""
        kind, original = self._kind(number)
        if kind is Kind.REPEATED:
            first = self.upload(original)
            return Upload(
                number, kind, original, first.bin_id, first.captured_at, first.stem, first.jpeg, first.sidecar
            )
        bin_id = self._bin(original)
        if kind is Kind.OTHER_BIN:
            bin_id = f"bin{(int(bin_id[3:]) + 1) % self.bins:04d}"
        captured_at = FIRST_UPLOAD + timedelta(seconds=math.floor(self.seconds(number) * 1000) / 1000)
        jpeg = picture(self.seed, original, number if kind is Kind.REENCODE else 0)
        if kind is Kind.BROKEN:
            jpeg = jpeg[:-CUT_OFF]
        sha256 = hashlib.sha256(jpeg + b"?" * (kind is Kind.MISNAMED)).hexdigest()
        content = {
            "bin_id": bin_id,
            "captured_at": captured_at.isoformat(),
            "release": None,
            "detections": [{"label": "Drink can", "score": 0.5, "box": [2, 2, 8, 8]}],
            "burst": f"{original // 40}",
        }
        sidecar = None if kind is Kind.HALF else json.dumps(content).encode()
        stem = f"inbox/{bin_id}/{captured_at:%Y-%m-%d}/{sha256}"
        return Upload(number, kind, original, bin_id, captured_at, stem, jpeg, sidecar)

    def _kind(self, number: int) -> tuple[Kind, int]:
        """What an upload is, and the number of its original."""
        kind = self._drawn_kind(number)
        if kind not in {Kind.REENCODE, Kind.REPEATED, Kind.OTHER_BIN}:
            return kind, number
        original = number - 1 - int(self._draw(number, "original") * min(number, LOOK_BACK))
        while original >= 0 and self._drawn_kind(original) is not Kind.NEW:
            original -= 1
        return (kind, original) if original >= 0 else (Kind.NEW, number)

    def _drawn_kind(self, number: int) -> Kind:
        draw = int(1000 * self._draw(number, "kind"))
        for kind, share in SHARES.items():
            if draw < share:
                return kind
            draw -= share
        return Kind.NEW

    def _bin(self, number: int) -> str:
        return f"bin{int(self._draw(number, 'bin') * self.bins):04d}"

    def _draw(self, number: int, what: str) -> float:
        return _draws(self.seed, number)[what]


@lru_cache(maxsize=4 * LOOK_BACK)
def _draws(seed: int, number: int) -> dict[str, float]:
    """Numbers in [0, 1) that belong to an upload."""
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    names = ("kind", "original", "bin", "time")
    return {name: int.from_bytes(digest[8 * at : 8 * at + 6], "big") / 2**48 for at, name in enumerate(names)}


@lru_cache(maxsize=4 * LOOK_BACK)
def picture(seed: int, number: int, coded_as: int = 0) -> bytes:
    """A JPEG of some 700 bytes like no other; ``coded_as`` gives the same pixels other bytes."""
    noise = hashlib.shake_128(f"{seed} picture {number}".encode()).digest(CELLS * CELLS * 3)
    cells = np.frombuffer(noise, np.uint8).reshape(CELLS, CELLS, 3)
    pixels = cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, int(coded_as > 0)]
    if coded_as:  # a distance of restart markers that a picture of one block never reaches
        options += [cv2.IMWRITE_JPEG_RST_INTERVAL, 1 + coded_as % MAX_RESTART_INTERVAL]
    encoded: Any = cv2.imencode(".jpg", pixels, options)[1]
    return bytes(encoded)
