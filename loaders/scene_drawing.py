"""A scene of the procedural world and how it is drawn: outlines, textures, backgrounds, masks.

Coordinates are fractions of the picture's side, y down; sizes are radii. ``world`` decides what
stands where; this file paints it and knows which pixels are whose.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (40, 150, 50),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 40),
    "purple": (125, 45, 160),
    "orange": (245, 135, 25),
    "pink": (250, 140, 185),
    "cyan": (50, 205, 215),
    "brown": (115, 70, 35),
    "navy": (20, 25, 90),
    "olive": (120, 120, 30),
    "lime": (165, 235, 60),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grey": (135, 135, 135),
    "white": (235, 235, 235),
    "black": (28, 28, 28),
    "beige": (215, 200, 170),
}

_SHIFT = 4  # OpenCV's fixed point: outlines are placed to 1/16 px
# The texture's second tone is a darker version of the first, so that the colour keeps its name.
_DARKER = 0.65


def _ring_of_points(n: int, radii: tuple[float, ...] = (1.0,), start: float = -0.5) -> np.ndarray:
    """Return n points around the origin, taking the radii in turn; ``start`` in half turns."""
    angle = np.pi * (start + 2 * np.arange(n) / n)
    radius = np.resize(np.array(radii), n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16, -(y + 2) / 15.5], 1)


def _crescent(bite: float = 0.8, away: float = 0.5) -> np.ndarray:
    """Return the unit circle less a circle of radius ``bite`` whose middle is ``away`` from its."""
    tip = (1 - bite**2 + away**2) / (2 * away)
    outer, inner = np.arccos(tip), np.arccos((tip - away) / bite)
    there = np.linspace(outer, 2 * np.pi - outer, 30)
    back = np.linspace(2 * np.pi - inner, inner, 30)
    a = np.stack([np.cos(there), np.sin(there)], 1)
    b = np.stack([away + bite * np.cos(back), bite * np.sin(back)], 1)
    return np.concatenate([a, b]) + np.array([0.15, 0.0])


def _cross(arm: float = 0.34) -> np.ndarray:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return np.concatenate(turned)


def _arrow() -> np.ndarray:
    return np.array(
        [(-1, -0.28), (0.05, -0.28), (0.05, -0.85), (1, 0), (0.05, 0.85), (0.05, 0.28), (-1, 0.28)]
    )


@lru_cache
def _unit_outlines() -> dict[str, tuple[np.ndarray, ...]]:
    """Return each shape as closed polygons inside the unit circle or a little beyond it."""
    circle = _ring_of_points(48)
    return {
        "circle": (circle,),
        "square": (0.86 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),),
        "triangle": (1.1 * _ring_of_points(3) + [0, 0.18],),
        "star": (1.1 * _ring_of_points(10, (1.0, 0.42)),),
        "cross": (_cross(),),
        "ring": (circle, 0.52 * circle),
        "heart": (_heart(),),
        "crescent": (_crescent(),),
        "diamond": (np.array([(0, -1.1), (0.62, 0), (0, 1.1), (-0.62, 0)]),),
        "arrow": (_arrow(),),
        "hexagon": (_ring_of_points(6, start=0.0),),
        "bolt": (
            np.array(
                [(0.1, -1.1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1.1), (0.6, -0.3), (0.1, -0.3)]
            ),
        ),
    }


SHAPES: tuple[str, ...] = tuple(_unit_outlines())


def _outline(
    shape: str, centre: tuple[float, float], radius: float, turn: float
) -> list[np.ndarray]:
    """Return the polygons of a shape, each float64 [points, 2]; ``turn`` is in radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([(cos, sin), (-sin, cos)])
    return [radius * (polygon @ rotation) + centre for polygon in _unit_outlines()[shape]]


def _coverage(polygons: list[np.ndarray], px: int) -> np.ndarray:
    """Return how much of each pixel the shape covers: uint8 [px, px], 255 is all of it.

    Polygons inside one another alternate between filled and empty.
    """
    covered = np.zeros((px, px), np.uint8)
    # OpenCV counts from the middle of a pixel, fractions of the side from its edge.
    points = [np.round((p * px - 0.5) * 2**_SHIFT).astype(np.int32) for p in polygons]
    return cv2.fillPoly(covered, points, 255, lineType=cv2.LINE_AA, shift=_SHIFT)


