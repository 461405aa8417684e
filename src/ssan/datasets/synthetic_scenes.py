"""Small made-up videos of moving things, drawn with numpy: what happens in video ``index`` of a task, and its pixels.

Two tasks. Both are made of pairs of classes that are each other's reversal in time: one course of events is drawn and
the class says which way it is played, so no single frame, and no set of frames whose order is lost, can tell the two
classes of a pair apart. A network that averages the scores of single frames is at chance within every pair.

``order``: one event in each clip; the class is the event and its direction. Needs order, and nothing of space.

``relation``: a still thing, the cue, and moving things, half of which go one way and half the other. The class is
the way of the mover that matches the cue (in colour, shape or texture). Nothing less tells it:

- motion alone: both ways occur in every clip equally often; the movers of a clip are the same pixels for both classes
  of the pair, and only the cue differs;
- the cue alone, or one frame: the cue is still, and the same clip played backwards belongs to the other class;
- where the cue or a mover is, how fast it goes, its size and the floor: drawn without knowing the class.

So cue and mover have to be compared within a frame, and the mover followed from frame to frame. ``Level`` says how
far apart the compared things are, how many others distract, how many colours there are to confuse, and how clean the
picture is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssan.errors import UsageError, unknown

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


LEVELS: dict[str, dict[str, Level]] = {
    "order": {
        "clear": Level(),
        "cluttered": Level(num_distractors=2, noise=10, shake=0.02),
    },
    "relation": {
        "cue_near": Level(num_distractors=1, plain=True, cue_framed=True),
        "cue_far": Level(num_distractors=1, plain=True, cue_framed=True, cue_distance=1.0),
        # Two colours are an exclusive-or, which a small network solves wholly or not at all; with six it may stay at
        # chance. A share of clips of the first two colours gets it started, and the other colours grade the result.
        "cue_far_colours": Level(
            num_distractors=1, plain=True, cue_framed=True, cue_distance=1.0, num_kinds=6, common=0.4
        ),
    },
}
DEFAULT_LEVEL = {"order": "clear", "relation": "cue_far_colours"}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "order": (
        "Moving [something] from left to right",
        "Moving [something] from right to left",
        "Moving [something] from top to bottom",
        "Moving [something] from bottom to top",
        "Moving [something] closer to the camera",
        "Moving [something] away from the camera",
        "Putting [something] and [something] together",
        "Pulling [something] and [something] apart",
        "Turning [something] clockwise",
        "Turning [something] counterclockwise",
        "Covering [something] with [something]",
        "Uncovering [something] from under [something]",
    ),
    "relation": (
        "Moving the match of [something] from left to right",
        "Moving the match of [something] from right to left",
        "Moving the match of [something] from top to bottom",
        "Moving the match of [something] from bottom to top",
        "Moving the match of [something] closer to the camera",
        "Moving the match of [something] away from the camera",
    ),
}
"""Classes 2n and 2n + 1 are each other's reversal in time."""


class Scene(NamedTuple):
    """One video before it is encoded: uint8 frames (t, h, w, 3), and what the annotation says of it."""

    frames: np.ndarray
    template: str
    placeholders: list[str]
    class_index: int

    @property
    def label(self) -> str:
        """The caption: the template with its gaps filled, in lower case as the original's."""
        return fill(self.template, self.placeholders)


def fill(template: str, placeholders: Sequence[str]) -> str:
    """Put the placeholders into the gaps of a template, in order, and lower its first letter.

    >>> fill("Covering [something] with [something]", ["a ball", "a box"])
    'covering a ball with a box'
    """
    parts = template.split("[something]")
    words = "".join(part + gap for part, gap in zip(parts, [*placeholders, ""], strict=True))
    return words[0].lower() + words[1:]


def class_names(task: str, num_classes: int | None = None) -> list[str]:
    """The classes of a task, templates without brackets; ``num_classes`` keeps the first so many, an even number."""
    return [template.replace("[", "").replace("]", "") for template in _templates(task, num_classes)]


