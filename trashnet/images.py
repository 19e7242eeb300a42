"""What every room that takes pictures from strangers needs: a header read before pixels, metadata dropped without touching them, a hash.

A JPEG is walked by its markers here (ITU-T T.81, annex B), so that its size is known and its metadata gone
before any decoder sees it.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)  # what Pillow's decoders raise
FLAT = (
    4.0  # grey levels: below this standard deviation a 32 x 32 thumbnail is noise, and its hash says nothing
)
FEWEST_BITS = 8  # of 64: an image so plain that most of its frequencies are equal

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOS = 0xDA
APP0, APP1, APP14, APP15, COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # TEM and RST0-7 have no length
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG and DAC
COMMON_CODINGS = {
    0xC0,
    0xC1,
    0xC2,
}  # baseline, extended and progressive Huffman: what browsers, OpenCV and TensorFlow all read
JFIF_HEADER, ADOBE_HEADER = (
    14,
    12,
)  # bytes of payload that mean something; JFIF's thumbnail and anything behind them do not


class QuarantineReason(StrEnum):
    """What is wrong with a picture; the words are those of the quarantine's folders."""

    NOT_AN_IMAGE = "not-an-image"
    WRONG_FORMAT = "wrong-format"
    BROKEN = "broken-image"
    TOO_SMALL = "too-small"
    TOO_LARGE = "too-many-pixels"
    TOO_COSTLY = "too-costly"


class UnfitImage(Exception):
    """A picture that may not come in: the kind of fault, and what exactly."""

    def __init__(self, fault: QuarantineReason, what: str) -> None:
        super().__init__(fault, what)
        self.fault, self.what = fault, what


@dataclass(frozen=True, slots=True)
class CleanJpeg:
    """A JPEG without metadata, its size as its frame header announces it, and how many bytes were dropped."""

    data: bytes
    width: int
    height: int
    dropped: int


def perceptual_hash(image: Image.Image) -> int:
    """64-bit DCT hash of an image (``imagehash.phash``, after Zauner 2010), 0 if it is too plain for a hash to mean anything.

    Dark, overexposed or covered lenses give near-uniform frames whose hashes are those of their noise or all
    alike.
    """
    import imagehash  # brings SciPy along

    thumbnail = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    if np.asarray(thumbnail, np.float64).std() < FLAT:
        return 0
    value = int(str(imagehash.phash(thumbnail)), 16)
    return value if FEWEST_BITS <= value.bit_count() <= 64 - FEWEST_BITS else 0


