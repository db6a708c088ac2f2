"""Decoding: every kind of picture becomes the same uint8 pixels that a viewer shows."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer.core.errors import DataError
from fer.data.images import BACKGROUND, TURNS, decode, suffixes

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA[0, :2] = 0, 255
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
DEEP[0, :3] = 0, 128, 65535
EIGHT_BIT_DEEP = (DEEP.astype(np.int64) + 128) // 257
"""What :data:`DEEP` is in 8 bits: a 257th, rounded."""


def encode(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)


def over_background(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha / 255 if levels.ndim == 2 else alpha[..., None] / 255
    return np.rint(levels * share + BACKGROUND * (1 - share))


def with_alpha(levels: np.ndarray) -> Image.Image:
    bands = [*Image.fromarray(levels).split(), Image.fromarray(ALPHA)]
    return Image.merge("LA" if levels.ndim == 2 else "RGBA", bands)


def mode_of(data: bytes) -> str:
    return Image.open(io.BytesIO(data)).mode


PALETTE = Image.fromarray(COLOUR).quantize(16)
PALETTE_COLOURS = np.asarray(PALETTE.convert("RGB"))
PALETTE_HOLES = np.asarray(PALETTE)[..., None] == 3
BITS = np.where(GRAY > 127, 255, 0).astype(np.uint8)
MODES = {
    "1": (encode(Image.fromarray(BITS).convert("1")), BITS),
    "L": (encode(GRAY), GRAY),
    "L, a level transparent": (
        encode(GRAY, transparency=int(GRAY[0, 0])),
        np.where(GRAY[0, 0] == GRAY, BACKGROUND, GRAY),
    ),
    "LA": (encode(with_alpha(GRAY)), over_background(GRAY, ALPHA)),
    "P": (encode(PALETTE), PALETTE_COLOURS),
    "P, a colour transparent": (
        encode(PALETTE, transparency=3),
        np.where(PALETTE_HOLES, BACKGROUND, PALETTE_COLOURS),
    ),
    "P, an alpha for each colour": (
        encode(PALETTE, transparency=bytes([255, 255, 255, 0] + [255] * 12)),
        np.where(PALETTE_HOLES, BACKGROUND, PALETTE_COLOURS),
    ),
    "GIF": (encode(PALETTE, "GIF"), PALETTE_COLOURS),
    "RGB": (encode(COLOUR), COLOUR),
    "RGB, a colour transparent": (
        encode(COLOUR, transparency=tuple(map(int, COLOUR[0, 0]))),
        np.where((COLOUR[0, 0] == COLOUR).all(-1, keepdims=True), BACKGROUND, COLOUR),
    ),
    "RGBA": (encode(with_alpha(COLOUR)), over_background(COLOUR, ALPHA)),
    "RGBA TIFF": (encode(with_alpha(COLOUR), "TIFF"), over_background(COLOUR, ALPHA)),
    "RGBA WebP": (
        encode(with_alpha(COLOUR), "WEBP", lossless=True, exact=True),
        over_background(COLOUR, ALPHA),
    ),
    "CMYK TIFF": (encode(Image.fromarray(COLOUR).convert("CMYK"), "TIFF"), COLOUR),
    "I;16 PNG": (encode(DEEP), EIGHT_BIT_DEEP),
    "I;16 PNG, a level transparent": (
        encode(DEEP, transparency=int(DEEP[2, 2])),
        np.where(DEEP[2, 2] == DEEP, BACKGROUND, EIGHT_BIT_DEEP),
    ),
    "I;16 TIFF": (encode(DEEP, "TIFF"), EIGHT_BIT_DEEP),
    "I;16B TIFF": (encode(DEEP.astype(">u2"), "TIFF"), EIGHT_BIT_DEEP),
    "I TIFF": (encode(DEEP.astype(np.int32), "TIFF"), EIGHT_BIT_DEEP),
    "F TIFF": (encode((GRAY / 255).astype(np.float32), "TIFF"), GRAY),
}


@pytest.mark.parametrize(("data", "expected"), MODES.values(), ids=MODES)
def test_every_mode_comes_out_as_it_looks(data: bytes, expected: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(data, "x")
        gray, colour = decode(data, "x", "L"), decode(data, "x", "RGB")
    assert image.dtype == gray.dtype == colour.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image - expected.astype(int)).max() <= (1 if "A" in mode_of(data) else 0)
    if expected.ndim == 2:
        np.testing.assert_array_equal(gray, image)
        np.testing.assert_array_equal(colour, as_rgb(image))
    else:
        np.testing.assert_array_equal(colour, image)
        np.testing.assert_array_equal(gray, np.asarray(Image.fromarray(image).convert("L")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_nothing_below_full_transparency_is_seen(mode: str) -> None:
    hidden = Image.fromarray(COLOUR).convert(mode)
    hidden.putalpha(0)
    image = decode(encode(hidden), "x", "RGB")
    assert (image == BACKGROUND).all()


def test_a_black_and_white_picture_with_transparent_black_shows_no_black() -> None:
    data = encode(Image.fromarray(BITS).convert("1"), transparency=0)
    np.testing.assert_array_equal(decode(data, "x"), np.where(BITS == 0, BACKGROUND, 255))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpeg_in_other_colour_spaces_keeps_its_colours(mode: str) -> None:
    """Adobe's CMYK files are stored inverted."""
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    data = encode(Image.fromarray(flat).convert(mode), "JPEG", quality=100)
    assert np.abs(decode(data, "x").astype(int) - flat).max() <= 4
    assert np.abs(decode(data, "x", "L").astype(int) - 124).max() <= 2


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (DEEP.astype(np.int32) + 1, r"whole gray levels from 0 to 65535, found 1 to 65536"),
        (DEEP.astype(np.int32) - 1, r"found -1 to 65534"),
        (GRAY.astype(np.float32), r"floating-point gray levels from 0 to 1, found .* to 2"),
        (np.full((4, 4), np.nan, np.float32), r"floating-point .* found nan"),
        (np.full((4, 4), -0.5, np.float32), r"floating-point .* found -0.5"),
    ],
)
def test_levels_of_an_unknown_range_are_refused_not_guessed(
    levels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=rf"face\.tif: expected .*{message}"):
        decode(encode(levels, "TIFF"), "face.tif")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int, form: str) -> None:
    """The upper left quarter alone is bright; the tag says where that corner was stored."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :12] = 255
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    undo = back.get(orientation, TURNS.get(orientation))
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(stored, form, exif=exif), "x")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 8


def test_orientation_turns_what_the_camera_stored() -> None:
    """Against the EXIF standard itself: 6 is stored with its top at the right-hand side."""
    stored = np.array([[1, 2], [3, 4], [5, 6]], np.uint8)
    expected = {
        1: [[1, 2], [3, 4], [5, 6]],
        2: [[2, 1], [4, 3], [6, 5]],
        3: [[6, 5], [4, 3], [2, 1]],
        4: [[5, 6], [3, 4], [1, 2]],
        5: [[1, 3, 5], [2, 4, 6]],
        6: [[5, 3, 1], [6, 4, 2]],
        7: [[6, 4, 2], [5, 3, 1]],
        8: [[2, 4, 6], [1, 3, 5]],
    }
    for orientation, levels in expected.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert decode(encode(stored, exif=exif), "x").tolist() == levels


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_frames_is_taken(form: str) -> None:
    first, second = (Image.new("L", (8, 8), level) for level in (255, 0))
    data = encode(first, form, save_all=True, append_images=[second])
    assert (decode(data, "x", "L") == 255).all()


def test_a_gray_palette_looks_the_same_in_gray() -> None:
    palette = Image.fromarray(GRAY).quantize(256)
    np.testing.assert_array_equal(
        decode(encode(palette), "x", "L"), np.asarray(palette.convert("L"))
    )
    assert decode(encode(palette), "x").ndim == 3


@settings(max_examples=300, deadline=None)
@given(
    which=st.sampled_from(sorted(MODES)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 10_000),
)
def test_damaged_bytes_give_an_image_or_a_clear_error(
    which: str, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(MODES[which][0])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, of odd metadata
            image = decode(bytes(data[: cut or None]), "x")
    except DataError as error:
        assert str(error).startswith("x: expected")
    else:
        assert image.dtype == np.uint8 and image.ndim in (2, 3)


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000", "PPM", "TGA", "PCX", "ICO", "QOI", "WEBP"])
def test_what_pillow_reads_is_read_under_every_suffix_that_it_knows(form: str) -> None:
    picture = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    assert abs(int(decode(encode(picture, form), "x", "L").mean()) - 90) <= 2
    own = {suffix for suffix, name in Image.registered_extensions().items() if name == form}
    assert own and own <= suffixes()


def test_a_file_that_another_program_would_run_is_no_picture() -> None:
    data = encode(Image.fromarray(COLOUR), "EPS")
    with pytest.raises(DataError, match="no known format"):
        decode(data, "face.jpg")
    assert suffixes().isdisjoint({".eps", ".pdf", ".h5", ".mpg", ".wmf"})


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "really.jpg"])
def test_heic_is_named_with_what_reads_it(name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: .*found HEIC.*pillow-heif.*convert it to JPEG"):
        decode(b"\0\0\0\x24ftypheic" + bytes(40), name)