def find_level(task: str, level: "str | Level | None" = None) -> Level:
    """The level of that name of a task; None is the task's default, and a ``Level`` is itself."""
    if task not in TEMPLATES:
        raise UsageError(unknown("synthetic task", task, TEMPLATES))
    if level is None:
        level = DEFAULT_LEVEL[task]
    if isinstance(level, str):
        if level not in LEVELS[task]:
            raise UsageError(unknown(f"level of task {task!r}", level, LEVELS[task]))
        level = LEVELS[task][level]
    if task == "relation":
        if not 0 <= level.common <= 1 or not 0 <= level.cue_distance <= 1:
            raise UsageError(
                f"common is {level.common} and cue_distance {level.cue_distance}; expected numbers from 0 to 1"
            )
        if level.match not in _KINDS:
            raise UsageError(unknown("thing to match by", level.match, _KINDS))
        if level.num_distractors % 2 == 0:
            raise UsageError(
                f"num_distractors is {level.num_distractors}; task 'relation' needs an odd number, "
                "so that as many movers go one way as the other"
            )
        if not 2 <= level.num_kinds <= len(_KINDS[level.match]):
            raise UsageError(
                f"num_kinds is {level.num_kinds}; matching by {level.match} needs 2 to {len(_KINDS[level.match])}"
            )
    return level


def class_of(task: str, seed: int, index: int, num_classes: int | None = None) -> int:
    """The class of video ``index``: every run of num_classes videos has each class once, in a drawn order."""
    count = len(_templates(task, num_classes))
    block, place = divmod(index, count)
    return int(np.random.default_rng([seed, block, 1]).permutation(count)[place])


def scene(
    task: str,
    level: "str | Level | None",
    seed: int,
    index: int,
    *,
    num_classes: int | None = None,
    size_px: int = 64,
    class_index: int | None = None,
    backward: bool | None = None,
) -> Scene:
    """Draw video ``index``. The picture depends on the arguments and on nothing else.

    ``class_index`` asks for another class than the one that ``class_of`` draws. Within a pair the same things then do
    the same: in ``order`` the frames come out in reverse; in ``relation`` the movers stay and the cue is another.
    ``backward`` (relation only) says whether the course of events is played backwards, instead of drawing it.
    """
    templates = _templates(task, num_classes)
    level = find_level(task, level)
    if class_index is None:
        class_index = class_of(task, seed, index, num_classes)
    if not 0 <= class_index < len(templates):
        raise UsageError(f"class {class_index} of task {task!r} does not exist; it has {len(templates)}, from 0")
    rng = np.random.default_rng([seed, index, 0])
    num_frames = int(rng.integers(FRAME_COUNTS[0], FRAME_COUNTS[1] + 1))
    stage = _Stage(rng, level, num_frames)
    pair, second = divmod(class_index, 2)
    if task == "order":
        placeholders = _ORDER_EVENTS[pair](stage)
        backward = bool(second)
    else:
        drawn = bool(rng.integers(2))
        backward = drawn if backward is None else backward
        placeholders = [_relation_event(stage, pair, cue_first=bool(second) == backward)]
    frames = stage.draw(size_px)
    return Scene(frames[::-1].copy() if backward else frames, templates[class_index], placeholders, class_index)


def _templates(task: str, num_classes: int | None) -> tuple[str, ...]:
    if task not in TEMPLATES:
        raise UsageError(unknown("synthetic task", task, TEMPLATES))
    templates = TEMPLATES[task]
    if num_classes is None:
        return templates
    if num_classes % 2 or not 2 <= num_classes <= len(templates):
        raise UsageError(
            f"num_classes is {num_classes}; the classes of task {task!r} come in pairs: "
            f"expected an even number from 2 to {len(templates)}"
        )
    return templates[:num_classes]


# ---------------------------------------------------------------------------------------------------- things


@dataclass(frozen=True)
class _Thing:
    colour: str
    shape: str
    texture: str
    size: str = ""

    def words(self) -> str:
        texture = "" if self.texture == "plain" else self.texture
        words = " ".join(word for word in (self.size, self.colour, texture, self.shape) if word)
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


_KINDS: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES, "texture": TEXTURES}


class _Course(NamedTuple):
    """Where a thing is, frame by frame: each field is (t,) or one number; x and y in 0..1, x to the right, y down."""

    x: np.ndarray | float
    y: np.ndarray | float
    radius: np.ndarray | float
    angle: np.ndarray | float = 0.0


