"""Drawing of clips with simple things that move over a floor, with numpy alone: outlines, patterns, courses, noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COLOURS = {
    "red": (222, 40, 40),
    "blue": (50, 95, 235),
    "yellow": (238, 216, 48),
    "green": (40, 175, 65),
    "purple": (165, 60, 205),
    "white": (236, 236, 236),
    "orange": (242, 138, 28),
    "turquoise": (45, 205, 205),
    "pink": (246, 130, 185),
}
FLOORS = {
    "grey": (88, 88, 88),
    "brown": (98, 74, 54),
    "green": (52, 84, 58),
    "navy": (46, 56, 92),
    "wine": (88, 48, 62),
}
SHAPES = ("ball", "box", "triangle", "ring", "cross", "diamond")
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = {"small": 0.75, "": 1.0, "big": 1.3}
FRAME_COUNTS = (16, 32)  # the fewest and the most frames of a clip, both included


@dataclass(frozen=True)
class Level:
    """How hard a task is made. Lengths are fractions of the picture's side."""

    num_distractors: int = 0
    """order: still things beside the event. relation: movers that do not match; odd, so that both ways are even."""
    radius: float = 0.12
    """Of a thing of middle size, from its centre to its edge."""
    noise: int = 6
    """Grey levels by which the brightness of each pixel of each frame errs at most."""
    shake: float = 0.0
    """How far the camera jumps at most between frames, along each side."""
    plain: bool = False
    """Things of one clip differ in nothing but what ``match`` names, and the floor is even."""
    match: str = "colour"
    """relation: what cue and mover share: colour, shape or texture."""
    num_kinds: int = 2
    """relation: how many colours (or shapes, or textures) the things of the whole set are drawn from."""
    common: float = 0.0
    """relation: share of the clips whose things are of the first two kinds; the others draw from all of them."""
    cue_distance: float = 0.0
    """relation: 0 puts the cue into the middle, between the movers; 1 into a corner."""
    cue_framed: bool = False
    """relation: a white frame marks the cue, so that one look at a frame tells cue from movers."""


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    texture: str
    size: str = ""

    def words(self) -> str:
        texture = "" if self.texture == "plain" else self.texture
        words = " ".join(word for word in (self.size, self.colour, texture, self.shape) if word)
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


KINDS: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES, "texture": TEXTURES}


class Course(NamedTuple):
    """Where a thing is, frame by frame: each field is (t,) or one number; x and y in 0..1, x to the right, y down."""

    x: np.ndarray | float
    y: np.ndarray | float
    radius: np.ndarray | float
    angle: np.ndarray | float = 0.0


class Stage:
    """The random choices of one clip, and the things on it from back to front."""

    def __init__(self, rng: np.random.Generator, level: Level, num_frames: int) -> None:
        self.rng, self.level, self.num_frames = rng, level, num_frames
        self.floor = str(rng.choice(list(FLOORS)))
        self.floor_pattern = "" if level.plain else str(rng.choice(["", "striped", "shaded"]))
        self.floor_angle, self.floor_pitch = rng.uniform(0, np.pi), rng.uniform(14, 26)
        self.shake_yx = rng.uniform(-level.shake, level.shake, (2, num_frames))
        self.noise_seed = int(rng.integers(2**32))
        self.played: list[tuple[Thing, Course]] = []
        self._looks: dict[str, str] = {}
        wait, rest = rng.uniform(0, 0.12, 2)  # parts of the clip before the event begins and after it ends
        moment = (np.linspace(0, 1, num_frames) - wait) / (1 - wait - rest)
        ease = rng.uniform(-0.5, 0.5)
        moment = np.clip(moment, 0, 1)
        self.progress = moment + ease * np.sin(2 * np.pi * moment) / (2 * np.pi)  # (t,), from 0 to 1

    def dress(self, floor: str, floor_pattern: str, **looks: str) -> None:
        """Say what the floor is like, and what ``looks`` the first thing has, instead of drawing it."""
        self.floor, self.floor_pattern, self._looks = floor, floor_pattern, looks

    def thing(self, **fixed: str) -> Thing:
        """A thing drawn at random but for what is ``fixed``."""
        fixed, self._looks = {**self._looks, **fixed}, {}
        drawn = {
            "colour": str(self.rng.choice(list(COLOURS))),
            "shape": str(self.rng.choice(SHAPES)),
            "texture": str(self.rng.choice(TEXTURES)),
            "size": str(self.rng.choice(list(SIZES))),
        }
        return Thing(**{**drawn, **fixed})

    def radius(self, thing: Thing) -> float:
        return self.level.radius * SIZES[thing.size] * self.rng.uniform(0.92, 1.08)

    def put(self, thing: Thing, course: Course) -> None:
        self.played.append((thing, course))

    def along(self, start: float, stop: float) -> np.ndarray:
        """(t,) from ``start`` to ``stop`` as the event goes on."""
        return start + (stop - start) * self.progress

    def floor_words(self) -> str:
        return " ".join(word for word in ("a", self.floor, self.floor_pattern, "floor") if word)

    def draw(self, size_px: int) -> np.ndarray:
        """The frames in order, uint8 (t, size_px, size_px, 3)."""
        dy, dx = self.shake_yx * size_px
        frames = np.empty((self.num_frames, size_px, size_px, 3), np.float32)
        frames[...] = self._floor_pixels(size_px)
        for thing, course in self.played:
            _paint(frames, thing, course, dy, dx)
        noise = self.level.noise
        if noise:
            grain = np.random.default_rng(self.noise_seed).integers(
                -noise, noise + 1, (self.num_frames, size_px, size_px, 1), dtype=np.int8
            )
            frames += grain
        return np.clip(frames, 0, 255, out=frames).astype(np.uint8)

    def _floor_pixels(self, size_px: int) -> np.ndarray:
        y, x = np.mgrid[:size_px, :size_px].astype(np.float32) / size_px
        across = x * np.cos(self.floor_angle) + y * np.sin(self.floor_angle)
        if self.floor_pattern == "striped":
            light = 1 + 0.22 * np.sign(np.sin(self.floor_pitch * across))
        elif self.floor_pattern == "shaded":
            light = 1 + 0.45 * across
        else:
            light = np.ones_like(across)
        return light[..., None] * np.array(FLOORS[self.floor], np.float32)


