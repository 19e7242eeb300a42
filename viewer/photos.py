"""Decodes an uploaded photo into the pixels that a detector takes, or explains why it cannot."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trashnet.errors import UserError

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000  # 150 MB of RGB; telephones make 12 to 50 megapixels
# Left out: EPS starts Ghostscript, the rest are containers that Pillow recognises and cannot decode by
# itself.
FORMATS_LEFT_OUT = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
# What Pillow's forty readers raise on damaged files; a test feeds them some thousands.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
)


def read_photo(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode a picture of any format that Pillow reads to RGB, uint8 ``(height, width, 3)``.

    The EXIF orientation is applied, the first picture of several is taken, transparency becomes white and 16
    bits become 8. Raises :class:`UserError` in plain words for what is too large, damaged, or not a picture.
    """
    if not data:
        raise UserError(f"{name} is empty. Choose another photo.")
    if len(data) > MAX_BYTES:
        raise UserError(
            f"{name} is {len(data) / 2**20:.0f} MB; the limit is {MAX_BYTES // 2**20} MB. Save it smaller "
            "and try again."
        )
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UserError(
                    f"{name} is {width} × {height} pixels, {width * height / 1e6:.0f} megapixels; the limit "
                    f"is {MAX_PIXELS / 1e6:.0f}."
                    " Save it smaller and try again."
                )
            return _rgb(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise UserError(
            f"{name} unpacks to far more than {MAX_PIXELS / 1e6:.0f} megapixels. Save it smaller and try "
            "again."
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{name} is not a picture, or of a kind that cannot be read here. JPEG, PNG and WebP always work."
        ) from None
    except DAMAGED as error:
        raise UserError(
            f"{name} is damaged and cannot be read ({error}). Choose another photo, or save this one anew."
        ) from None


def _formats() -> list[str]:
    Image.init()
    return sorted(set(Image.OPEN) - FORMATS_LEFT_OUT)


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode.startswith("I;16"):
        return _grey(np.asarray(picture).astype(np.float64) / 257)
    if picture.mode in ("I", "F"):  # no agreed range: stretch from the darkest to the lightest
        values = np.nan_to_num(np.asarray(picture).astype(np.float64), posinf=0, neginf=0)
        return _grey((values - values.min()) * 255 / max(float(np.ptp(values)), 1e-12))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def _grey(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.repeat(values.round().clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