def open_image(data: bytes, formats: Collection[str], *, min_side: int, max_pixels: int) -> Image.Image:
    """Read the header alone and refuse what it announces, before any pixel is decoded. Raises :class:`UnfitImage`."""
    ImageFile.LOAD_TRUNCATED_IMAGES = (
        False  # a library that switched it on would let half an image pass as a whole one
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit decides
            image = Image.open(io.BytesIO(data), formats=tuple(formats))
    except Image.DecompressionBombError as error:
        raise UnfitImage(QuarantineReason.TOO_LARGE, str(error)) from None
    except UnidentifiedImageError:
        raise UnfitImage(
            QuarantineReason.NOT_AN_IMAGE, f"not an image of a known format; it begins with {data[:12]!r}"
        ) from None
    except DECODE_ERRORS as error:
        raise UnfitImage(QuarantineReason.BROKEN, f"its header does not decode: {error}") from None
    check_size(image.width, image.height, min_side=min_side, max_pixels=max_pixels)
    return image


def check_size(width: int, height: int, *, min_side: int, max_pixels: int) -> None:
    """Refuse a picture by the size its header announces. Raises :class:`UnfitImage`."""
    if width * height > max_pixels:
        raise UnfitImage(
            QuarantineReason.TOO_LARGE, f"{width} x {height} pixels; at most {max_pixels:,} are decoded"
        )
    if min(width, height) < min_side:
        raise UnfitImage(
            QuarantineReason.TOO_SMALL, f"{width} x {height} pixels; the shorter side needs {min_side}"
        )


def without_exif(jpeg: bytes) -> bytes:
    """Drop a JPEG's APP1 segments (EXIF and XMP), where an orientation can be written; all other bytes stay. Raises :class:`UnfitImage`."""
    return _walk(jpeg, lambda marker, payload: None if marker == APP1 else payload, whole=False).data


def clean_jpeg(jpeg: bytes) -> CleanJpeg:
    """Drop all that is not needed to decode a JPEG's pixels: they stay as they are, bit for bit. Raises :class:`UnfitImage`.

    Of the application segments only JFIF's (APP0, without its thumbnail) and Adobe's (APP14) stay: they say
    how the numbers become colours. EXIF with its GPS and thumbnail, XMP, IPTC, maker's notes, comments,
    further pictures and whatever follows the end go. ICC profiles go too: no model looks at one, so a browser
    that does would show annotators other colours than the models see, and a profile names its device.
    """
    if not jpeg.startswith(SOI):
        raise UnfitImage(
            QuarantineReason.NOT_AN_IMAGE,
            f"no JPEG: it begins with {jpeg[:12]!r}" if jpeg else "the file is empty",
        )
    clean = _walk(jpeg, _needed, whole=True)
    if not clean.width or not clean.height:
        raise UnfitImage(QuarantineReason.BROKEN, "its header announces no size")
    return clean


def _needed(marker: int, payload: bytes) -> bytes | None:
    """What of a segment stays: all of it, its first bytes, or ``None``."""
    if marker == APP0 and payload.startswith(b"JFIF\0") and len(payload) >= JFIF_HEADER:
        return payload[: JFIF_HEADER - 2] + b"\0\0"  # a thumbnail of 0 x 0
    if marker == APP14 and payload.startswith(b"Adobe") and len(payload) >= ADOBE_HEADER:
        return payload[:ADOBE_HEADER]
    return None if APP0 <= marker <= APP15 or marker == COM else payload


def _walk(jpeg: bytes, keep: Callable[[int, bytes], bytes | None], *, whole: bool) -> CleanJpeg:
    """Copy a JPEG segment by segment; with ``whole`` to its end marker and no further, else only its header is looked at.

    After SOI (2 bytes) come segments of marker (2 bytes) and length (2 bytes, itself counted); after SOS's
    there is coded data.
    """
    kept, at, size = [SOI], 2, (0, 0)
    while True:
        marker, at = _marker(jpeg, at)
        if marker == EOI[1]:
            kept.append(EOI)
            break
        if marker in STANDALONE:
            kept.append(bytes((0xFF, marker)))
            continue
        length = int.from_bytes(jpeg[at : at + 2], "big")
        if length < 2 or at + length > len(jpeg):
            raise UnfitImage(
                QuarantineReason.BROKEN, f"the segment at byte {at} reaches beyond the end: truncated"
            )
        payload = jpeg[at + 2 : at + length]
        if marker == SOS and not whole:
            kept.append(jpeg[at - 2 :])
            break
        if marker in FRAME_HEADERS and whole:
            size = _announced(marker, payload, size)
        stays = keep(marker, payload)
        if stays is not None:
            kept.append(bytes((0xFF, marker)) + (len(stays) + 2).to_bytes(2, "big") + stays)
        at += length
        if marker == SOS:
            end = _end_of_scan(jpeg, at)
            kept.append(jpeg[at:end])
            at = end
    data = b"".join(kept)
    return CleanJpeg(data, *size, dropped=len(jpeg) - len(data))


def _end_of_scan(jpeg: bytes, at: int) -> int:
    """Where coded data ends: at a 0xFF that neither stands for itself (a 0 follows) nor begins a restart marker."""
    while (at := jpeg.find(b"\xff", at)) >= 0 and at + 1 < len(jpeg):
        after = jpeg[at + 1]
        if after == 0x00 or 0xD0 <= after <= 0xD7:
            at += 2
        elif after == 0xFF:  # a fill byte
            at += 1
        else:
            return at
    raise UnfitImage(QuarantineReason.BROKEN, "no end marker: truncated")


def _marker(jpeg: bytes, at: int) -> tuple[int, int]:
    """The marker at ``at`` and the place behind it; fill bytes (0xFF) before it are skipped."""
    start = at
    while jpeg[at : at + 1] == b"\xff":
        at += 1
    if at == start or at >= len(jpeg) or jpeg[at] in (0x00, SOI[1]):
        raise UnfitImage(
            QuarantineReason.BROKEN,
            f"no JPEG segment at byte {start}" if start < len(jpeg) else "no end marker: truncated",
        )
    return jpeg[at], at + 1


def _announced(marker: int, payload: bytes, before: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a frame header: precision (1 byte), height (2), width (2), number of components (1)."""
    if marker not in COMMON_CODINGS or len(payload) < 6 or payload[0] != 8:
        raise UnfitImage(
            QuarantineReason.WRONG_FORMAT,
            f"a coding (SOF{marker - 0xC0}) or depth that not every reader knows; use baseline JPEG, 8 bits",
        )
    if before != (0, 0):
        raise UnfitImage(QuarantineReason.BROKEN, "it has two frame headers")
    if payload[5] not in (1, 3):
        raise UnfitImage(
            QuarantineReason.WRONG_FORMAT, f"{payload[5]} colour components; a frame is grey or has three"
        )
    return int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[1:3], "big")
