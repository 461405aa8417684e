"""Scenes, small synthetic videos of moving things: what happens in video ``index`` of a task, and its pixels.

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

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssan.errors import UsageError, unknown
from ssan.synthetic.drawing import FRAME_COUNTS, KINDS, Course, Level, Stage, Thing

LEVELS: dict[str, dict[str, Level]] = {
    "order": {
        "clear": Level(),
        "cluttered": Level(num_distractors=2, noise=10, shake=0.02),
    },
    "relation": {
        "cue_near": Level(num_distractors=1, plain=True, cue_framed=True),
        "cue_far": Level(num_distractors=1, plain=True, cue_framed=True, cue_distance=1.0),
        # Two colours are an exclusive-or, which a small network solves wholly or not at all. Three are harder; with six
        # it may stay at chance, but for a share of clips of the first two colours, which gets it started.
        "cue_far_three": Level(num_distractors=1, plain=True, cue_framed=True, cue_distance=1.0, num_kinds=3),
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
        if level.match not in KINDS:
            raise UsageError(unknown("thing to match by", level.match, KINDS))
        if level.num_distractors % 2 == 0:
            raise UsageError(
                f"num_distractors is {level.num_distractors}; task 'relation' needs an odd number, "
                "so that as many movers go one way as the other"
            )
        if not 2 <= level.num_kinds <= len(KINDS[level.match]):
            raise UsageError(
                f"num_kinds is {level.num_kinds}; matching by {level.match} needs 2 to {len(KINDS[level.match])}"
            )
    return level


def class_of(task: str, seed: int, index: int, num_classes: int | None = None) -> int:
    """The class of video ``index``: every run of num_classes videos has each class once, in a drawn order."""
    count = len(_templates(task, num_classes))
    block, position = divmod(index, count)
    return int(np.random.default_rng([seed, block, 1]).permutation(count)[position])


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
    looks: Mapping[str, str] | None = None,
) -> Scene:
    """Draw video ``index``. The picture depends on the arguments and on nothing else.

    ``class_index`` asks for another class than the one that ``class_of`` draws. Within a pair the same things then do
    the same: in ``order`` the frames come out in reverse; in ``relation`` the movers stay and the cue is another.
    ``backward`` (relation only) says whether the course of events is played backwards, instead of drawing it.
    ``looks`` says what floor and thing look like, as ``Stage.dress`` takes it; where and how it goes is as without.
    """
    templates = _templates(task, num_classes)
    level = find_level(task, level)
    if class_index is None:
        class_index = class_of(task, seed, index, num_classes)
    if not 0 <= class_index < len(templates):
        raise UsageError(f"class {class_index} of task {task!r} does not exist; it has {len(templates)}, from 0")
    rng = np.random.default_rng([seed, index, 0])
    num_frames = int(rng.integers(FRAME_COUNTS[0], FRAME_COUNTS[1] + 1))
    stage = Stage(rng, level, num_frames)
    if looks is not None:
        stage.dress(**looks)
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


def _sideways(stage: Stage) -> list[str]:
    return _travel(stage, across=False)


def _downwards(stage: Stage) -> list[str]:
    return _travel(stage, across=True)


def _travel(stage: Stage, across: bool) -> list[str]:
    thing, rng = stage.thing(), stage.rng
    far = stage.along(rng.uniform(0.14, 0.34), rng.uniform(0.66, 0.86))
    middle, slope = rng.uniform(0.25, 0.75), rng.uniform(-0.08, 0.08)
    near = stage.along(middle - slope, middle + slope)
    radius = stage.radius(thing)
    _put_still_things(stage)
    stage.put(thing, Course(near, far, radius) if across else Course(far, near, radius))
    return [_on_floor(stage, thing)]


def _closer(stage: Stage) -> list[str]:
    thing, rng = stage.thing(size=""), stage.rng
    x0, y0 = rng.uniform(0.3, 0.7, 2)
    x1, y1 = np.array([x0, y0]) + rng.uniform(-0.08, 0.08, 2)
    start = stage.level.radius * rng.uniform(0.55, 0.95)
    _put_still_things(stage)
    radius = start * rng.uniform(1.8, 2.6) ** stage.progress
    stage.put(thing, Course(stage.along(x0, x1), stage.along(y0, y1), radius))
    return [_on_floor(stage, thing)]


def _together(stage: Stage) -> list[str]:
    one, other, rng = stage.thing(size=""), stage.thing(), stage.rng
    angle = rng.uniform(0, 2 * np.pi)
    x0, y0 = rng.uniform(0.42, 0.58, 2)
    radii = stage.radius(one), stage.radius(other)
    half = stage.along(rng.uniform(0.3, 0.38), (radii[0] + radii[1]) / 2)
    _put_still_things(stage)
    for sign, thing, radius in ((-1, one, radii[0]), (1, other, radii[1])):
        stage.put(thing, Course(x0 + sign * half * np.cos(angle), y0 + sign * half * np.sin(angle), radius))
    return [one.words(), other.words()]


def _clockwise(stage: Stage) -> list[str]:
    rng = stage.rng
    shape = str(rng.choice(["box", "triangle", "cross"]))
    thing = stage.thing(shape=shape, size=str(rng.choice(["", "big"])))
    x, y = rng.uniform(0.3, 0.7, 2)
    start = rng.uniform(0, 2 * np.pi)
    # Less than a half turn of the shape between two of eight frames, or it would be seen to turn the other way.
    turn = stage.along(start, start + rng.uniform(0.5, 0.95) * np.pi)
    radius = 1.5 * stage.radius(thing)
    _put_still_things(stage)
    stage.put(thing, Course(x, y, radius, turn))
    return [_on_floor(stage, thing)]


def _cover(stage: Stage) -> list[str]:
    rng = stage.rng
    hidden, cover = stage.thing(size="small"), stage.thing(shape="box", size="big")
    x, y = rng.uniform(0.35, 0.65, 2)
    angle = rng.uniform(0, 2 * np.pi)
    away = stage.along(rng.uniform(0.42, 0.55), rng.uniform(0, 0.03))
    radii = stage.radius(hidden), 1.3 * stage.radius(cover)
    _put_still_things(stage)
    stage.put(hidden, Course(x, y, radii[0]))
    stage.put(cover, Course(x + away * np.cos(angle), y + away * np.sin(angle), radii[1]))
    return [hidden.words(), cover.words()]


_ORDER_EVENTS: tuple[Callable[[Stage], list[str]], ...] = (
    _sideways,
    _downwards,
    _closer,
    _together,
    _clockwise,
    _cover,
)


def _on_floor(stage: Stage, thing: Thing) -> str:
    return f"{thing.words()} on {stage.floor_words()}"


def _put_still_things(stage: Stage) -> None:
    for _ in range(stage.level.num_distractors):
        thing = stage.thing(size="small")
        x, y = stage.rng.uniform(0.1, 0.9, 2)
        stage.put(thing, Course(x, y, stage.radius(thing)))


def _relation_event(stage: Stage, pair: int, cue_first: bool) -> str:
    """Put the movers and the cue; mover 0, 2, .. go forward, 1, 3, .. backward. Returns the words for the cue.

    The cue matches mover 0 if ``cue_first``, else mover 1. Nothing else here may look at ``cue_first``.
    """
    rng, level = stage.rng, stage.level
    num_movers = level.num_distractors + 1
    num_kinds = 2 if rng.random() < level.common else level.num_kinds
    kinds = rng.permutation(KINDS[level.match][:num_kinds])
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
        stage.put(mover, Course(rows[row], along, radius) if upright else Course(along, rows[row], radius))
    x, y = (rows[cue_row], cue_along) if upright else (cue_along, rows[cue_row])
    cue_radius = stage.radius(cue)
    if level.cue_framed:
        stage.put(Thing("white", "box", "plain"), Course(x, y, 1.4 * level.radius))
        stage.put(Thing("black", "box", "plain"), Course(x, y, 1.2 * level.radius))
        cue_radius *= 0.9
    stage.put(cue, Course(x, y, cue_radius))
    return cue.words()


def _with(thing: Thing, attribute: str, value: str) -> Thing:
    return Thing(**{**vars(thing), attribute: value})
