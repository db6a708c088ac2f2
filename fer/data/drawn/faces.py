"""One drawn face: what :mod:`fer.data.drawn.anatomy` shapes, painted from back to front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fer.data.drawn import anatomy
from fer.data.drawn.anatomy import ACROSS, MIRROR, band, curve
from fer.data.drawn.people import Colour, Style, pick, sample_person, sample_units

SIDES = (MIRROR, np.array([1.0, 1.0]))
"""Factors that take the right side of a face to the left one and to itself."""
SUBPIXEL_BITS = 4
HEAD_DEPTH = 0.9
"""Distance of the point between the eyes from the axis of the head, in face units."""
HAIR_OUTER = np.array(
    [
        *[(-1.05, 0.1), (-1.09, -0.4), (-0.98, -0.9), (-0.55, -1.3), (0, -1.43)],
        *[(0.55, -1.3), (0.98, -0.9), (1.09, -0.4), (1.05, 0.1)],
    ]
)
HAIRLINES = {  # heights relative to the person's hairline at x = -0.86 … 0.86
    "straight": (0.22, 0.04, 0.0, 0.0, 0.0, 0.04, 0.22),
    "parted": (0.2, 0.14, 0.1, 0.02, -0.1, -0.02, 0.2),
    "fringe": (0.22, 0.13, 0.14, 0.13, 0.14, 0.13, 0.22),
    "receding": (0.12, -0.16, -0.2, -0.08, -0.2, -0.16, 0.12),
}


@dataclass(frozen=True)
class Face:
    """A drawn face and what is known about it. Coordinates are pixels of the image."""

    image: np.ndarray
    """``(H, W)`` uint8 in a gray style, ``(H, W, 3)`` uint8 RGB in a colour style."""
    regions: dict[str, tuple[int, int, int, int]]
    """``brows``, ``eyes``, ``nose``, ``mouth`` → x1, y1, x2, y2 (x2 and y2 exclusive)."""
    landmarks: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose tip, left and right corner of the mouth; left is image left."""
    attributes: dict[str, int]
    """RAF-DB's codes: ``gender`` (always 2, unsure), ``race`` by skin tone, ``age``."""