class _Stage:
    """The random choices of one clip, and the things on it from back to front."""

    def __init__(self, rng: np.random.Generator, level: Level, num_frames: int) -> None:
        self.rng, self.level, self.num_frames = rng, level, num_frames
        self.floor = str(rng.choice(list(FLOORS)))
        self.floor_pattern = "" if level.plain else str(rng.choice(["", "striped", "shaded"]))
        self.floor_angle, self.floor_pitch = rng.uniform(0, np.pi), rng.uniform(14, 26)
        self.shake_yx = rng.uniform(-level.shake, level.shake, (2, num_frames))
        self.noise_seed = int(rng.integers(2**32))
        self.played: list[tuple[_Thing, _Course]] = []
        wait, rest = rng.uniform(0, 0.12, 2)  # parts of the clip before the event begins and after it ends
        moment = (np.linspace(0, 1, num_frames) - wait) / (1 - wait - rest)
        ease = rng.uniform(-0.5, 0.5)
        moment = np.clip(moment, 0, 1)
        self.progress = moment + ease * np.sin(2 * np.pi * moment) / (2 * np.pi)  # (t,), from 0 to 1

    def thing(self, **fixed: str) -> _Thing:
        """A thing drawn at random but for what is ``fixed``."""
        drawn = {
            "colour": str(self.rng.choice(list(COLOURS))),
            "shape": str(self.rng.choice(SHAPES)),
            "texture": str(self.rng.choice(TEXTURES)),
            "size": str(self.rng.choice(list(SIZES))),
        }
        return _Thing(**{**drawn, **fixed})

    def radius(self, thing: _Thing) -> float:
        return self.level.radius * SIZES[thing.size] * self.rng.uniform(0.92, 1.08)

    def put(self, thing: _Thing, course: _Course) -> None:
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


# ---------------------------------------------------------------------------------------------------- events


def _sideways(stage: _Stage) -> list[str]:
    return _travel(stage, across=False)


def _downwards(stage: _Stage) -> list[str]:
    return _travel(stage, across=True)


def _travel(stage: _Stage, across: bool) -> list[str]:
    thing, rng = stage.thing(), stage.rng
    far = stage.along(rng.uniform(0.14, 0.34), rng.uniform(0.66, 0.86))
    middle, slope = rng.uniform(0.25, 0.75), rng.uniform(-0.08, 0.08)
    near = stage.along(middle - slope, middle + slope)
    radius = stage.radius(thing)
    _put_still_things(stage)
    stage.put(thing, _Course(near, far, radius) if across else _Course(far, near, radius))
    return [_on_floor(stage, thing)]


def _closer(stage: _Stage) -> list[str]:
    thing, rng = stage.thing(size=""), stage.rng
    x0, y0 = rng.uniform(0.3, 0.7, 2)
    x1, y1 = np.array([x0, y0]) + rng.uniform(-0.08, 0.08, 2)
    start = stage.level.radius * rng.uniform(0.55, 0.95)
    _put_still_things(stage)
    radius = start * rng.uniform(1.8, 2.6) ** stage.progress
    stage.put(thing, _Course(stage.along(x0, x1), stage.along(y0, y1), radius))
    return [_on_floor(stage, thing)]


def _together(stage: _Stage) -> list[str]:
    one, other, rng = stage.thing(size=""), stage.thing(), stage.rng
    angle = rng.uniform(0, 2 * np.pi)
    x0, y0 = rng.uniform(0.42, 0.58, 2)
    radii = stage.radius(one), stage.radius(other)
    half = stage.along(rng.uniform(0.3, 0.38), (radii[0] + radii[1]) / 2)
    _put_still_things(stage)
    for sign, thing, radius in ((-1, one, radii[0]), (1, other, radii[1])):
        stage.put(thing, _Course(x0 + sign * half * np.cos(angle), y0 + sign * half * np.sin(angle), radius))
    return [one.words(), other.words()]


def _clockwise(stage: _Stage) -> list[str]:
    rng = stage.rng
    shape = str(rng.choice(["box", "triangle", "cross"]))
    thing = stage.thing(shape=shape, size=str(rng.choice(["", "big"])))
    x, y = rng.uniform(0.3, 0.7, 2)
    start = rng.uniform(0, 2 * np.pi)
    # Less than a half turn of the shape between two of eight frames, or it would be seen to turn the other way.
    turn = stage.along(start, start + rng.uniform(0.5, 0.95) * np.pi)
    radius = 1.5 * stage.radius(thing)
    _put_still_things(stage)
    stage.put(thing, _Course(x, y, radius, turn))
    return [_on_floor(stage, thing)]


