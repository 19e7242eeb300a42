"""Check image files and bring them into the one form a frame has in the log: a JPEG, RGB or grey, upright as stored.

RGB and grey JPEGs without an EXIF turn keep their bytes exactly. Everything else is converted once, on the
way in, so that no reader downstream (OpenCV, TensorFlow, a browser) can see other pixels than its neighbour
does.
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
from tqdm import tqdm

from dataset.formats.faults import Fault, FaultKind
from trashnet import images
from trashnet.images import DECODE_ERRORS, QuarantineReason, open_image, perceptual_hash, strip_exif

Progress = Callable[[int, int], None]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # the content decides, never the file's name
FAULT_KINDS = {
    QuarantineReason.TOO_SMALL: FaultKind.TOO_SMALL,
    QuarantineReason.TOO_LARGE: FaultKind.TOO_LARGE,
}
ORIENTATION = 0x0112
UPRIGHT = 1
IN_ONE_PROCESS = (
    64 << 20
)  # bytes of files (some 4 s of decoding): fewer are checked before a pool of processes has started


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that may enter the log: the file that holds its bytes as they will be stored, their SHA-256, size and hash."""

    file: Path
    sha256: str
    width: int
    height: int
    phash: int
    converted: str | None  # what had to be changed, None for bytes kept as they are


class UnfitImage(Exception):
    """An image that may not enter the log: the kind of fault, and what exactly."""

    def __init__(self, kind: FaultKind, what: str) -> None:
        super().__init__(kind, what)
        self.kind, self.what = kind, what


def normalise(
    data: bytes, declared: tuple[int, int] | None, min_side: int, max_pixels: int
) -> tuple[bytes, Image.Image, str | None]:
    """Decode an image fully and return the JPEG bytes to store, the decoded image, and what was converted (``None``: bytes as given).

    ``declared`` is the ``(width, height)`` the annotations speak of. Where EXIF says that a viewer should
    turn the pixels, it tells which side the boxes are on: the size before turning alone fits, then the tag is
    dropped and the pixels stay; otherwise (it fits the displayed size, or both, or none was declared) the
    boxes are taken to be drawn on what a viewer shows, and the pixels are turned.

    16-bit grey is scaled to 8 bits, CMYK becomes RGB, transparency lies over white; JPEG quality 95 without
    chroma subsampling. Raises :class:`UnfitImage`.
    """
    if not data:
        raise UnfitImage(FaultKind.BROKEN_IMAGE, "the file is empty")
    image = _opened(data, min_side, max_pixels)
    stored = image.size
    try:
        image.load()
        orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    except DECODE_ERRORS as error:
        raise UnfitImage(FaultKind.BROKEN_IMAGE, f"does not decode: {error}") from None
    displayed = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if declared is not None and declared not in (stored, displayed):
        raise UnfitImage(FaultKind.SIZE_DISAGREES, f"declared {_size(declared)}, the file is {_size(stored)}")
    plain_jpeg = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
    if orientation in range(2, 9):
        if declared == stored != displayed:
            if plain_jpeg:
                try:
                    return strip_exif(data), image, "EXIF turn dropped, pixels kept"
                except images.UnfitImage as unfit:
                    raise _as_fault(unfit) from None
        else:
            turned = ImageOps.exif_transpose(_eight_bit(image))
            return _encoded(turned), turned, "turned upright as EXIF says"
    elif plain_jpeg:
        return data, image, None
    converted = _eight_bit(image)
    return _encoded(converted), converted, f"{image.format} {image.mode} to JPEG {converted.mode}"


def check_image(
    path: Path, declared: tuple[int, int] | None, *, min_side: int, max_pixels: int, spool: Path
) -> CheckedImage | UnfitImage:
    """Check one file; a converted image is written to ``spool``. An unfit image is returned, not raised: many are checked at once."""
    try:
        jpeg, image, converted = normalise(path.read_bytes(), declared, min_side, max_pixels)
    except UnfitImage as unfit:
        return unfit
    except FileNotFoundError:
        return UnfitImage(FaultKind.MISSING_FILE, f"no such file: {path}")
    except OSError as error:
        return UnfitImage(FaultKind.BROKEN_IMAGE, f"cannot be read: {error}")
    sha256 = hashlib.sha256(jpeg).hexdigest()
    if converted:
        path = spool / f"{sha256}.jpg"
        path.write_bytes(jpeg)
    return CheckedImage(path, sha256, image.width, image.height, perceptual_hash(image), converted)


def check_images(
    files: Sequence[tuple[Path, tuple[int, int] | None]],
    *,
    min_side: int,
    max_pixels: int,
    spool: Path,
    on_progress: Progress | None = None,
) -> list[CheckedImage | UnfitImage]:
    """Check many ``(path, declared size)`` on all cores, in order; ``on_progress(done, total)`` or else a bar on a terminal."""
    check = partial(_check_pair, min_side=min_side, max_pixels=max_pixels, spool=spool)
    checked = []
    with tqdm(
        total=len(files), desc="checking images", unit="image", disable=True if on_progress else None
    ) as bar:
        for one in _spread(check, files):
            checked.append(one)
            bar.update()
            if on_progress:
                on_progress(len(checked), len(files))
    return checked


def _check_pair(
    pair: tuple[Path, tuple[int, int] | None], *, min_side: int, max_pixels: int, spool: Path
) -> CheckedImage | UnfitImage:
    return check_image(*pair, min_side=min_side, max_pixels=max_pixels, spool=spool)


def _spread(
    check: Callable[[tuple[Path, tuple[int, int] | None]], CheckedImage | UnfitImage],
    files: Sequence[tuple[Path, tuple[int, int] | None]],
) -> Iterator[CheckedImage | UnfitImage]:
    if sum(path.stat().st_size for path, _ in files if path.is_file()) < IN_ONE_PROCESS:
        yield from map(check, files)
        return
    # A forked child would inherit the locks of Arrow's threads: start clean ones.
    with ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("forkserver")
    ) as pool:
        yield from pool.map(check, files, chunksize=16)


def _opened(data: bytes, min_side: int, max_pixels: int) -> Image.Image:
    """Read the header alone and refuse what it announces, before any pixel is decoded."""
    try:
        image = open_image(data, FORMATS, min_side=min_side, max_pixels=max_pixels)
    except images.UnfitImage as unfit:
        raise _as_fault(unfit) from None
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnfitImage(
            FaultKind.BROKEN_IMAGE,
            f"holds {getattr(image, 'n_frames', 1)} pictures; split it into single images",
        )
    return image


def _as_fault(unfit: images.UnfitImage) -> UnfitImage:
    return UnfitImage(FAULT_KINDS.get(unfit.fault, FaultKind.BROKEN_IMAGE), unfit.what)


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB, or grey where it has no colour; its EXIF travels along for ``exif_transpose``."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535 or image.mode == "F":
            raise UnfitImage(
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
    bare = image.copy()
    bare.info = {}  # no tag of the old file may turn or tint the new one
    bare.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def fault_of(unfit: UnfitImage, where: str) -> Fault:
    """The finding about an image as a fault of the data set that names it."""
    return Fault(unfit.kind, where, unfit.what)
