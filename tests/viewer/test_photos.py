"""Uploaded photos: every format, every orientation, and every kind of damage."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from trashnet.errors import UserError
from viewer import photos
from viewer.photos import read_photo


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Left half red, right half blue."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste("blue", (width // 2, 0, width, height))
    return picture


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF"]
)
def test_common_formats_come_out_as_rgb(kind: str) -> None:
    """Every format gives uint8 pixels, red on the left and blue on the right."""
    image = read_photo(encoded(halves(64, 64), kind), "photo")
    assert image.dtype == np.uint8
    assert image.shape == (64, 64, 3)
    assert image[32, 8, 0] > 200
    assert image[32, 8, 2] < 60
    assert image[32, 56, 2] > 200
    assert image[32, 56, 0] < 60


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_kind_of_pixel_comes_out_as_rgb(mode: str) -> None:
    """Grey, palette, CMYK and sixteen bits give three channels of eight bits that use the whole range."""
    gradient = Image.linear_gradient("L")  # 256 × 256, black on top, white below
    picture = (
        Image.fromarray(np.asarray(gradient).astype(np.uint16) * 257)
        if mode == "I;16"
        else gradient.convert("RGB").convert(mode)
    )
    image = read_photo(encoded(picture, "TIFF"), "photo")
    assert image.shape == (256, 256, 3)
    assert image[:20].mean() < 30
    assert image[-20:].mean() > 225


def test_transparency_becomes_white() -> None:
    """A transparent pixel is white, not black."""
    picture = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert (read_photo(encoded(picture, "PNG"), "photo") == 255).all()


def test_sixteen_bits_keep_their_brightness() -> None:
    """65535 is white, half of it is middle grey: 32768 / 257 = 127.5; 65278 / 257 = 254."""
    picture = Image.fromarray(np.array([[0, 32768, 65278, 65535]], np.uint16))
    assert read_photo(encoded(picture, "PNG"), "photo")[0, :, 0].tolist() == [0, 128, 254, 255]


def test_a_photo_stored_sideways_is_turned_upright() -> None:
    """EXIF orientation 6, a telephone held upright: the left of the stored pixels is the top of the photo."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_photo(encoded(halves(), "JPEG", exif=exif, quality=95), "photo")
    assert image.shape == (60, 40, 3)
    assert image[5, 20, 0] > 200  # red on top
    assert image[55, 20, 2] > 200


def test_the_first_picture_of_an_animation_is_taken() -> None:
    """Of several frames the first is read."""
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    frames = encoded(red, "WEBP", lossless=True, save_all=True, append_images=[blue])
    assert read_photo(frames, "photo")[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7 no picture at all", "is not a picture"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 40, "is not a picture|is damaged"),
        (encoded(halves(600, 400), "JPEG")[:1500], "is damaged"),
        (encoded(halves(600, 400), "PNG")[:400], "is damaged"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
            "is not a picture",
        ),  # would start Ghostscript
    ],
)
def test_a_file_that_is_no_photo_is_refused_in_plain_words(data: bytes, words: str) -> None:
    """The message names the file and says what is wrong with it."""
    with pytest.raises(UserError, match=rf"lunch\.jpg ({words})"):
        read_photo(data, "lunch.jpg")


def test_a_file_too_large_is_refused_with_its_size_and_the_limit() -> None:
    """21 MB against 20."""
    with pytest.raises(UserError, match="photo is 21 MB; the limit is 20 MB"):
        read_photo(b"\0" * (21 * 2**20), "photo")


def test_a_photo_of_too_many_pixels_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file can unpack to gigabytes: 9000 × 9000 is 81 megapixels."""
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(UserError, match="9000 × 9000 pixels, 81 megapixels; the limit is 50"):
        read_photo(BLANK_81_MEGAPIXELS, "photo")


BLANK_81_MEGAPIXELS = encoded(Image.new("1", (9000, 9000)), "PNG")


def test_a_decompression_bomb_is_refused_in_plain_words() -> None:
    """Pillow itself refuses more than 179 megapixels; its error becomes a plain message."""
    bomb = encoded(Image.new("1", (20000, 10000)), "PNG")
    with pytest.raises(UserError, match="unpacks to far more than 50 megapixels"):
        read_photo(bomb, "photo")


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS", "QOI"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_never_raises_anything_but_a_user_error(kind: str) -> None:
    """Each of 150 files with changed or missing bytes is either read or refused with a UserError."""
    if kind not in Image.SAVE:
        Image.init()
    intact = encoded(halves(64, 64), kind)
    rng = random.Random(kind)
    for _ in range(150):
        data = bytearray(intact)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        if rng.random() < 0.4:
            del data[rng.randrange(1, len(data)) :]
        try:
            image = read_photo(bytes(data), "photo")
        except UserError:
            continue
        assert image.ndim == 3
        assert image.shape[0] * image.shape[1] <= photos.MAX_PIXELS
