"""What was done to the pixels of some images, from how they differ from their originals.

Each kind of processing leaves its own trace in the five bands of an
:class:`~fer.data.audit.appearance.Appearance`: a blur weakens them the more the finer they are,
sharpening strengthens them so, noise adds to the finest, a local equalisation acts on all alike, a
change of contrast does not touch their ratios.

The numbers below were measured on FER2013. Encoding it anew as JPEG at quality 50 keeps 99 % of
the images within +-0.02 in detail and in contrast and within 0.5 gray levels of brightness; at
quality 90 within a third of that. A Gaussian blur of half a pixel weakens detail by 0.10, an
unsharp mask of 0.3 strengthens it by 0.11, contrast of 0.9 is -0.105 (natural logarithms).
tests/data/readers/test_real_data.py repeats such measurements on the real archive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer.data.audit.appearance import COARSE, DETAIL, FINE, FINEST, MEDIUM, Looks
from fer.data.audit.reference import Matching, Reference

DETAIL_LIMIT, DETAIL_STRONG, DETAIL_EXTREME = 0.02, 0.06, 0.12
"""Change of detail against coarse structure that compression does not explain: in many images of a
split, in some, and in a few of them."""
DETAIL_WITH_TONE = 0.15
"""The same where the tones changed too: clipping and rounding then touch the details."""
CONTRAST_LIMIT, CONTRAST_STRONG = 0.03, 0.10
CONTRAST_BY_DETAIL = 0.2
"""A strong filter changes the coarse structure by up to this share of what it does to details."""
BRIGHTNESS_LIMIT, BRIGHTNESS_STRONG = 2.0, 8.0
"""Gray levels."""
GRAIN_LIMITS = (-0.33, 0.45)
"""Change of the grain in flat parts, natural logarithm, of the median image."""
GRAIN_FLOOR = 0.3
FINEST_LIMIT = -0.15
"""Loss in the finest structures alone; JPEG at quality 50 has -0.11."""
FINEST_SPREAD = 0.15
"""From the 5th to the 95th percentile: a filter does the same to all images, compression and noise
act on each in another way."""
NOISE_RATIO = 4.0
"""Noise raises the finest structures so many times more than details; sharpening about twice."""
LOCAL_RATIO = 0.6
"""A local equalisation raises structures of 8 to 16 pixels by at least this share of details."""
FEW_LEVELS = 40
MOVED_BITS, MOVED_DETAIL = 9, 0.25
"""Median number of hash bits that differ in a picture that was moved (compression changes 1), and
a change of detail that would explain them otherwise."""
MOST, MANY, SOME, SHARE, TRACE = 0.5, 0.3, 0.1, 0.03, 0.004
"""Shares of the images that differ."""
FEW = 3
"""The smallest number of images that is named."""


@dataclass(frozen=True)
class Changes:
    """How N images differ from their originals; natural logarithms where nothing else is said."""

    contrast: np.ndarray
    """Of the coarse structure."""
    relative: np.ndarray
    """``(N, 5)``, of each band against the coarse one."""
    brightness: np.ndarray
    """Gray levels."""
    grain: np.ndarray
    levels: np.ndarray
    """``(N, 2)`` int: distinct gray levels in the image and in its original."""
    bits: np.ndarray
    """Of the hashes."""
    forms: dict[str, np.ndarray]
    """``mirrored`` and ``inverted``, ``(N,)`` bool."""

    @classmethod
    def of(
        cls, looks: Looks, reference: Reference, matching: Matching, chosen: np.ndarray
    ) -> Changes:
        """Of the images ``chosen`` (indices), all of them matched."""
        rows = matching.rows[chosen]
        bands = looks.bands[chosen] - reference.bands[rows].astype(np.float32)
        contrast = bands[:, COARSE]
        return cls(
            contrast,
            bands - contrast[:, None],
            looks.mean[chosen] - reference.mean[rows].astype(np.float64),
            np.log(
                (looks.grain[chosen] + GRAIN_FLOOR)
                / (reference.grain[rows].astype(np.float32) + GRAIN_FLOOR)
            ),
            np.stack([looks.levels[chosen], reference.levels[rows].astype(np.int64)], axis=1),
            matching.distance[chosen],
            {form: mask[chosen] for form, mask in matching.changed.items()},
        )

    @property
    def detail(self) -> np.ndarray:
        """``(N,)``, the change that smoothing and sharpening are read from."""
        return self.relative[:, DETAIL]

    def middle(self, band: int) -> float:
        """The median change of a band."""
        return float(np.median(self.relative[:, band]))


@dataclass(frozen=True)
class Trace:
    """One kind of processing."""

    kind: str
    mask: np.ndarray
    """``(N,)`` bool: the images that show it."""
    words: str
    """Completes «N images are …»."""


def find_traces(changes: Changes, *, resized: bool) -> list[Trace]:
    """Every kind of processing that shows in the images.

    Args:
        changes: of at least one image.
        resized: whether the images have another size: what that does to details is not named.
    """
    traces = []
    for form, words in (
        ("mirrored", "mirrored left to right."),
        ("inverted", "inverted: dark is bright and bright is dark."),
    ):
        if _at_least(changes.forms[form], TRACE):
            traces.append(Trace(form, changes.forms[form], words))
    coarser = find_posterised(changes)
    if coarser is not None:
        return [*traces, coarser]
    contrast, brightness = find_contrast(changes), find_brightness(changes)
    toned = any(trace is not None and trace.mask.mean() >= MOST for trace in (contrast, brightness))
    if not resized:
        compressed = None if toned else find_compressed(changes)
        moved = (
            None
            if compressed or (contrast and contrast.mask.mean() >= MOST)
            else find_moved(changes)
        )
        if moved is not None:
            return [*traces, moved]
        details: list[Trace | None] = [compressed or find_smoothed(changes, toned)]
        if details[0] is None or (
            not compressed and _at_least(changes.detail > DETAIL_STRONG, SOME)
        ):
            details.append(find_harder(changes, toned))
    else:
        details = [find_harder(changes, toned)]
    if any(trace is not None and trace.kind == "local contrast" for trace in details):
        contrast = None  # of the coarse structure: that it may be weaker would mislead here
    if contrast is not None and brightness is not None:
        # A change of contrast around middle gray moves the means both ways: that is no more news.
        one_way = abs(float(np.median(changes.brightness))) > 2 * BRIGHTNESS_LIMIT
        brightness = brightness if one_way else None
    return [*traces, *(t for t in (*details, contrast, brightness) if t is not None)]


def _at_least(mask: np.ndarray, share: float) -> bool:
    return bool(mask.sum() >= max(FEW, share * len(mask)))


def _spread(values: np.ndarray) -> float:
    low, high = np.percentile(values, [5, 95])
    return float(high - low)


def _beyond(values: np.ndarray, share: float) -> tuple[np.ndarray, bool]:
    """Images whose change is too large for compression, and whether there are enough of them.

    Args:
        values: changes of detail, in the direction that is asked for.
        share: of the images, beyond the lowest limit.
    """
    for limit, least in (
        (DETAIL_LIMIT, share),
        (DETAIL_STRONG, SHARE),
        (DETAIL_EXTREME, TRACE),
    ):
        mask = values > limit
        if _at_least(mask, least):
            return mask, True
    return mask, False


def find_posterised(changes: Changes) -> Trace | None:
    """Far fewer gray levels than the originals have."""
    mask = (changes.levels[:, 0] <= FEW_LEVELS) & (2 * changes.levels[:, 0] <= changes.levels[:, 1])
    if not _at_least(mask, MANY):
        return None
    typical = int(np.median(changes.levels[mask, 0]))
    return Trace("posterised", mask, f"posterised: typically {typical} gray levels are left.")


def find_contrast(changes: Changes) -> Trace | None:
    """The coarse structure is stronger or weaker."""
    allowed = CONTRAST_BY_DETAIL * abs(changes.middle(DETAIL))
    mask = np.abs(changes.contrast) > CONTRAST_LIMIT + allowed
    if not _at_least(mask, MOST):
        mask = np.abs(changes.contrast) > CONTRAST_STRONG + allowed
        if not _at_least(mask, SHARE):
            return None
    words = f"changed in contrast: {amount_of(changes.contrast[mask])} than in the originals."
    return Trace("contrast", mask, words)


def find_brightness(changes: Changes) -> Trace | None:
    """The mean is another one."""
    upright = ~changes.forms["inverted"]
    mask = (np.abs(changes.brightness) > BRIGHTNESS_LIMIT) & upright
    if not _at_least(mask, MOST):
        mask = (np.abs(changes.brightness) > BRIGHTNESS_STRONG) & upright
        if not _at_least(mask, SHARE):
            return None
    middle = float(np.median(changes.brightness[mask]))
    size = float(np.median(np.abs(changes.brightness[mask])))
    words = f"{'brighter' if middle > 0 else 'darker'} by {abs(middle):.0f}"
    if abs(middle) < size / 2:
        words = f"brighter or darker, typically by {size:.0f}"
    return Trace("brightness", mask, f"changed in brightness: {words} of 255 gray levels.")


def find_compressed(changes: Changes) -> Trace | None:
    """The finest structures are lost, in each image in another measure, and nothing else."""
    finest = changes.relative[:, FINEST]
    is_it = (
        changes.middle(FINEST) < FINEST_LIMIT
        and changes.middle(DETAIL) > -1.5 * DETAIL_LIMIT
        and abs(changes.middle(MEDIUM)) < 1.5 * DETAIL_LIMIT
        and _spread(finest) >= FINEST_SPREAD
    )
    if not is_it:
        return None
    words = f"strongly compressed: the finest structures are {amount_of(finest)}."
    return Trace("compressed", np.ones(len(finest), bool), words)


def find_moved(changes: Changes) -> Trace | None:
    """The same photograph, but its structures lie elsewhere."""
    softer, harder = changes.detail < -DETAIL_LIMIT, changes.detail > DETAIL_LIMIT
    middle = changes.middle(DETAIL)
    noisy = changes.middle(FINEST) > NOISE_RATIO * max(middle, DETAIL_LIMIT)
    if abs(middle) >= MOVED_DETAIL or noisy:
        return None
    both = _at_least(softer, SOME) and _at_least(harder, SOME)
    both = both and bool(np.median(changes.bits[softer | harder]) >= 2 * MOVED_BITS / 3)
    if not both and np.median(changes.bits) < MOVED_BITS:
        return None
    words = "recognisable, but shifted, turned, cropped, framed or drawn over."
    return Trace("moved or covered", softer | harder, words)


def find_smoothed(changes: Changes, toned: bool) -> Trace | None:
    """Details are weaker, or the finest structures or flat parts alone."""
    middle, finest = changes.middle(DETAIL), changes.relative[:, FINEST]
    mask, enough = _beyond(-changes.detail, MANY)
    if toned:
        # Shading weakens details against coarse structure too, but all of them alike.
        mask = changes.detail < -DETAIL_LIMIT
        enough = middle < -DETAIL_WITH_TONE and changes.middle(FINE) < 1.3 * middle
    if enough:
        words = f"smoothed: details are {amount_of(changes.detail[mask])} than in the originals."
        return Trace("smoothed", mask, words)
    if toned:
        return None
    if changes.middle(FINEST) < FINEST_LIMIT and _spread(finest) < FINEST_SPREAD:
        words = f"slightly smoothed: the finest structures are {amount_of(finest)}."
        return Trace("smoothed", finest < FINEST_LIMIT, words)
    if np.median(changes.grain) < GRAIN_LIMITS[0]:
        words = "smoothed in their flat parts, as denoising does it."
        return Trace("smoothed", changes.grain < GRAIN_LIMITS[0], words)
    return None


def find_harder(changes: Changes, toned: bool) -> Trace | None:
    """Sharpened, noisier, or raised in local contrast: told apart by where the energy came in."""
    mask, enough = _beyond(changes.detail, MOST)
    if toned:
        mask = changes.detail > DETAIL_LIMIT
        enough = changes.middle(DETAIL) > DETAIL_WITH_TONE
    if not enough:
        if not toned and np.median(changes.grain) > GRAIN_LIMITS[1]:
            noisier = changes.grain > GRAIN_LIMITS[1]
            return Trace("noise", noisier, "noisier than the originals.")
        return None
    detail = float(np.median(changes.detail[mask]))
    finest = changes.relative[mask, FINEST]
    if np.median(finest) > NOISE_RATIO * detail and _spread(finest) >= FINEST_SPREAD:
        return Trace("noise", mask, "noisier than the originals.")
    amount = amount_of(changes.detail[mask])
    if np.median(changes.relative[mask, MEDIUM]) > LOCAL_RATIO * detail:
        words = f"raised in local contrast (CLAHE, wide unsharp masks): details are {amount}."
        return Trace("local contrast", mask, words)
    words = f"sharpened: details are {amount} than in the originals."
    return Trace("sharpened", mask, words)


def amount_of(logarithms: np.ndarray) -> str:
    """A median change in words.

    >>> amount_of(np.array([-0.105, -0.105])), amount_of(np.log([1.3]))
    ('10 % weaker', '30 % stronger')
    """
    ratio = float(np.exp(np.median(logarithms)))
    return f"{abs(1 - ratio):.0%} {'weaker' if ratio < 1 else 'stronger'}".replace("%", " %")
