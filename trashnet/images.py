"""Safe handling of images from untrusted sources: header checks, metadata removal and a perceptual hash.

JPEG segments are parsed here by their markers (ITU-T T.81, annex B), so that the size is known and the
metadata removed before any decoder sees the file.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from trashnet.quarantine import QuarantineReason

# What Pillow's decoders raise.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
# Grey levels: a 32 x 32 thumbnail with a smaller standard deviation is noise, and its hash means nothing.
MIN_STANDARD_DEVIATION = 4.0
# Of 64: a hash with fewer ones, or fewer zeros, is of an image so plain that most of its frequencies are
# equal.
MIN_HASH_BITS = 8

SCALED_DECODING = (1, 2, 4, 8)  # what libjpeg divides a picture's sides by while it decodes

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOS = 0xDA
APP0, APP1, APP14, APP15, COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # TEM and RST0-7 have no length
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG and DAC
# Baseline, extended and progressive Huffman coding: browsers, OpenCV and TensorFlow all read these.
SUPPORTED_CODINGS = {0xC0, 0xC1, 0xC2}
MAX_SEGMENTS = 4096  # a camera writes some dozens; millions of empty ones would cost seconds
# Searched in C, whatever a file holds: the marker that ends coded data (no stuffed zero, restart or fill
# byte), fill bytes, and restart markers between segments.
END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
FILL_BYTES = re.compile(rb"\xff+")
RESTART_MARKERS = re.compile(rb"(?:\xff++[\xd0-\xd7])++")  # possessive: it keeps no way back
JFIF_HEADER_BYTES, ADOBE_HEADER_BYTES = 14, 12  # of payload; a thumbnail and trailing bytes are not needed


class UnfitImage(Exception):
    """A picture that may not come in: the kind of fault, and what exactly."""

    def __init__(self, fault: QuarantineReason, what: str) -> None:
        super().__init__(fault, what)
        self.fault, self.what = fault, what


@dataclass(frozen=True, slots=True)
class CleanJpeg:
    """A JPEG without metadata, its size in pixels by its frame header, and the number of bytes dropped."""

    data: bytes
    width: int
    height: int
    dropped: int


@dataclass(frozen=True, slots=True)
class ReducedImage:
    """A decoded picture: ``pixels`` are uint8 ``(h, w, 3)``, RGB; ``width`` and ``height`` are the whole
    picture's, and ``factor`` leads from coordinates of the pixels to those of the whole picture.
    """

    pixels: NDArray[np.uint8]
    factor: int
    width: int
    height: int


def perceptual_hash(image: Image.Image) -> int:
    """64-bit DCT hash of an image (``imagehash.phash``, after Zauner 2010); 0 if the image is too plain.

    A dark, overexposed or covered lens gives near-uniform frames. Their hashes would be equal, or those of
    noise.
    """
    import imagehash  # brings SciPy along

    thumbnail = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    if np.asarray(thumbnail, np.float64).std() < MIN_STANDARD_DEVIATION:
        return 0
    value = int(str(imagehash.phash(thumbnail)), 16)
    return value if MIN_HASH_BITS <= value.bit_count() <= 64 - MIN_HASH_BITS else 0


def open_image(data: bytes, formats: Collection[str], *, min_side: int, max_pixels: int) -> Image.Image:
    """Open an image by its header alone; no pixel is decoded yet.

    Raises :class:`UnfitImage` for a header that is refused.
    """
    # A library that switched this on would let a truncated image pass as a complete one.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` decides
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
    """Check the size that a header announces.

    Raises :class:`UnfitImage` for one that is too small or too large.
    """
    if width * height > max_pixels:
        raise UnfitImage(
            QuarantineReason.TOO_LARGE, f"{width} x {height} pixels; at most {max_pixels:,} are decoded"
        )
    if min(width, height) < min_side:
        raise UnfitImage(
            QuarantineReason.TOO_SMALL, f"{width} x {height} pixels; the shorter side needs {min_side}"
        )


def decode_reduced(jpeg: bytes, min_side: int) -> ReducedImage:
    """Decode a JPEG at a half, a quarter or an eighth of its size, while both sides keep ``min_side`` pixels.

    The decoder leaves the highest frequencies of each block of 8 x 8 pixels out (libjpeg's scaled decoding),
    so that it costs the memory and nearly the time of a small picture. Nothing is checked here: the picture
    was decoded within limits before.

    Args:
        jpeg: The file's bytes.
        min_side: What the shorter side keeps; a picture of less than twice as much is not reduced.

    Returns:
        The picture reduced by 1, 2, 4 or 8. Where a side is no multiple of that, its last pixel reaches
        beyond the whole picture.
    """
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        width, height = image.size
        factor = reduce_decoding(image, min_side)
        return ReducedImage(np.asarray(image.convert("RGB")), factor, width, height)


def reduce_decoding(image: Image.Image, min_side: int) -> int:
    """Let an opened JPEG decode at a half, a quarter or an eighth of its size, see :func:`decode_reduced`.

    All coded data is still read, so that a broken file is found. The image's size changes with this call.
    Returns by how much it is reduced.
    """
    width, height = image.size
    factor = max(f for f in SCALED_DECODING if f == 1 or min(width, height) >= f * min_side)
    if factor > 1:
        image.draft(image.mode, (width // factor, height // factor))
    return factor


def strip_exif(jpeg: bytes) -> bytes:
    """Drop a JPEG's APP1 segments (EXIF and XMP), which can hold an orientation; all other bytes stay.

    Raises :class:`UnfitImage` for a file whose segments cannot be parsed.
    """
    return _copy_segments(jpeg, lambda marker, payload: None if marker == APP1 else payload, whole=False).data


def clean_jpeg(jpeg: bytes) -> CleanJpeg:
    """Drop everything that is not needed to decode a JPEG's pixels; the coded pixels stay, bit for bit.

    Of the application segments only JFIF's (APP0, without its thumbnail) and Adobe's (APP14) stay, because
    they define how numbers become colours. EXIF with its GPS position and thumbnail, XMP, IPTC, maker's
    notes, comments, further images and everything after the end marker go. ICC profiles go too: models ignore
    them, so a browser that applies one would show annotators other colours than the models see; and a profile
    names its device.

    Raises :class:`UnfitImage` for a file that is no JPEG, is truncated or has an unsupported coding.
    """
    if not jpeg.startswith(SOI):
        raise UnfitImage(
            QuarantineReason.NOT_AN_IMAGE,
            f"no JPEG: it begins with {jpeg[:12]!r}" if jpeg else "the file is empty",
        )
    clean = _copy_segments(jpeg, _needed_payload, whole=True)
    if not clean.width or not clean.height:
        raise UnfitImage(QuarantineReason.BROKEN, "its header announces no size")
    return clean


def _needed_payload(marker: int, payload: bytes) -> bytes | None:
    """The part of a segment that stays: all of it, its first bytes, or ``None``."""
    if marker == APP0 and payload.startswith(b"JFIF\0") and len(payload) >= JFIF_HEADER_BYTES:
        return payload[: JFIF_HEADER_BYTES - 2] + b"\0\0"  # a thumbnail of 0 x 0
    if marker == APP14 and payload.startswith(b"Adobe") and len(payload) >= ADOBE_HEADER_BYTES:
        return payload[:ADOBE_HEADER_BYTES]
    return None if APP0 <= marker <= APP15 or marker == COM else payload


def _copy_segments(jpeg: bytes, keep: Callable[[int, bytes], bytes | None], *, whole: bool) -> CleanJpeg:
    """Copy a JPEG segment by segment, each as ``keep(marker, payload)`` returns it; ``None`` drops it.

    With ``whole`` the file is parsed up to its end marker, and trailing bytes are dropped. Otherwise only the
    segments before the coded data are parsed, and the rest is copied as it is.

    After SOI (2 bytes) come segments of marker (2 bytes), length (2 bytes, which counts itself) and payload.
    The coded data follows the SOS segment.
    """
    kept, offset, size = [SOI], 2, (0, 0)
    for _ in range(MAX_SEGMENTS):
        if restarts := RESTART_MARKERS.match(jpeg, offset):  # they mean something within coded data only
            offset = restarts.end()
        marker, offset = _read_marker(jpeg, offset)
        if marker == EOI[1]:
            kept.append(EOI)
            break
        if marker in STANDALONE:
            kept.append(bytes((0xFF, marker)))
            continue
        length = int.from_bytes(jpeg[offset : offset + 2], "big")
        if length < 2 or offset + length > len(jpeg):
            raise UnfitImage(
                QuarantineReason.BROKEN, f"the segment at byte {offset} reaches beyond the end: truncated"
            )
        payload = jpeg[offset + 2 : offset + length]
        if marker == SOS and not whole:
            kept.append(jpeg[offset - 2 :])
            break
        if marker in FRAME_HEADERS and whole:
            size = _read_size(marker, payload, size)
        needed = keep(marker, payload)
        if needed is not None:
            kept.append(bytes((0xFF, marker)) + (len(needed) + 2).to_bytes(2, "big") + needed)
        offset += length
        if marker == SOS:
            end = _find_end_of_scan(jpeg, offset)
            kept.append(jpeg[offset:end])
            offset = end
    else:
        raise UnfitImage(QuarantineReason.BROKEN, f"more than {MAX_SEGMENTS:,} segments")
    data = b"".join(kept)
    return CleanJpeg(data, *size, dropped=len(jpeg) - len(data))


def _find_end_of_scan(jpeg: bytes, offset: int) -> int:
    """The offset of the marker that ends the coded data.

    In coded data, 0xFF 0x00 stands for the byte 0xFF, and restart markers may occur.
    """
    if found := END_OF_SCAN.search(jpeg, offset):
        return found.start()
    raise UnfitImage(QuarantineReason.BROKEN, "no end marker: truncated")


def _read_marker(jpeg: bytes, offset: int) -> tuple[int, int]:
    """The marker at ``offset`` and the offset after it; fill bytes (0xFF) before the marker are skipped."""
    start = offset
    if fill := FILL_BYTES.match(jpeg, offset):
        offset = fill.end()
    if offset == start or offset >= len(jpeg) or jpeg[offset] in (0x00, SOI[1]):
        raise UnfitImage(
            QuarantineReason.BROKEN,
            f"no JPEG segment at byte {start}" if start < len(jpeg) else "no end marker: truncated",
        )
    return jpeg[offset], offset + 1


def _read_size(marker: int, payload: bytes, size_before: tuple[int, int]) -> tuple[int, int]:
    """Width and height by a frame header: precision (1 byte), height (2), width (2), components (1)."""
    if marker not in SUPPORTED_CODINGS or len(payload) < 6 or payload[0] != 8:
        raise UnfitImage(
            QuarantineReason.WRONG_FORMAT,
            f"a coding (SOF{marker - 0xC0}) or depth that not every reader knows; use baseline JPEG, 8 bits",
        )
    if size_before != (0, 0):
        raise UnfitImage(QuarantineReason.BROKEN, "it has two frame headers")
    if payload[5] not in (1, 3):
        raise UnfitImage(
            QuarantineReason.WRONG_FORMAT, f"{payload[5]} colour components; a frame is grey or has three"
        )
    return int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[1:3], "big")
