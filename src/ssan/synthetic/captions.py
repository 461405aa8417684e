"""Synthetic videos with captions, of which each has two near twins: one the other way round, one with another object.

    DIR/captions.csv      video,caption,split: each caption once in the set; the format captions_csv
    DIR/twins.csv         video,other,kind: kind is direction or object
    DIR/videos/{n}.webm   VP9, 12 frames a second, varying lengths
    DIR/synthetic.json    how it was made

What happens is that of the first six classes of the task ``order``. Videos come in fours: an event, the same in the
other direction, and both once more with a thing of another colour or shape. So of two captions that differ in the
direction alone, and of two that differ in the object alone, a model has to tell which video is whose. The four are
drawn each for itself: where the thing is and how fast it goes tells nothing. A four is of one split as a whole.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssan.errors import UsageError
from ssan.files import write_json, writing
from ssan.synthetic.dataset import check_size, claim, how_made, is_finished, render_all, split_counts
from ssan.synthetic.drawing import COLOURS, FLOORS, SHAPES, SIZES, TEXTURES
from ssan.synthetic.scenes import find_level, scene

TASK, NUM_CLASSES = "order", 6
TOGETHER = 4  # a caption, the other direction, another object, both
PATTERNS = ("", "striped", "shaded")
MOST_VIDEOS = 20_000  # of 45,000 captions that there are
SPLIT_NAMES = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Summary:
    """What ``render_captions`` has made."""

    root: str
    num_videos: int
    num_rendered: int
    num_kept: int
    num_train: int
    num_validation: int
    num_test: int

    def as_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Told:
    """One video before it is drawn."""

    class_index: int
    looks: dict[str, str]


def told(seed: int, count: int) -> list[Told]:
    """What each of ``count`` videos shows, four by four; the captions that come of it all differ.

    A smaller set is the beginning of a larger one.
    """
    rng = np.random.default_rng([seed, 2])
    seen: set[tuple[Any, ...]] = set()
    videos: list[Told] = []
    while len(videos) < count:
        pair = int(rng.integers(NUM_CLASSES // 2))
        looks = {
            "floor": str(rng.choice(list(FLOORS))),
            "floor_pattern": str(rng.choice(PATTERNS)),
            "colour": str(rng.choice(list(COLOURS))),
            "shape": str(rng.choice(SHAPES)),
            "texture": str(rng.choice(TEXTURES)),
            "size": "" if pair == 2 else str(rng.choice(list(SIZES))),  # what comes closer has no size to speak of
        }
        attribute, known = ("colour", tuple(COLOURS)) if rng.integers(2) else ("shape", SHAPES)
        others = [value for value in known if value != looks[attribute]]
        other = {**looks, attribute: str(rng.choice(others))}
        keys = [(pair, *which.values()) for which in (looks, other)]
        if seen.intersection(keys):
            continue
        seen.update(keys)
        videos += [Told(2 * pair + way, which) for which in (looks, other) for way in (0, 1)]
    return videos[:count]


def twins(index: int) -> dict[str, int]:
    """The videos whose captions differ from that of video ``index`` in one thing alone."""
    first, position = index - index % TOGETHER, index % TOGETHER
    return {"direction": first + (position ^ 1), "object": first + (position ^ 2)}


def render_captions(
    root: str | Path,
    num_videos: int,
    seed: int,
    *,
    level: str | None = None,
    size_px: int = 64,
    splits: Sequence[float] = (0.7, 0.1, 0.2),
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Render ``num_videos`` captioned videos into the folder ``root``; what is there of the same set is kept.

    :param num_videos: a multiple of 4.
    :param splits: as of ``synthetic.render``; each has whole fours.
    """
    root = Path(root)
    _check_numbers(num_videos, seed, size_px, workers)
    counts = {split: TOGETHER * count for split, count in split_counts(num_videos // TOGETHER, splits).items()}
    made = how_made("captions", seed, size_px, find_level(TASK, level))
    claim(root, made)
    (root / "videos").mkdir(parents=True, exist_ok=True)
    videos = told(seed, num_videos)
    finished = {**made, "num_videos": num_videos, "splits": counts}
    paths = [root / f"{name_of(index)}.webm" for index in range(num_videos)]
    whole = is_finished(root, finished, paths)

    def draw(index: int) -> tuple[str, np.ndarray]:
        video = videos[index]
        drawn = scene(
            TASK, level, seed, index, num_classes=NUM_CLASSES, size_px=size_px, class_index=video.class_index,
            looks=video.looks,
        )  # fmt: skip
        return drawn.label, drawn.frames

    captions, num_rendered = render_all([] if whole else paths, draw, workers, on_progress)
    if not whole:
        _write_tables(root, captions, counts)
        write_json(root / "synthetic.json", finished)
    return Summary(
        root=str(root),
        num_videos=num_videos,
        num_rendered=num_rendered,
        num_kept=num_videos - num_rendered,
        num_train=counts["train"],
        num_validation=counts["validation"],
        num_test=counts["test"],
    )


def _check_numbers(num_videos: int, seed: int, size_px: int, workers: int) -> None:
    if num_videos < TOGETHER or num_videos % TOGETHER:
        raise UsageError(f"num_videos is {num_videos}; captioned videos come in fours, so give a multiple of 4")
    if num_videos > MOST_VIDEOS:
        raise UsageError(f"num_videos is {num_videos}; of more than {MOST_VIDEOS:,} the captions would not all differ")
    check_size(size_px)
    if seed < 0 or workers < 1:
        raise UsageError(f"seed is {seed} and workers {workers}; expected 0 or more, and 1 or more")


def _write_tables(root: Path, captions: Sequence[str], counts: Mapping[str, int]) -> None:
    """What is said of the videos, by their numbers: captions with their splits, and who is whose twin."""
    splits_of = [SPLIT_NAMES[split] for split, count in counts.items() for _ in range(count)]
    _write_rows(
        root / "captions.csv",
        ("video", "caption", "split"),
        [
            (name_of(index), caption, split)
            for index, (caption, split) in enumerate(zip(captions, splits_of, strict=True))
        ],
    )
    _write_rows(
        root / "twins.csv",
        ("video", "other", "kind"),
        [(name_of(n), name_of(other), kind) for n in range(len(captions)) for kind, other in twins(n).items()],
    )


def name_of(index: int) -> str:
    """The id of a video: its path without suffix."""
    return f"videos/{index + 1}"


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with writing(path) as handle:
        handle.write(text.getvalue())