def _paint(frames: np.ndarray, thing: Thing, course: Course, dy: np.ndarray, dx: np.ndarray) -> None:
    """Blend a thing into float frames (t, h, w, 3), in place, with soft edges. ``dy`` and ``dx``: shake in pixels."""
    num_frames, size_px = frames.shape[:2]
    x, y, radius = (np.broadcast_to(value * size_px, (num_frames,)) for value in course[:3])
    x, y = x + dx, y + dy
    reach = float(radius.max()) * 1.45 + 1
    left, right = max(0, int(x.min() - reach)), min(size_px, int(x.max() + reach) + 2)
    top, bottom = max(0, int(y.min() - reach)), min(size_px, int(y.max() + reach) + 2)
    u = (np.arange(left, right, dtype=np.float32)[None, None, :] - x[:, None, None]) / radius[:, None, None]
    v = (np.arange(top, bottom, dtype=np.float32)[None, :, None] - y[:, None, None]) / radius[:, None, None]
    u, v = u.astype(np.float32), v.astype(np.float32)
    if np.any(course.angle):
        angle = np.broadcast_to(course.angle, (num_frames,)).astype(np.float32)[:, None, None]
        u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
    cover = np.clip(0.5 - _OUTLINES[thing.shape](u, v) * radius[:, None, None].astype(np.float32), 0, 1)
    dark = _PATTERNS[thing.texture](u, v)
    colour = np.array(COLOURS.get(thing.colour, (0, 0, 0)), np.float32)
    window = frames[:, top:bottom, left:right]
    ink = colour * (1 - 0.65 * dark[..., None]) if dark is not None else colour
    window += cover[..., None] * (ink - window)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(0.5 * v + 0.866 * np.abs(u) - 0.1, -v) - 0.5 + 0 * u


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - 1, b - 0.36), np.maximum(a - 0.36, b - 1))


_OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # Below zero inside, in units of the radius.
    "ball": lambda u, v: np.sqrt(u * u + v * v) - 1,
    "box": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.88,
    "triangle": _triangle,
    "ring": lambda u, v: np.abs(np.sqrt(u * u + v * v) - 0.72) - 0.28,
    "cross": _cross,
    "diamond": lambda u, v: 0.75 * (np.abs(u) + np.abs(v)) - 0.85,
}
_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray | None]] = {
    # True where the thing is darker.
    "plain": lambda u, v: None,
    "striped": lambda u, v: np.broadcast_to(np.sin(6.5 * v + 0.8) > 0, np.broadcast_shapes(u.shape, v.shape)),
    "dotted": lambda u, v: np.sin(6 * u) * np.sin(6 * v) > 0.45,
    "checked": lambda u, v: (np.sin(3.4 * u) * np.sin(3.4 * v)) > 0,
}
