"""Cheaper albumentations transforms, where the original's cost shows in a training on two cores.

``benchmarks/augmentation.py`` compares them with the originals.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fer.data.augmentation import import_albumentations

import_albumentations()

import albumentations  # noqa: E402
import cv2  # noqa: E402

GRAYS = np.arange(256, dtype=np.float32)


class HorizontalFlip(albumentations.HorizontalFlip):
    """albumentations' HorizontalFlip, without its checks of the kind of image."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """Mirror an image ``(H, W, C)``."""
        return cv2.flip(img, 1).reshape(img.shape)


class Affine(albumentations.Affine):
    """albumentations' Affine, with the same pixels from the same random numbers.

    On small images the original spends most of its time on matrices for boxes and on checks for
    the identity.
    """

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Choose the transform, by random numbers in the original's order."""
        if self.fit_output:  # changes the image's size, which no policy here does
            return super().get_params_dependent_on_data(params, data)
        height, width = params["shape"][:2]
        translate = self._get_translate_params((height, width))
        shear = self._get_shear_params()
        scale = self._get_scale(self.scale, self.keep_ratio, self.balanced_scale, self.py_random)
        rotate = self.py_random.uniform(*self.rotate)
        angle = math.radians(rotate % 360)
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = cos * scale["x"], sin * scale["y"]
        c, d = -sin * scale["x"], cos * scale["y"]
        along_x, along_y = (math.tan(math.radians(shear[axis])) for axis in "xy")
        a, b, c, d = a + along_x * c, b + along_x * d, c + along_y * a, d + along_y * b
        x, y = (width - 1) / 2, (height - 1) / 2  # it turns and scales about the image's centre
        return {
            "rotate": rotate,
            "scale": scale,
            "matrix": np.array(
                [
                    [a, b, x + translate["x"] - a * x - b * y],
                    [c, d, y + translate["y"] - c * x - d * y],
                    [0.0, 0.0, 1.0],
                ]
            ),
            "output_shape": (height, width),
        }

    def apply(
        self, img: np.ndarray, matrix: np.ndarray, output_shape: tuple[int, int], **params: Any
    ) -> np.ndarray:
        """Move the pixels of an image ``(H, W, C)`` of up to four channels."""
        moved = cv2.warpAffine(
            img,
            matrix[:2],
            (output_shape[1], output_shape[0]),
            flags=self.interpolation,
            borderMode=self.border_mode,
            # One number is meant for every channel; OpenCV would take it for the first alone.
            borderValue=(
                [self.fill] * img.shape[2] if isinstance(self.fill, (int, float)) else self.fill
            ),
        )
        return moved.reshape(*output_shape, img.shape[2])  # OpenCV drops a single channel


class RandomBrightnessContrast(albumentations.RandomBrightnessContrast):
    """albumentations' RandomBrightnessContrast, with the same pixels from the same random numbers.

    The original spends half of its time on checks of the kind of numbers and images.
    """

    def apply(self, img: np.ndarray, alpha: float, beta: float, **params: Any) -> np.ndarray:
        """Look up each pixel of a uint8 image ``(H, W, C)``."""
        table = GRAYS * float(alpha)  # NumPy's own float64 would make the table one
        table += float(beta)
        np.minimum(np.maximum(table, 0, out=table), 255, out=table)
        return cv2.LUT(img, table.astype(np.uint8)).reshape(img.shape)


class CoarseDropout(albumentations.CoarseDropout):
    """albumentations' CoarseDropout, with the same distribution from other random numbers.

    The original spends most of its time on arrays of one number and on seeding a generator for the
    gray level. Sizes in pixels and fills other than ``random_uniform`` are left to it.
    """

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Choose size, place and gray level of each patch."""
        heights, widths = self.hole_height_range, self.hole_width_range
        if self.fill != "random_uniform" or max(heights[1], widths[1]) >= 1:
            return super().get_params_dependent_on_data(params, data)
        rng = self.py_random
        height, width, channels = params["shape"]
        patches = []
        for _ in range(rng.randint(*self.num_holes_range)):
            tall, wide = (
                int(height * rng.uniform(*heights)),
                int(width * rng.uniform(*widths)),
            )
            top, left = rng.randint(0, height - tall), rng.randint(0, width - wide)
            level = [rng.randint(0, 255) for _ in range(channels)]
            patches.append((slice(top, top + tall), slice(left, left + wide), level))
        return {"patches": patches}

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """Fill the patches of a uint8 image ``(H, W, C)``."""
        if "patches" not in params:
            return super().apply(img, **params)
        img = img.copy()
        for rows, columns, level in params["patches"]:
            img[rows, columns] = level
        return img


class GaussNoise(albumentations.GaussNoise):
    """albumentations' GaussNoise, with the same distribution from other random numbers.

    The original works in float64, from one of 65,536 seeds. Noise that pixels or channels share is
    left to it.
    """

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Make the noise of each pixel."""
        if self.noise_scale_factor != 1 or not self.per_channel:
            return super().get_params_dependent_on_data(params, data)
        rng = self.py_random
        std, mean = rng.uniform(*self.std_range), rng.uniform(*self.mean_range)
        height, width, channels = params["shape"]
        noise = np.empty((height, width * channels), np.float32)
        cv2.setRNGSeed(rng.getrandbits(31))
        cv2.randn(noise, 255 * mean, 255 * std)
        return {"noise_map": noise.reshape(height, width, channels)}

    def apply(self, img: np.ndarray, noise_map: np.ndarray, **params: Any) -> np.ndarray:
        """Add the noise, truncated to whole gray levels, to a uint8 image ``(H, W, C)``."""
        return cv2.add(img, noise_map.astype(np.int16), dtype=cv2.CV_8U).reshape(img.shape)