def draw_face(emotion: str, style: Style, rng: np.random.Generator) -> Face:
    """Draw one face of a domain; the same state of ``rng`` draws the same face.

    >>> from fer.data.drawn.people import STYLE_A
    >>> draw_face("happy", STYLE_A, np.random.default_rng(0)).image.shape
    (48, 48)
    """
    painter = Painter(emotion, style, rng)
    person = painter.person
    painter.paint_background(pick(style.backgrounds, rng))
    painter.paint_behind()
    painter.paint_head()
    eyes, lids = painter.paint_eyes()
    nose_edge = painter.paint_nose()
    lips = painter.paint_mouth()
    brows = painter.paint_brows()
    painter.paint_hair()
    if person.glasses:
        painter.paint_glasses()
    points = {
        "brows": brows,
        "eyes": lids,
        "nose": np.concatenate([nose_edge, painter.place(np.array([(0.0, 0.1)]))]),
        "mouth": np.concatenate([lips[0], lips[-1]]),
    }
    scale = style.size / painter.side
    upper = lips[1]
    landmarks = np.stack([*eyes, nose_edge[len(nose_edge) // 2], upper[0], upper[-1]])
    landmarks = (landmarks + 0.5) * scale - 0.5
    return Face(
        image=finish(painter.image, style, rng),
        regions={name: box(pixels * scale, style.size) for name, pixels in points.items()},
        landmarks=tuple((float(x), float(y)) for x, y in landmarks),
        attributes={
            "gender": 2,
            "race": 0 if person.tone < 0.4 else 2 if person.tone < 0.65 else 1,
            "age": person.age,
        },
    )


class Painter:
    """A large image, whom it shows and how the head is turned on it.

    Methods whose name begins with ``paint_`` are called from back to front. They take turns at the
    random numbers: their order is part of what a seed draws.
    """

    def __init__(self, emotion: str, style: Style, rng: np.random.Generator) -> None:
        self.style, self.rng = style, rng
        self.person = sample_person(style, rng)
        self.au = sample_units(emotion, style, rng)
        self.side = round(style.size * style.oversampling)  # in pixels
        angles = np.clip(rng.normal(size=3), -2, 2)
        roll, yaw, pitch = angles * np.radians([style.roll, style.yaw, style.pitch])
        middle = (np.array([0.5, style.eye_line]) + rng.normal(0, style.offset, 2)) * self.side
        self.unit = rng.uniform(*style.unit) * self.side  # pixels per face unit
        self.image: np.ndarray = np.zeros((self.side, self.side, 3), np.uint8)
        self.rotation = np.array(
            [[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]]
        )
        self.turn = np.array([math.sin(yaw), -math.sin(pitch)])
        self.centre = middle - HEAD_DEPTH * self.unit * (self.turn @ self.rotation)

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Face units → pixels, for what a turn of the head does not move (outline, hair)."""
        return (points @ self.rotation) * self.unit + self.centre

    def place(self, points: np.ndarray, height: float = 0.0) -> np.ndarray:
        """Face units → pixels, for what lies on the front of the head, ``height`` above it.

        The head is a paraboloid: near the middle, a turn moves a point the most.
        """
        depth = HEAD_DEPTH + height - 0.4 * points[:, :1] ** 2 - 0.25 * points[:, 1:] ** 2
        return self.flat(points + depth * self.turn)

    def fill(
        self, pixels: np.ndarray, colour: np.ndarray | Colour, on: np.ndarray | None = None
    ) -> None:
        """Fill a polygon on the image, or ``on`` another."""
        image = self.image if on is None else on
        cv2.fillPoly(image, [fixed_point(pixels)], rgb(colour), cv2.LINE_AA, SUBPIXEL_BITS)

    def line(
        self,
        pixels: np.ndarray,
        colour: np.ndarray | Colour,
        width: float,
        *,
        closed: bool = False,
        on: np.ndarray | None = None,
    ) -> None:
        """Draw a line of ``width`` face units on the image, or ``on`` another."""
        image, thick = self.image if on is None else on, max(1, round(width * self.unit))
        points = [fixed_point(pixels)]
        cv2.polylines(image, points, closed, rgb(colour), thick, cv2.LINE_AA, SUBPIXEL_BITS)

    def disc(self, pixel: np.ndarray, colour: np.ndarray | Colour, radius: float) -> None:
        """Draw a disc of ``radius`` face units."""
        size = round(radius * self.unit * 2**SUBPIXEL_BITS)
        place = fixed_point(pixel).tolist()
        cv2.circle(self.image, place, size, rgb(colour), cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)

    def mask(self, pixels: np.ndarray) -> np.ndarray:
        """``(side, side)`` uint8, 255 within the polygon."""
        mask = np.zeros((self.side, self.side), np.uint8)
        self.fill(pixels, (255,) * 3, on=mask)
        return mask

    def paint_background(self, kind: str) -> None:
        """Fill the image: a smooth gradient, soft blobs, or a cluttered room."""
        rng, side = self.rng, self.side
        cells, spread = (2, 35) if kind == "gradient" else (5, 60)
        base = rng.uniform(50, 215) + rng.uniform(-35, 35, 3)
        coarse = np.clip(base + rng.uniform(-spread, spread, (cells, cells, 1)), 0, 255)
        coarse = np.clip(coarse + rng.uniform(-12, 12, (cells, cells, 3)), 0, 255).astype(np.uint8)
        self.image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
        for _ in range(int(rng.integers(2, 6)) if kind == "clutter" else 0):
            corner, extent = rng.uniform(-0.1, 0.9, 2) * side, rng.uniform(0.08, 0.5, 2) * side
            thing = corner + np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * extent
            self.fill(thing, base + rng.uniform(-70, 70))

    def paint_behind(self) -> None:
        """Shoulders, neck, ears, and the hair that falls behind them."""
        rng, person, hair = self.rng, self.person, 0.8 * self.person.hair_colour
        if person.hair == "long":
            reach, width = rng.uniform(1.2, 2.2), rng.uniform(1.12, 1.3)
            right = np.array([(0.6, -1.4), (1.12, -0.85), (width, 0), (width + 0.05, reach)])
            outline = np.concatenate([[(0, -1.5)], right, [(0, reach + 0.2)], right[::-1] * MIRROR])
            self.fill(self.flat(curve(outline, closed=True)), hair)
        for angle in np.linspace(-0.15, 1.15, 13) * math.pi if person.hair == "curly" else ():
            spot = np.array([-1.02 * math.cos(angle), -0.35 - 0.95 * math.sin(angle)])
            spot += rng.normal(0, 0.04, 2)
            self.disc(self.flat(spot), hair, rng.uniform(0.2, 0.32))
        neck = np.array([(-0.55, 0.6), (0.55, 0.6), (0.62, 2.6), (-0.62, 2.6)])
        self.fill(self.flat(neck), 0.72 * person.skin)
        cloth = np.array(
            [(-2.5, 2.1), (-0.75, 1.62), (0, 1.8), (0.75, 1.62), (2.5, 2.1), (2.5, 3), (-2.5, 3)]
        )
        self.fill(self.flat(cloth), person.cloth_colour)
        if person.hair != "long":
            ear = np.array([1.0, 0.14]) + circle(16) * (0.13, 0.24)
            for side in SIDES:
                self.fill(self.flat(ear * side), 0.88 * person.skin)

    def paint_head(self) -> None:
        """The head with its soft shading, folds and beard."""
        person, style = self.person, self.style
        outline = self.flat(anatomy.head_outline(person, self.au))
        self.fill(outline, person.skin)
        head = self.mask(outline)
        small = self.side // 4
        shade = self.light(small)
        spots = anatomy.relief(person, self.au)
        centres = self.place(spots[:, :2]) * (small / self.side)
        radii = spots[:, 2:4] * self.unit * (small / self.side)
        falloff_x, falloff_y = (
            np.exp(-(((np.arange(small) - centres[:, i : i + 1]) / radii[:, i : i + 1]) ** 2))
            for i in (0, 1)
        )
        shade += self.rng.uniform(*style.relief) * ((falloff_y.T * spots[:, 4]) @ falloff_x)
        lines = np.zeros_like(head)
        for points, depth in anatomy.folds(person, self.au):
            for side in SIDES[::-1]:
                self.line(self.place(curve(points) * side), (255 * depth,) * 3, 0.035, on=lines)
        lines = cv2.GaussianBlur(lines, (5, 5), 0)
        change = cv2.resize(shade.astype(np.float32), (self.side, self.side))
        change = change - lines * np.float32(style.line / 255)
        factor = 1 + change * (head * np.float32(1 / 255))
        self.image = cv2.multiply(self.image, cv2.merge([factor] * 3), dtype=cv2.CV_8U)
        if person.beard in ("full", "stubble"):
            self.paint_beard(head)
        if style.contour:
            self.line(outline, 0.35 * person.skin, style.contour, closed=True)

    def light(self, small: int) -> np.ndarray:
        """Change of brightness over an ellipsoid head lit from one side, ``(small, small)``."""
        strength = self.rng.uniform(*self.style.light)
        angle = self.rng.uniform(-0.9, 0.9) * math.pi / 2
        step = self.side / small
        pixels = np.stack(np.meshgrid(*[(np.arange(small) + 0.5) * step] * 2), -1)
        x, y = np.moveaxis((pixels - self.centre) @ self.rotation.T / self.unit, -1, 0)
        depth = np.sqrt(np.clip(1 - (x / 1.15) ** 2 - (y / 1.45) ** 2, 0, 1))
        return strength * (math.sin(angle) * x - math.cos(angle) * 0.5 * y) + 0.3 * (depth - 0.85)

    def paint_beard(self, head: np.ndarray) -> None:
        """A beard on the jaw and above the lips, which are painted over it later."""
        x, y = anatomy.mouth(self.person, self.au).upper[-1]
        below_nose = self.person.nose_y * self.person.length + 0.16
        right = np.array(
            [
                *[(0.14, below_nose), (x + 0.1, y - 0.02), (0.72, y - 0.12)],
                *[(0.93, 0.25), (1.2, 0.3), (1.0, 1.5)],
            ]
        )
        area = self.mask(self.place(band(right, right * MIRROR)))
        mask = cv2.blur(cv2.min(area, head), (7, 7))
        share = mask[..., None] * np.float32((0.7 if self.person.beard == "full" else 0.25) / 255)
        hair = self.person.beard_colour.astype(np.float32)
        self.image = (self.image + share * (hair - self.image)).astype(np.uint8)

    def paint_eyes(self) -> tuple[np.ndarray, np.ndarray]:
        """Both eyes. Returns the centres of left and right eye and the lids, in pixels."""
        person = self.person
        upper, lower = anatomy.eye_lids(person, self.au)
        gaze = self.rng.normal(0, 0.018, 2) * (1, 0.4)
        sclera = np.array([240, 236, 230]) - 25 * person.tone
        radius = person.iris * person.eye_size
        glint = 0.35 * radius * self.unit * np.array([-1.0, -1.0])
        centres, lids = [], []
        for side in SIDES:
            top, bottom = self.place(upper * side), self.place(lower * side)
            middle = np.array([person.eye_x, -0.012]) * side
            centre = self.place((middle + gaze)[None])[0]
            reach = radius * self.unit + 2
            around = np.concatenate([top, bottom, [centre - reach, centre + reach]])
            x1, y1 = np.clip(np.floor(around.min(0)).astype(int), 0, self.side)
            x2, y2 = np.clip(np.ceil(around.max(0)).astype(int) + 1, 0, self.side)
            eye = self.image[y1:y2, x1:x2]
            opening = self.mask(band(top, bottom))[y1:y2, x1:x2, None] * np.float32(1 / 255)
            skin = eye.copy()
            eye[:] = sclera
            self.disc(centre, 0.5 * np.array(person.iris_colour), radius)
            self.disc(centre, person.iris_colour, 0.8 * radius)
            self.disc(centre, (12, 10, 10), 0.45 * radius)
            self.disc(centre + glint, (255,) * 3, 0.2 * radius)
            eye[:] = skin + opening * (eye.astype(np.float32) - skin)
            crease = upper[2:-1] * (1, 1.15) - (0, 0.055)
            self.line(self.place(crease * side), 0.62 * person.skin, 0.02)
            self.line(bottom, 0.55 * person.skin, 0.022)
            self.line(top, np.minimum(0.3 * person.skin, (70, 50, 45)), 0.042 * person.lashes)
            centres.append(self.place(middle[None])[0])
            lids += [top, bottom]
        return np.stack(centres), np.concatenate(lids)

    def paint_nose(self) -> np.ndarray:
        """Tip, wings and nostrils. Returns the edge in pixels; its middle point is the tip."""
        skin = self.person.skin
        edge, nostril = anatomy.nose(self.person, self.au)
        hole = nostril + np.array([(-0.05, 0.0), (0.0, -0.018), (0.05, 0.005)])
        for side in SIDES:
            self.line(self.place(hole * side, 0.15), 0.3 * skin, 0.04)
        pixels = self.place(edge, 0.15)
        self.line(pixels, (0.45 if self.style.contour else 0.62) * skin, 0.022)
        return pixels

    def paint_mouth(self) -> list[np.ndarray]:
        """Lips, and what shows between them. Returns top, upper, lower and bottom in pixels."""
        person, au, place = self.person, self.au, self.place
        edges = anatomy.mouth(person, au)
        top, upper, lower, bottom = pixels = [
            place(edge) for edge in (edges.top, edges.upper, edges.lower, edges.bottom)
        ]
        dark = np.minimum(0.32 * person.lip_colour, (80, 30, 30))
        self.fill(band(top, upper), 0.85 * person.lip_colour)
        self.fill(band(lower, bottom), person.lip_colour)
        if edges.gap > 0.05:
            self.fill(band(upper, lower), (52, 14, 16))
            above, below = edges.upper[1:-1], edges.lower[1:-1]
            height = below - above
            if edges.gap > 0.2:  # the tongue
                self.fill(band(place(below - height * (0, 0.4)), lower[1:-1]), (178, 84, 84))
            # A stretched or smiling mouth bares the teeth; a hanging jaw hides them.
            bared = 0.13 * (0.15 + max(au[12], au[20], au[9], au[23]))
            teeth = above + np.minimum(height * (0, 0.85), (0, bared))
            self.fill(band(upper[1:-1], place(teeth)), (238, 234, 224))
            if au[20] > 0.4:
                teeth = below - np.minimum(height * (0, 0.4), (0, 0.07 * au[20]))
                self.fill(band(place(teeth), lower[1:-1]), (216, 210, 200))
            self.line(upper, dark, 0.022)
            self.line(lower, dark, 0.022)
        else:
            self.line((upper + lower) / 2, dark, 0.038)
        if person.beard in ("full", "moustache"):
            lift = 0.01 + 0.085 * (1 - ACROSS**2)
            ridge = edges.top - np.stack([np.zeros_like(lift), lift], 1)
            whiskers = band(ridge, edges.top) - (0, 0.025)
            whiskers[:, 0] *= 0.85 * min(1.0, 0.36 / edges.top[-1, 0])
            self.fill(place(whiskers), 0.65 * person.beard_colour + 0.35 * person.skin)
        return pixels

    def paint_brows(self) -> np.ndarray:
        """Both brows. Returns their points in pixels."""
        right = anatomy.brow(self.person, self.au)
        brows = [self.place(right * side) for side in SIDES]
        for pixels in brows:
            self.fill(pixels, self.person.brow_colour)
        return np.concatenate(brows)

    def paint_hair(self) -> None:
        """Hair or a hat on top of the head; it ends above the highest brow."""
        rng, person, style = self.rng, self.person, self.person.hair
        side = rng.choice((-1, 1))
        kind = {"buzz": "receding", "short": "straight", "parted": "parted"}.get(style)
        if kind is None:
            kind = ("straight", "fringe", "parted")[int(rng.integers(3))]
        if style == "bald":
            return
        heights = np.array(HAIRLINES[kind]) + person.hairline
        hairline = np.stack([np.linspace(-0.86, 0.86, 7), heights], 1)[1:-1]
        ends = np.array([(0.97, 0.9 if style == "long" else 0.1), (0.95, -0.25)])
        hairline = np.concatenate([ends * MIRROR, hairline, ends[::-1]])
        hairline = self.flat(curve(hairline * (side, 1)) + 0.35 * self.turn)
        outer = HAIR_OUTER * (0.96 if style == "buzz" else rng.uniform(0.99, 1.06))
        if style == "long":
            outer = np.concatenate([[(-1.1, 0.9)], outer[1:-1], [(1.1, 0.9)]])
        outer = self.flat(curve(outer * (side, 1)))
        colour = person.hair_colour
        if style == "buzz":
            colour = 0.6 * colour + 0.4 * person.skin
        if style == "hat":
            colour = np.array(person.cloth_colour)
        self.fill(band(outer, hairline), colour)
        for share in rng.uniform(0.15, 0.85, 4):
            strand = outer + (hairline - outer) * share
            self.line(strand, colour * rng.uniform(0.8, 1.18), 0.03)
        for point in outer[4:-4:3] if style == "curly" else ():
            spot = point + rng.normal(0, 0.05, 2) * self.unit
            self.disc(spot, colour * rng.uniform(0.85, 1.1), rng.uniform(0.14, 0.22))

    def paint_glasses(self) -> None:
        """Thin rims around the eyes."""
        colour = ((30, 28, 30), (96, 62, 40), (120, 120, 126))[int(self.rng.integers(3))]
        outline = circle(24)
        outline = np.sign(outline) * np.abs(outline) ** self.rng.uniform(0.55, 1.0)
        centre = np.array([self.person.eye_x + 0.01, 0.03])
        radii = np.array([0.31, 0.235 + 0.05 * (self.person.eye_size > 1.2)])
        inner, outer = centre - radii * (1, 0.15), centre + radii * (1, -0.15)
        for side in SIDES:
            self.line(
                self.place((centre + outline * radii) * side, 0.1), colour, 0.035, closed=True
            )
            temple = np.stack([outer, (1.03, -0.05)]) * side
            self.line(np.stack([self.place(temple, 0.1)[0], self.flat(temple)[1]]), colour, 0.03)
        self.line(self.place(np.stack([inner, inner * MIRROR]), 0.1), colour, 0.035)


def circle(points: int) -> np.ndarray:
    """Points of the unit circle, ``(points, 2)``."""
    angles = np.linspace(0, 2 * math.pi, points, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Pixels as OpenCV takes parts of them."""
    return np.rint(pixels * 2**SUBPIXEL_BITS).astype(np.int32)


def rgb(colour: np.ndarray | Sequence[float]) -> tuple[float, ...]:
    """A colour within 0–255."""
    return tuple(float(min(255, max(0, value))) for value in colour)


def box(pixels: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around points, within the image, at least one pixel wide and high."""
    x1, y1 = np.clip(np.floor(pixels.min(0)), 0, size - 1).astype(int)
    x2, y2 = np.clip(np.ceil(pixels.max(0)), (x1 + 1, y1 + 1), size).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def finish(image: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Turn the canvas into the image: shrink it, light it, blur it, add grain."""
    if not style.colour:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = style.size
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.uniform() < style.watermark:  # a row of bars such as a line of small print
        y, x, width = int(rng.integers(size - 6, size - 2)), int(rng.integers(size // 2)), size // 2
        bars = rng.uniform(size=width) < 0.6
        small[y - 2 : y, x : x + width] += 35 * bars[: size - x]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.normal(0, 0.3 * style.light[1], 2).astype(np.float32)
    lit = 1 + slope[0] * ramp[:, None] + slope[1] * ramp
    if style.colour:
        warmth = rng.uniform(-0.02, 0.05)
        lit = lit[..., None] * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    # A camera exposes for what is in the middle: a dark or dull picture is corrected in part.
    middle = small[size // 4 : -size // 4, size // 4 : -size // 4]
    mean, deviation = float(middle.mean()), float(middle.std())
    spread = (42 / deviation) ** style.exposure
    small = (small - mean) * spread + mean * (128 / mean) ** style.exposure
    small = np.clip(small * (lit * np.float32(rng.uniform(*style.gain) / 255)), 0, 1)
    small **= np.float32(rng.uniform(*style.gamma))
    small = (small - 0.5) * np.float32(rng.uniform(*style.contrast)) + 0.5
    sigma = rng.uniform(*style.blur)
    if sigma > 0.2:
        small = cv2.GaussianBlur(small, (3, 3), sigma)
    grain = rng.standard_normal(small.shape, dtype=np.float32)
    small = 255 * small + grain * np.float32(rng.uniform(*style.noise))
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)
