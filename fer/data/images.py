"""One image at a time: decode, convert, resize. Everything is uint8, 0–255."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from fer.core.errors import DataError
from fer.core.files import open_data

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded (8,000 x 6,000 fits)."""
MAX_BYTES = 64 * 2**20
"""Largest file of a picture, packed or not."""
MAX_SIDE = 20_000
"""Longest side of a picture in pixels: a strip of one by fifty million shows no face."""
FOREIGN = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow does not decode itself; Ghostscript, asked for EPS, runs the file."""
HEIC = frozenset({".heic", ".heif", ".hif"})
"""Suffixes of telephones' pictures; Pillow reads them with the package pillow-heif."""
HEIC_STARTS = tuple(b"ftyp" + brand for brand in (b"hei", b"hev", b"mif1", b"msf1"))
"""Bytes of such a file behind the first four, whatever it is called (ISO/IEC 23008-12)."""
TURNS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that makes a picture upright, for each EXIF orientation that is not."""
ADDRESSES = ("http:/", "https:/", "http:\\", "https:\\")
"""Beginnings of a web address; a path has lost its second slash."""
BACKGROUND = 128
"""Gray level behind what is transparent: the middle, close to the mean of face datasets (129 in
FER2013), draws no outline as bright or dark as black or white would."""


@functools.cache
def formats() -> list[str]:
    """Every format that is decoded, as Pillow names them, the usual ones first."""
    Image.init()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    usual = ["JPEG", "PNG"]
    return usual + [name for name in Image.ID if name not in FOREIGN.union(usual)]


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of pictures, in lower case: all that Pillow reads, and :data:`HEIC`."""
    read = {*formats(), "MPO"}  # a JPEG with several pictures, which the JPEG reader opens
    return HEIC.union(
        suffix for suffix, name in Image.registered_extensions().items() if name in read
    )


def read_picture(path: Path) -> np.ndarray:
    """The pixels of a picture's file, as of :func:`decode`.

    Raises:
        DataError: it cannot be read, is no file, is larger than :data:`MAX_BYTES`, or does not
            decode.
    """
    try:
        with open_data(path, MAX_BYTES) as file:
            data = file.read()
    except OSError as error:
        if str(path).lower().startswith(ADDRESSES):
            raise DataError(
                f"{path}: expected an image file, found the address of one. Nothing is fetched "
                "from elsewhere here: download it first."
            ) from error
        raise DataError(
            f"{path}: expected an image file, found {error.strerror}. Correct or remove it."
        ) from error
    return decode(data, str(path))


def decode(data: bytes, name: str, mode: str | None = None) -> np.ndarray:
    """Decode an encoded image (JPEG, PNG, …), the first one if it holds several.

    Gray levels of 16 bits are scaled, not clipped (0–65535 to 0–255), and so are floats (0–1).
    What is transparent shows :data:`BACKGROUND`, never the colours hidden below.

    Args:
        data: the file's bytes.
        name: what to call it in an error message.
        mode: ``"L"`` for grayscale (ITU-R 601 luma), ``"RGB"``, or None for whichever the file
            is; a file with a palette is RGB, even if its colours are gray.

    Returns:
        ``(H, W)`` uint8 for ``"L"``, ``(H, W, 3)`` uint8 for ``"RGB"``, upright (the EXIF
        orientation is applied).

    Raises:
        DataError: the bytes are no image, are cut off, are larger than :data:`MAX_PIXELS` or
            :data:`MAX_SIDE`, or have levels outside the ranges above.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns about a decompression bomb up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                return to_pixels(image, name, mode)
    except DataError:
        raise
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,  # Pillow's PNG reader raises it for a broken chunk
        struct.error,  # its TIFF reader raises these two for a broken tag
        TypeError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        reason = (
            "no known format" if isinstance(error, UnidentifiedImageError) else str(error).strip()
        )
        if data.startswith(HEIC_STARTS, 4):
            raise DataError(
                f"{name}: expected an image (JPEG, PNG, …), found HEIC. Install what reads it (pip "
                "install pillow-heif), or convert it to JPEG or PNG."
            ) from error
        found = f"{len(data):,} bytes that do not decode ({reason})" if data else "an empty file"
        raise DataError(
            f"{name}: expected an image (JPEG, PNG, …), found {found}. "
            "Download the copy again, or remove this file from it."
        ) from error


def to_pixels(image: Image.Image, name: str, mode: str | None = None) -> np.ndarray:
    """The pixels of an opened picture; arguments and result are those of :func:`decode`.

    Raises:
        DataError: it is larger than :data:`MAX_PIXELS` or :data:`MAX_SIDE`, or has levels of an
            unknown range.
    """
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DataError(
            f"{name}: expected an image of at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} on a "
            f"side, found {width} x {height}. Remove it, or crop the face first."
        )
    upright = to_8_bit(turn_upright(image), name)
    own_mode = "L" if upright.mode in ("1", "L", "LA") else "RGB"
    if upright.has_transparency_data:
        upright = flatten(upright)
    return np.asarray(upright.convert(mode or own_mode))


def turn_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says that it is to be seen.

    Pillow's ``exif_transpose`` also writes the EXIF data anew, which fails for many a picture
    that some camera or program gave odd tags.
    """
    image.load()  # the TIFF reader turns the picture itself here, and then drops the tag
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """A gray image of more than 8 bits as one of 8; any other as it is.

    Raises:
        DataError: levels outside 0–65535 (whole numbers) or 0–1 (floats).
    """
    if not image.mode.startswith(("I", "F")):
        return image
    levels = np.asarray(image)
    low, high = levels.min(), levels.max()
    is_float = image.mode == "F"
    most = 1 if is_float else 65535
    if not 0 <= low <= high <= most:  # NaN is refused too
        raise DataError(
            f"{name}: expected {'floating-point' if is_float else 'whole'} gray levels from 0 to "
            f"{most}, found {low} to {high}. Scale them to that range, or save the image with 8 "
            "bits."
        )
    scaled = np.rint(levels * (255 / most)).astype(np.uint8)
    if "transparency" in image.info:  # the one level that a PNG declares transparent
        scaled[levels == image.info["transparency"]] = BACKGROUND
    return Image.fromarray(scaled)


def flatten(image: Image.Image) -> Image.Image:
    """An image with transparency as RGB, over :data:`BACKGROUND`."""
    above = image.convert("RGBA")
    behind = Image.new("RGBA", above.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
    return Image.alpha_composite(behind, above).convert("RGB")


def encode_png(image: np.ndarray, mark: str | None = None) -> bytes:
    """``(H, W)`` or ``(H, W, 3)`` uint8 to PNG bytes, without loss, and without metadata but for
    ``mark`` as the software that wrote it."""
    buffer = io.BytesIO()
    metadata = PngImagePlugin.PngInfo()
    if mark is not None:
        metadata.add_text("Software", mark)
    # Level 1 is about three times as fast as the default for files a few percent larger.
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1, pnginfo=metadata)
    return buffer.getvalue()


def to_input(image: np.ndarray, size: int, channels: int) -> np.ndarray:
    """An image of any size as the network's input.

    Bilinear with anti-aliasing, which is torchvision's default too; Pillow computes it in fixed
    point, so that every machine gives the same bytes.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8.
        size: side of the square input in pixels.
        channels: 1 (ITU-R 601 luma) or 3 (a gray image is repeated).

    Returns:
        ``(size, size, channels)`` uint8.
    """
    picture = Image.fromarray(image).convert("L" if channels == 1 else "RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(size, size, channels)