@lru_cache(maxsize=512)
def _texture(name: str, cell: int) -> np.ndarray:
    """Return the brightness of a texture, float32 [12 cells, 12 cells, 1], 1 or the darker tone.

    No shape is more than 9 cells long.
    """
    y, x = np.mgrid[0 : 12 * cell, 0 : 12 * cell]
    if name == "striped":
        dark = (x + y) % (2 * cell) < cell
    elif name == "checked":
        dark = (x // cell + y // cell) % 2 == 0
    elif name == "dotted":
        dark = (x % (2 * cell) - cell) ** 2 + (y % (2 * cell) - cell) ** 2 < (0.62 * cell) ** 2
    else:
        dark = np.zeros_like(x, bool)
    return np.where(dark, np.float32(_DARKER), np.float32(1))[:, :, None]


def _paint(
    canvas: np.ndarray, polygons: list[np.ndarray], colour: np.ndarray, texture: str, radius: float
) -> None:
    """Paint a textured shape into ``canvas``, float32 [px, px, 3], in place."""
    px = len(canvas)
    covered = _coverage(polygons, px)
    x, y, w, h = cv2.boundingRect(covered)
    here = np.s_[y : y + h, x : x + w]
    alpha = covered[here][:, :, None].astype(np.float32) / 255
    tone = _texture(texture, max(2, round(0.28 * radius * px)))[:h, :w]
    canvas[here] += alpha * (colour * tone - canvas[here])


def _background(colour: np.ndarray, noise: np.ndarray, px: int) -> np.ndarray:
    """Return a softly clouded ground, float32 [px, px, 3].

    ``noise`` [k, k, 3] is what is added to the colour at a coarse grid. It makes every picture's
    low frequencies its own: without it perceptual hashes take two scenes for one.
    """
    # Cubic to a few pixels, then linear: looks the same and costs a fifth.
    soft = cv2.resize(noise.astype(np.float32), (24, 24), interpolation=cv2.INTER_CUBIC)
    soft += colour.astype(np.float32)
    return cv2.resize(soft, (px, px), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Thing:
    """One object: where it stands (fractions of the side, y down) and how it looks."""

    shape: str
    colour: str
    texture: str
    centre: tuple[float, float]
    radius: float
    turn: float

    @property
    def outline(self) -> list[np.ndarray]:
        """The polygons that bound it, in fractions of the side."""
        return _outline(self.shape, self.centre, self.radius, self.turn)


@dataclass(frozen=True)
class Scene:
    """A main object, its companions (all of one kind) and a background."""

    main: Thing
    companions: tuple[Thing, ...]
    size: str
    relation: str  # of the main object to its companions; "alone" without any
    background: str
    said: frozenset[str]  # what the caption tells beyond colour and shape
    opening: str
    tint: tuple[int, int]  # seeds colour jitter and background

    @property
    def labels(self) -> dict[str, str]:
        """The classes of the scene by task; count is that of the companions."""
        return {
            "colour": self.main.colour,
            "shape": self.main.shape,
            "colour_shape": f"{self.main.colour} {self.main.shape}",
            "texture": self.main.texture,
            "size": self.size,
            "count": str(len(self.companions)),
            "relation": self.relation,
            "background": self.background,
        }


def picture(scene: Scene, px: int = 256, without: Collection[int] = ()) -> np.ndarray:
    """Draw a scene: uint8 [px, px, 3], RGB.

    Things in ``without`` (0 is the main object, companions follow) are left out; all else is drawn
    as if they were there.
    """
    rng = np.random.default_rng([*scene.tint, 2])
    tones = rng.normal(0, 9, (6, 6, 1)) + rng.normal(0, 4, (6, 6, 3)) + rng.normal(0, 6, 3)
    canvas = _background(np.array(BACKGROUNDS[scene.background]), tones, px)
    for place, thing in enumerate((scene.main, *scene.companions)):
        colour = (np.array(COLOURS[thing.colour]) + rng.normal(0, 6, 3)).astype(np.float32)
        if place not in without:
            _paint(canvas, thing.outline, colour, thing.texture, thing.radius)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def boxes(scene: Scene, px: int) -> np.ndarray:
    """Return left, top, right, bottom in pixels, float32 [things, 4], the main object first."""
    corners = []
    for thing in (scene.main, *scene.companions):
        points = np.concatenate(thing.outline) * px
        corners.append([*points.min(0), *points.max(0)])
    return np.array(corners, np.float32)


def masks(scene: Scene, px: int) -> np.ndarray:
    """Return the pixels of each thing, bool [things, px, px], the main object first."""
    things = (scene.main, *scene.companions)
    return np.stack([_coverage(thing.outline, px) >= 128 for thing in things])
