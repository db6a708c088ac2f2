"""Emotions of faces in images: the Python interface to a trained network.

Images are decoded, resized and predicted as in evaluation, so that the same image gets the same
probabilities here and in ``predictions.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import torch
from PIL import Image

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import read_json
from fer.core.hardware import Computing
from fer.data.detection import Box, Detector, FaceDetector, crop
from fer.data.images import decode, read_picture, to_input, to_pixels
from fer.evaluation.inference import for_inference, predict
from fer.evaluation.prediction import Prediction
from fer.evaluation.prediction_sets import make_sets, read_threshold
from fer.model.checkpoint import PRETRAINED, load_checkpoint

Array = np.ndarray | torch.Tensor
"""Array uint8 ``(H, W)`` or ``(H, W, C)``, C being 1 for gray, 3 for RGB, 4 for RGBA; several are
``(N, H, W, C)``. Tensor ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``, uint8 or float 0–1; several are
``(N, C, H, W)``."""
File = Path | str | bytes | BinaryIO | Image.Image
"""A path, a file's bytes, an open binary file or a Pillow image; transparency and 16 bits are
treated as in training."""
Several = list[Any] | tuple[Any, ...]
"""Any of these, of any sizes, also mixed."""


class Predictor:
    """Recognises emotions in images of one face each (call it) or in photographs (:meth:`find`).

    Args:
        checkpoint: path of a checkpoint, read as data: nothing in it is ever executed;
            ``"pretrained"`` for the package's own network; or a network that gives logits
            ``(N, 7)`` and has ``image_size`` and ``in_channels``.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        precision: ``auto``, ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        detector: finds the faces in a photograph; None for
            :class:`~fer.data.detection.FaceDetector`.
        margin: added around a face that was found, as a share of its box on each side. With 0 the
            default detector's boxes frame a face as FER2013 does: see :mod:`fer.data.detection`.
        sets: gives each face a set of emotions, too: the ``metrics.json`` of an evaluation of this
            network with ``prediction_sets``, or the threshold in it. None: no sets.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: a value that cannot work, or not on this machine.
        DataError: ``sets`` names a file without a threshold.

    Example::

        predictor = Predictor("outputs/…/checkpoints/best.ckpt")
        predictor("face.png").emotion                     # one cropped face
        for face in predictor.find("photograph.jpg"):     # a photograph
            print(face.box, face.emotion, face.confidence)
    """

    def __init__(
        self,
        checkpoint: Path | str | torch.nn.Module = PRETRAINED,
        accelerator: str = "auto",
        *,
        precision: str = "auto",
        detector: Detector | None = None,
        margin: float = 0.0,
        sets: float | Path | str | None = None,
    ) -> None:
        if not -0.5 < margin <= 2:
            raise ConfigError(
                f"margin: expected a share of the face's box, above -0.5 to 2, found {margin}."
            )
        self.computing = Computing.find(accelerator, precision)
        network = (
            checkpoint
            if isinstance(checkpoint, torch.nn.Module)
            else load_checkpoint(checkpoint).network
        )
        self.image_size = int(network.image_size)  # type: ignore[arg-type]
        self.in_channels = int(network.in_channels)  # type: ignore[arg-type]
        self.network = for_inference(network, self.computing.device)
        self.detector = detector or FaceDetector()
        self.margin = margin
        if isinstance(sets, str | Path):
            sets = read_threshold(read_json(Path(sets)), str(sets))
        if sets is not None and not 0 <= sets <= 1:
            raise ConfigError(f"sets: expected a threshold from 0 to 1, found {sets}.")
        self.threshold = sets

    @overload
    def __call__(self, images: File) -> Prediction: ...

    @overload
    def __call__(self, images: Several) -> list[Prediction]: ...

    @overload
    def __call__(self, images: Array) -> Any: ...

    def __call__(self, images: File | Array | Several) -> Any:
        """Recognise the emotion of one face in an image, or in each of several images.

        Returns:
            A :class:`Prediction`, or a list of them for several images.

        Raises:
            DataError: something is not such an image.
        """
        if is_one(images):
            return self._predict([self._input(read_pixels(images))])[0]
        # One after the other: only the small inputs are kept, not the pictures.
        inputs = [self._input(read_pixels(one, f"image {i}")) for i, one in enumerate(images)]  # type: ignore[arg-type]
        return self._predict(inputs)

    @overload
    def find(self, images: File) -> list[Prediction]: ...

    @overload
    def find(self, images: Several) -> list[list[Prediction]]: ...

    @overload
    def find(self, images: Array) -> Any: ...

    def find(self, images: File | Array | Several) -> Any:
        """Find the faces in a photograph, or in each of several photographs.

        Returns:
            A list of :class:`Prediction` with boxes, empty where there is no face; for several
            photographs a list of such lists.

        Raises:
            DataError: something is not an image.
            ConfigError: there is no detector (see :class:`fer.data.detection.FaceDetector`).
        """
        if is_one(images):
            return self._find(read_pixels(images))
        return [self._find(read_pixels(one, f"image {i}")) for i, one in enumerate(images)]  # type: ignore[arg-type]

    def _find(self, pixels: np.ndarray) -> list[Prediction]:
        boxes = self.detector(pixels)
        return self._predict([self._input(crop(pixels, box, self.margin)) for box in boxes], boxes)

    def _input(self, pixels: np.ndarray) -> np.ndarray:
        return to_input(pixels, self.image_size, self.in_channels)

    def _predict(
        self, inputs: Sequence[np.ndarray], boxes: Sequence[Box] | None = None
    ) -> list[Prediction]:
        """Predict images ``(size, size, C)`` uint8 at the network's input size."""
        if not inputs:
            return []
        places: Sequence[Box | None] = boxes or [None] * len(inputs)
        rows = predict(
            self.network,
            np.stack(inputs),
            device=self.computing.device,
            precision=self.computing.precision,
        )
        return [
            Prediction(
                labels.EMOTIONS[int(row.argmax())],
                dict(zip(labels.EMOTIONS, row.tolist(), strict=True)),
                box,
                self._set_of(row),
            )
            for row, box in zip(rows, places, strict=True)
        ]

    def _set_of(self, row: np.ndarray) -> tuple[str, ...] | None:
        """The prediction set of probabilities ``(7,)``, the most probable emotion first."""
        if self.threshold is None:
            return None
        size = int(make_sets(row[None], self.threshold).sum())  # it takes the most probable ones
        return tuple(labels.EMOTIONS[i] for i in np.argsort(-row, kind="stable")[:size])


