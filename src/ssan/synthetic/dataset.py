"""Synthetic data sets: videos with labels and captions, written to disk exactly as Something-Something V2 is laid out.

    DIR/something-something-v2-labels.json       {"Moving something from left to right": "0", ...}
    DIR/something-something-v2-train.json        [{"id", "label", "template", "placeholders"}, ...]
    DIR/something-something-v2-validation.json   the same
    DIR/something-something-v2-test.json         [{"id"}, ...]
    DIR/test-answers.csv                         id;class
    DIR/20bn-something-something-v2/{id}.webm    VP9, 12 frames a second, varying lengths
    DIR/synthetic.json                           how it was made: task, level, seed and all parameters

A sentence of the label list is the template without its brackets; ``label`` is the template with its gaps filled, so
it serves as a caption. Classes 2n and 2n + 1 are each other's reversal in time. What happens in the videos is told in
``ssan.synthetic.scenes``. Video ``i`` depends on the seed, the task, the level, the classes and the size of
the picture and not on how many there are: a smaller set is the beginning of a larger one, and a render that was
interrupted goes on where it stopped.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

from ssan.errors import UsageError
from ssan.files import read_json, replacing, write_json, writing
from ssan.synthetic.scenes import (
    DEFAULT_LEVEL,
    LEVELS,
    TEMPLATES,
    Level,
    Scene,
    class_names,
    class_of,
    find_level,
    scene,
)

__all__ = [
    "DEFAULT_LEVEL",
    "LEVELS",
    "TEMPLATES",
    "Level",
    "Scene",
    "Summary",
    "class_names",
    "class_of",
    "encode",
    "find_level",
    "keep_number",
    "render",
    "scene",
    "split_counts",
]

FRAMES_PER_SECOND = 12
VIDEO_FOLDER = "20bn-something-something-v2"
SPLITS = ("train", "validation", "test")
VERSION = 1  # of the drawing: raise it when the same seed no longer gives the same pixels

# By one of these a folder that was not made here is told.
MADE = (VIDEO_FOLDER, "something-something-v2-labels.json", "videos", "captions.csv")

Drawn = TypeVar("Drawn")

ENCODER = {
    "deadline": "realtime",
    "cpu-used": "8",
    "row-mt": "0",
    "threads": "1",
    "lag-in-frames": "0",
    "crf": "15",  # colours of things ten pixels wide survive; measured by a test
    "b": "0",
}


@dataclass(frozen=True)
class Summary:
    """What ``render`` has made: where, how many videos of each split, and how many were there already."""

    root: str
    task: str
    level: str
    num_videos: int
    num_rendered: int
    num_kept: int
    num_train: int
    num_validation: int
    num_test: int
    classes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {**asdict(self), "classes": list(self.classes)}


def render(
    root: str | Path,
    task: str,
    num_videos: int,
    seed: int,
    *,
    level: str | Level | None = None,
    num_classes: int | None = None,
    size_px: int = 64,
    splits: Sequence[float] = (0.7, 0.15, 0.15),
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Render ``num_videos`` videos of a task and their annotations into the folder ``root``.

    ``splits`` are the shares of training, validation and test, or three whole numbers that add up to num_videos; the
    videos are dealt in the order of their ids, and the classes of a split differ by two videos at most.
    ``num_classes`` keeps the first so many classes. ``workers`` threads draw and encode. ``on_progress`` is called
    with the number of finished videos and of all. Files of an interrupted render with the same parameters are kept;
    a folder that holds another set is refused.
    """
    root = Path(root)
    names = class_names(task, num_classes)
    chosen = find_level(task, level)
    counts = split_counts(num_videos, splits)
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more")
    check_size(size_px)
    if workers < 1:
        raise UsageError(f"workers is {workers}; expected 1 or more")
    level_name = level if isinstance(level, str) else DEFAULT_LEVEL[task] if level is None else "custom"
    made = {**how_made(task, seed, size_px, chosen), "classes": names}
    claim(root, made)
    (root / VIDEO_FOLDER).mkdir(parents=True, exist_ok=True)
    finished = {**made, "level": level_name, "num_videos": num_videos, "splits": counts}
    paths = [root / VIDEO_FOLDER / f"{index + 1}.webm" for index in range(num_videos)]
    whole = is_finished(root, finished, paths)

    def draw(index: int) -> tuple[Scene, np.ndarray]:
        drawn = scene(task, chosen, seed, index, num_classes=num_classes, size_px=size_px)
        return drawn._replace(frames=drawn.frames[:0]), drawn.frames

    scenes, num_rendered = render_all([] if whole else paths, draw, workers, on_progress)
    if not whole:
        _write_annotations(root, names, scenes, counts)
        write_json(root / "synthetic.json", finished)
    return Summary(
        root=str(root),
        task=task,
        level=level_name,
        num_videos=num_videos,
        num_rendered=num_rendered,
        num_kept=num_videos - num_rendered,
        num_train=counts["train"],
        num_validation=counts["validation"],
        num_test=counts["test"],
        classes=tuple(names),
    )


def split_counts(num_videos: int, splits: Sequence[float]) -> dict[str, int]:
    """How many videos train, validation and test get: ``splits`` are shares of 1, or whole numbers that add up.

    >>> split_counts(100, (0.7, 0.15, 0.15))
    {'train': 70, 'validation': 15, 'test': 15}
    """
    if num_videos < 1:
        raise UsageError(f"num_videos is {num_videos}; expected 1 or more")
    if len(splits) != len(SPLITS) or min(splits) < 0:
        raise UsageError(f"splits are {tuple(splits)}; expected three numbers, none below 0: {', '.join(SPLITS)}")
    if sum(splits) == num_videos and all(float(part).is_integer() for part in splits):
        counts = [int(part) for part in splits]
    elif abs(sum(splits) - 1) < 1e-6:
        bounds = [round(num_videos * share) for share in (0, splits[0], splits[0] + splits[1])] + [num_videos]
        counts = [stop - start for start, stop in pairwise(bounds)]
    else:
        raise UsageError(
            f"splits are {tuple(splits)}; expected shares that add up to 1, or numbers that add up to {num_videos}"
        )
    return dict(zip(SPLITS, counts, strict=True))