def _cover(stage: _Stage) -> list[str]:
    rng = stage.rng
    hidden, cover = stage.thing(size="small"), stage.thing(shape="box", size="big")
    x, y = rng.uniform(0.35, 0.65, 2)
    angle = rng.uniform(0, 2 * np.pi)
    away = stage.along(rng.uniform(0.42, 0.55), rng.uniform(0, 0.03))
    radii = stage.radius(hidden), 1.3 * stage.radius(cover)
    _put_still_things(stage)
    stage.put(hidden, _Course(x, y, radii[0]))
    stage.put(cover, _Course(x + away * np.cos(angle), y + away * np.sin(angle), radii[1]))
    return [hidden.words(), cover.words()]


_ORDER_EVENTS: tuple[Callable[[_Stage], list[str]], ...] = (
    _sideways,
    _downwards,
    _closer,
    _together,
    _clockwise,
    _cover,
)


def _on_floor(stage: _Stage, thing: _Thing) -> str:
    return f"{thing.words()} on {stage.floor_words()}"


def _put_still_things(stage: _Stage) -> None:
    for _ in range(stage.level.num_distractors):
        thing = stage.thing(size="small")
        x, y = stage.rng.uniform(0.1, 0.9, 2)
        stage.put(thing, _Course(x, y, stage.radius(thing)))


def _relation_event(stage: _Stage, pair: int, cue_first: bool) -> str:
    """Put the movers and the cue; mover 0, 2, .. go forward, 1, 3, .. backward. Returns the words for the cue.

    The cue matches mover 0 if ``cue_first``, else mover 1. Nothing else here may look at ``cue_first``.
    """
    rng, level = stage.rng, stage.level
    num_movers = level.num_distractors + 1
    num_kinds = 2 if rng.random() < level.common else level.num_kinds
    kinds = rng.permutation(_KINDS[level.match][:num_kinds])
    # With fewer kinds than movers, all that go one way are of one kind.
    kind_of = [str(kinds[i if num_movers <= len(kinds) else i % 2]) for i in range(num_movers)]
    common = stage.thing(size="", **({"texture": "plain"} if level.plain and level.match != "texture" else {}))
    looks = [common if level.plain else stage.thing(size="") for _ in range(num_movers + 1)]
    movers = [_with(look, level.match, kind) for look, kind in zip(looks, kind_of, strict=False)]
    cue = _with(looks[-1], level.match, kind_of[0 if cue_first else 1])

    # One row each for the movers and the cue; the cue's is the middle one, or with distance 1 the first or last.
    rows = np.linspace(0.16, 0.84, num_movers + 1) + rng.uniform(-0.02, 0.02, num_movers + 1)
    edge = num_movers if rng.integers(2) else 0
    cue_row = round(num_movers / 2 + (edge - num_movers / 2) * level.cue_distance)
    mover_rows = rng.permutation(np.delete(np.arange(num_movers + 1), cue_row))
    cue_along = 0.5 + (0.34 if rng.integers(2) else -0.34) * level.cue_distance + rng.uniform(-0.03, 0.03)
    upright = pair == 1 or (pair == 2 and bool(rng.integers(2)))

    for i, (mover, row) in enumerate(zip(movers, mover_rows, strict=True)):
        forward = i % 2 == 0
        radius: np.ndarray | float = stage.radius(mover)
        if pair == 2:
            along: np.ndarray | float = rng.uniform(0.25, 0.75)
            radius = radius * (stage.along(0.55, 1.3) if forward else stage.along(1.3, 0.55))
        else:
            start, stop = rng.uniform(0.12, 0.3), rng.uniform(0.7, 0.88)
            along = stage.along(start, stop) if forward else stage.along(stop, start)
        stage.put(mover, _Course(rows[row], along, radius) if upright else _Course(along, rows[row], radius))
    x, y = (rows[cue_row], cue_along) if upright else (cue_along, rows[cue_row])
    cue_radius = stage.radius(cue)
    if level.cue_framed:
        stage.put(_Thing("white", "box", "plain"), _Course(x, y, 1.4 * level.radius))
        stage.put(_Thing("black", "box", "plain"), _Course(x, y, 1.2 * level.radius))
        cue_radius *= 0.9
    stage.put(cue, _Course(x, y, cue_radius))
    return cue.words()


def _with(thing: _Thing, attribute: str, value: str) -> _Thing:
    return _Thing(**{**vars(thing), attribute: value})


# ---------------------------------------------------------------------------------------------------- pixels


def _paint(frames: np.ndarray, thing: _Thing, course: _Course, dy: np.ndarray, dx: np.ndarray) -> None:
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
