"""Validation of image files, and conversion to the form a frame has in the log: an upright JPEG, RGB or grey.

RGB and grey JPEGs without an EXIF rotation keep their bytes exactly. All other images are converted once, at
import, so that every reader downstream (OpenCV, TensorFlow, a browser) sees the same pixels.
"""

import hashlib
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dataset.formats.faults import Fault, FaultKind
from trashnet import images
from trashnet.images import DECODE_ERRORS, open_image, perceptual_hash, strip_exif
from trashnet.progress import track
from trashnet.quarantine import QuarantineReason

Progress = Callable[[int, int], None]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # the content decides, never the file's name
FAULT_KINDS = {
    QuarantineReason.TOO_SMALL: FaultKind.TOO_SMALL,
    QuarantineReason.TOO_LARGE: FaultKind.TOO_LARGE,
}
ORIENTATION = 0x0112
UPRIGHT = 1
MIN_BYTES_FOR_PROCESSES = 64 << 20  # about 4 s of decoding; less takes no longer than starting processes


@dataclass(frozen=True, slots=True)
class ValidImage:
    """A valid image: the file with the bytes that will be stored, their SHA-256, size and perceptual hash."""

    file: Path
    sha256: str
    width: int
    height: int
    phash: int
    converted: str | None  # what was changed; None if the bytes are unchanged


class InvalidImage(Exception):
    """An image that must not enter the log: the kind of fault, and what exactly is wrong."""

    def __init__(self, kind: FaultKind, what: str) -> None:
        super().__init__(kind, what)
        self.kind, self.what = kind, what


def normalise(
    data: bytes, declared: tuple[int, int] | None, min_side: int, max_pixels: int
) -> tuple[bytes, Image.Image, str | None]:
    """Decode an image fully and convert it to the JPEG that will be stored.

    If EXIF tells a viewer to rotate the pixels, the declared size tells which pixels the boxes refer to. If
    only the size before rotation fits, the tag is dropped and the pixels stay. Otherwise (the displayed size
    fits, both fit, or none was declared) the boxes refer to what a viewer shows, and the pixels are rotated.

    16-bit grey is scaled to 8 bits, CMYK becomes RGB, and transparent images are put on white. The JPEG
    quality is 95, without chroma subsampling.

    Args:
        data: The file's bytes.
        declared: ``(width, height)`` in pixels according to the annotations, if they declare it.
        min_side: The least width and height in pixels.
        max_pixels: The greatest product of width and height.

    Returns:
        The JPEG to store, the decoded image, and what was converted (``None`` if the bytes are unchanged).

    Raises:
        InvalidImage: If the image must not enter the log.
    """
    if not data:
        raise InvalidImage(FaultKind.BROKEN_IMAGE, "the file is empty")
    image = _opened(data, min_side, max_pixels)
    stored = image.size
    try:
        image.load()
        orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    except DECODE_ERRORS as error:
        raise InvalidImage(FaultKind.BROKEN_IMAGE, f"does not decode: {error}") from None
    displayed = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if declared is not None and declared not in (stored, displayed):
        raise InvalidImage(
            FaultKind.SIZE_DISAGREES, f"declared {_size(declared)}, the file is {_size(stored)}"
        )
    plain_jpeg = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
    if orientation in range(2, 9):
        if declared == stored != displayed:
            if plain_jpeg:
                try:
                    return strip_exif(data), image, "EXIF rotation dropped, pixels kept"
                except images.UnfitImage as unfit:
                    raise _as_fault(unfit) from None
        else:
            rotated = ImageOps.exif_transpose(_eight_bit(image))
            return _encoded(rotated), rotated, "rotated upright as EXIF says"
    elif plain_jpeg:
        return data, image, None
    converted = _eight_bit(image)
    return _encoded(converted), converted, f"{image.format} {image.mode} to JPEG {converted.mode}"


