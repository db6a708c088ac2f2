"""One image at a time: decode, convert, resize. Everything is uint8, 0–255."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer.errors import DataError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded (8,000 x 6,000 fits)."""


def decode(data: bytes, name: str, mode: str | None = None) -> np.ndarray:
    """Decode an encoded image (JPEG, PNG, …).

    Args:
        data: the file's bytes.
        name: what to call it in an error message.
        mode: ``"L"`` for grayscale (ITU-R 601 luma), ``"RGB"``, or None for whichever the file is.

    Returns:
        ``(H, W)`` uint8 for ``"L"``, ``(H, W, 3)`` uint8 for ``"RGB"``, upright (the EXIF
        orientation is applied).

    Raises:
        DataError: the bytes are no image, are cut off, or are larger than :data:`MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns about a decompression bomb up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(
                        f"{name}: expected an image of at most {MAX_PIXELS:,} pixels, found "
                        f"{width} x {height}. Remove it, or crop the face first."
                    )
                upright = ImageOps.exif_transpose(image)
                own_mode = "L" if upright.mode in ("1", "L", "LA") else "RGB"
                return np.asarray(upright.convert(mode or own_mode))
    except DataError:
        raise
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,  # Pillow's PNG reader raises it for a broken chunk
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        reason = (
            "no known format" if isinstance(error, UnidentifiedImageError) else str(error).strip()
        )
        found = f"{len(data):,} bytes that do not decode ({reason})" if data else "an empty file"
        raise DataError(
            f"{name}: expected an image (JPEG, PNG, …), found {found}. "
            "Download the copy again, or remove this file from it."
        ) from error


def encode_png(image: np.ndarray) -> bytes:
    """``(H, W)`` or ``(H, W, 3)`` uint8 to PNG bytes, without loss and without metadata."""
    buffer = io.BytesIO()
    # Level 1 is about three times as fast as the default for files a few percent larger.
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
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