def is_one(images: object) -> bool:
    """Tell whether ``images`` is a single image."""
    if isinstance(images, np.ndarray | torch.Tensor):
        return images.ndim < 4
    return not isinstance(images, list | tuple)


def read_pixels(image: object, name: str = "image") -> np.ndarray:
    """Read the pixels of one image (:data:`File` or :data:`Array`): ``(H, W)`` or ``(H, W, 3)``
    uint8.

    Raises:
        DataError: it is not such an image, or there is no file at that path; the message names it
            by its path, else by ``name``.
    """
    if isinstance(image, str | Path):
        return read_picture(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), name)
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise DataError(
                f"{name}: expected a file opened in binary mode, found one of "
                f"{type(content).__name__}. Open it with mode 'rb'."
            )
        return decode(content, str(getattr(image, "name", name)))
    if isinstance(image, Image.Image):
        try:
            return to_pixels(image, name)
        except OSError as error:  # Pillow decodes an opened file only here
            raise DataError(
                f"{name}: expected a picture that decodes, found one that does not: {error}."
            ) from error
    if isinstance(image, torch.Tensor):
        image = from_tensor(image, name)
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"{name}: expected a path, bytes, a Pillow image, an array or a tensor, found a "
            f"{type(image).__name__}."
        )
    if image.ndim == 3 and image.shape[2] == 4 and image.dtype == np.uint8 and image.size:
        return to_pixels(Image.fromarray(image), name)
    pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not fits or 0 in pixels.shape:
        raise DataError(
            f"{name}: expected an array (H, W) or (H, W, C) of uint8, 0–255, C being 1 for gray, 3 "
            f"for RGB or 4 for RGBA, found "
            f"{image.shape} of {image.dtype}. Several images are a list or (N, H, W, C)."
        )
    return pixels


def from_tensor(image: torch.Tensor, name: str) -> np.ndarray:
    """Turn a tensor ``(H, W)`` or ``(C, H, W)`` into an array ``(H, W)`` or ``(H, W, C)`` uint8.

    Raises:
        DataError: other dimensions or other values.
    """
    image = image.detach().cpu()
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] not in (1, 3)):
        raise DataError(
            f"{name}: expected a tensor (H, W), (1, H, W) or (3, H, W), found "
            f"{tuple(image.shape)}. Several images are a list or (N, C, H, W)."
        )
    if image.is_floating_point() and image.numel():
        low, high = float(image.min()), float(image.max())
        if not 0 <= low <= high <= 1:  # NaN is refused too
            raise DataError(
                f"{name}: expected a tensor of floats from 0 to 1, found {low:g} to {high:g}. Give "
                "it as it was before normalisation, which the network does itself, or as uint8."
            )
        image = (image.double() * 255).round().to(torch.uint8)
    return np.ascontiguousarray((image.permute(1, 2, 0) if image.ndim == 3 else image).numpy())