def validate_image(
    path: Path, declared: tuple[int, int] | None, *, min_side: int, max_pixels: int, spool: Path
) -> ValidImage | InvalidImage:
    """Validate one file; a converted image is written to ``spool``.

    An invalid image is returned, not raised, so that one does not end the validation of many.
    """
    try:
        jpeg, image, converted = normalise(path.read_bytes(), declared, min_side, max_pixels)
    except InvalidImage as invalid:
        return invalid
    except FileNotFoundError:
        return InvalidImage(FaultKind.MISSING_FILE, f"no such file: {path}")
    except OSError as error:
        return InvalidImage(FaultKind.BROKEN_IMAGE, f"cannot be read: {error}")
    sha256 = hashlib.sha256(jpeg).hexdigest()
    if converted:
        path = spool / f"{sha256}.jpg"
        path.write_bytes(jpeg)
    return ValidImage(path, sha256, image.width, image.height, perceptual_hash(image), converted)


def validate_images(
    files: Sequence[tuple[Path, tuple[int, int] | None]],
    *,
    min_side: int,
    max_pixels: int,
    spool: Path,
    on_progress: Progress | None = None,
) -> list[ValidImage | InvalidImage]:
    """Validate many images on all cores.

    Args:
        files: Path and declared ``(width, height)`` of each image.
        min_side: The least width and height in pixels.
        max_pixels: The greatest product of width and height.
        spool: Folder that converted images are written to.
        on_progress: Called with the number of images done and in all; besides the bar of a terminal.

    Returns:
        One result per image, in the order of ``files``.
    """
    validate = partial(_validate_pair, min_side=min_side, max_pixels=max_pixels, spool=spool)
    validated = []
    for result in track(_run_on_all_cores(validate, files), len(files), "validating images", "image"):
        validated.append(result)
        if on_progress:
            on_progress(len(validated), len(files))
    return validated


def _validate_pair(
    pair: tuple[Path, tuple[int, int] | None], *, min_side: int, max_pixels: int, spool: Path
) -> ValidImage | InvalidImage:
    return validate_image(*pair, min_side=min_side, max_pixels=max_pixels, spool=spool)


def _run_on_all_cores(
    validate: Callable[[tuple[Path, tuple[int, int] | None]], ValidImage | InvalidImage],
    files: Sequence[tuple[Path, tuple[int, int] | None]],
) -> Iterator[ValidImage | InvalidImage]:
    if sum(path.stat().st_size for path, _ in files if path.is_file()) < MIN_BYTES_FOR_PROCESSES:
        yield from map(validate, files)
        return
    # A forked child would inherit the locks of Arrow's threads, so this process is not forked.
    with ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("forkserver")
    ) as pool:
        yield from pool.map(validate, files, chunksize=16)


def _opened(data: bytes, min_side: int, max_pixels: int) -> Image.Image:
    """Read the header and check what it declares, before any pixel is decoded."""
    try:
        image = open_image(data, FORMATS, min_side=min_side, max_pixels=max_pixels)
    except images.UnfitImage as unfit:
        raise _as_fault(unfit) from None
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise InvalidImage(
            FaultKind.BROKEN_IMAGE, f"holds {getattr(image, 'n_frames', 1)} images; split it into single ones"
        )
    return image


def _as_fault(unfit: images.UnfitImage) -> InvalidImage:
    return InvalidImage(FAULT_KINDS.get(unfit.fault, FaultKind.BROKEN_IMAGE), unfit.what)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB, or grey if the image has no colour; its EXIF stays for ``exif_transpose``."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535 or image.mode == "F":
            raise InvalidImage(
                FaultKind.BROKEN_IMAGE,
                f"pixel values of mode {image.mode} have no known range; save it with 8 or 16 bits",
            )
        grey = Image.fromarray(np.rint(values * (255 / 65535)).astype(np.uint8))
        grey.info = dict(image.info)
        return grey
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        flat = Image.new("RGBA", image.size, "white")
        flat.alpha_composite(with_alpha)
        flat.info = dict(image.info)
        return flat.convert("L" if image.mode in ("LA", "La", "L", "1") else "RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    untagged = image.copy()
    untagged.info = {}  # tags of the old file must not rotate or tint the new one
    untagged.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def image_fault(invalid: InvalidImage, where: str) -> Fault:
    """Return what is wrong with an image as a fault of the data set that lists it."""
    return Fault(invalid.kind, where, invalid.what)