def encode(frames: np.ndarray) -> bytes:
    """A webm file with uint8 frames (t, h, w, 3) as VP9; the same frames give the same bytes on one machine."""
    buffer = io.BytesIO()
    height, width = frames.shape[1:3]
    with av.open(buffer, "w", format="webm", container_options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(FRAMES_PER_SECOND))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = dict(ENCODER)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def claim(root: Path, made: dict[str, Any]) -> None:
    """Write down what is being made before the first video; refuse a folder where something else was made."""
    path = root / "synthetic.json"
    if path.exists():
        there = read_json(path)
        other = [key for key in made if not isinstance(there, dict) or there.get(key) != made[key]]
        if other:
            raise UsageError(
                f"the folder holds a synthetic set that differs in {', '.join(other)}; "
                "give another folder, or remove this one",
                path=str(path),
            )
    elif any((root / name).exists() for name in MADE):
        raise UsageError("the folder holds videos or annotations that were not made here; give another", path=str(root))
    else:
        write_json(path, made)


def keep_number(root: Path, journals: Iterable[Path], num_videos: int, option: str) -> None:
    """Look whether videos that runs were made of would become more or fewer, before they are rendered.

    :param journals: of the runs.
    :param option: by which the number is asked for.
    :raises UsageError: they would.
    """
    path = root / "synthetic.json"
    there = read_json(path) if path.exists() else None
    before = there.get("num_videos") if isinstance(there, dict) else None
    if before in (None, num_videos):
        return
    run = next((journal.parent for journal in journals), None)
    if run is not None:
        raise UsageError(
            f"{run} is a run of {before!r} rendered videos, and {num_videos} are asked for; name another folder with "
            f"--out, or ask for {before!r} with {option}",
            path=str(root),
        )


def is_finished(root: Path, finished: dict[str, Any], videos: Sequence[Path]) -> bool:
    """Whether the whole set is there: what was written last of all says so, and no video has gone since.

    :param finished: what ``synthetic.json`` says at the end.
    """
    return bool(read_json(root / "synthetic.json") == json.loads(json.dumps(finished))) and all(
        path.exists() for path in videos
    )


def check_size(size_px: int) -> None:
    if not 32 <= size_px <= 256 or size_px % 2:
        raise UsageError(f"size_px is {size_px}; expected an even number from 32 to 256")


def how_made(task: str, seed: int, size_px: int, level: Level) -> dict[str, Any]:
    """What decides about the pixels of a set, as ``synthetic.json`` says it."""
    return {
        "version": VERSION,
        "task": task,
        "seed": seed,
        "size_px": size_px,
        "level_parameters": asdict(level),
        "frames_per_second": FRAMES_PER_SECOND,
        "encoder": ENCODER,
    }


def render_all(
    paths: Sequence[Path],
    draw: Callable[[int], tuple[Drawn, np.ndarray]],
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[list[Drawn], int]:
    """Write those videos that are not there; what ``draw`` says of each, and how many were not there.

    :param draw: of a video's index, what is to be said of it and its frames (t, h, w, 3).
    """

    def render_one(index: int) -> tuple[Drawn, bool]:
        drawn, frames = draw(index)
        if paths[index].exists():
            return drawn, False
        with replacing(paths[index], sync=False) as partial:
            Path(partial).write_bytes(encode(frames))
        return drawn, True

    found: dict[int, Drawn] = {}
    num_rendered = 0
    for index, (drawn, is_new) in in_threads(render_one, len(paths), workers):
        found[index] = drawn
        num_rendered += is_new
        if on_progress is not None:
            on_progress(len(found), len(paths))
    return [found[index] for index in range(len(paths))], num_rendered


def in_threads(draw: Callable[[int], Drawn], count: int, workers: int) -> Iterator[tuple[int, Drawn]]:
    """Results as they are finished, with their index; numpy and the encoder let other threads run meanwhile."""
    if workers == 1:
        for index in range(count):
            yield index, draw(index)
        return
    waiting: dict[Future[Drawn], int] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in range(count):
                waiting[pool.submit(draw, index)] = index
                if len(waiting) >= 4 * workers or index == count - 1:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield waiting.pop(future), future.result()
            for future, index in waiting.items():
                yield index, future.result()
        finally:
            for future in waiting:
                future.cancel()


def _write_annotations(root: Path, names: list[str], scenes: list[Scene], counts: dict[str, int]) -> None:
    prefix = "something-something-v2-"
    write_json(root / f"{prefix}labels.json", {name: str(index) for index, name in enumerate(names)})
    start = 0
    for split, count in counts.items():
        part = range(start, start + count)
        start += count
        if split == "test":
            write_json(root / f"{prefix}test.json", [{"id": str(index + 1)} for index in part])
            with writing(root / "test-answers.csv") as handle:
                handle.writelines(f"{index + 1};{names[scenes[index].class_index]}\n" for index in part)
        else:
            rows = [
                {
                    "id": str(index + 1),
                    "label": scenes[index].label,
                    "template": scenes[index].template,
                    "placeholders": scenes[index].placeholders,
                }
                for index in part
            ]
            write_json(root / f"{prefix}{split}.json", rows)
