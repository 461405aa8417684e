"""One labelled video, and a list of them with its class names."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssan.errors import AnnotationError, UsageError, unknown

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png"])
SPLITS = ("train", "val", "test", "all")
SPLIT_ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class Sample:
    """A video, or a part of one, and what is said about it. What is not said is None.

    :param id: unique in its list; a path relative to the root without suffix where the format gives no other.
    :param path: of the file, or of the folder of frames.
    :param label_index: place of ``label`` among the list's classes.
    :param start_seconds: start of the part, [start, end); None for the whole video.
    :param num_frames: as the annotation says; not counted.
    :param exists: whether there was something at ``path`` when the list was read.
    """

    id: str
    path: str
    label: str | None = None
    label_index: int | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    num_frames: int | None = None
    caption: str | None = None
    exists: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Samples(list[Sample]):
    """A list of samples that knows the classes of its data set, also those that none of its samples has."""

    def __init__(self, samples: Iterable[Sample], classes: Iterable[str], source: str) -> None:
        super().__init__(samples)
        self.classes = list(classes)
        self.source = source
        seen: dict[str, str] = {}
        for sample in self:
            if sample.id in seen:
                raise AnnotationError(
                    f"two videos have the id {sample.id!r}: {seen[sample.id]} and {sample.path}; ids must differ",
                    code="duplicate",
                    path=source,
                )
            seen[sample.id] = sample.path

    def kept(self, samples: Iterable[Sample]) -> "Samples":
        """The same list with only these samples."""
        return Samples(samples, self.classes, self.source)


def canonical_split(split: str) -> str:
    """``train``, ``val``, ``test`` or ``all`` for a name in use; an unknown one is a ``UsageError``."""
    split = SPLIT_ALIASES.get(split, split)
    if split not in SPLITS:
        raise UsageError(unknown("split", split, SPLITS))
    return split


def inside(root: str | Path, relative: str, *, source: str, line: int | None = None) -> str:
    """``root / relative`` where it stays below ``root``; a path that leaves it is an error (code ``path_escape``)."""
    joined = os.path.normpath(os.path.join(root, relative))
    base = os.path.normpath(root)
    if "\0" in relative or (joined != base and not joined.startswith(os.path.join(base, ""))):
        raise AnnotationError(
            f"the path {relative!r} leads out of {base}; name the folder that holds all videos with --videos",
            code="path_escape",
            path=source,
            line=line,
        )
    return joined


def is_frame_folder(path: str | Path) -> bool:
    """Whether a folder directly holds pictures, and so is one video."""
    with os.scandir(path) as entries:
        return any(_is_picture(entry) for entry in entries)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    # A hidden picture is some program's thumbnail of the folder, not a frame.
    suffix = Path(entry.name).suffix.lower()
    return suffix in IMAGE_SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()


def find_videos(root: str | Path) -> list[str]:
    """Every video below a folder, sorted: files by suffix, and folders that directly hold pictures."""
    if is_frame_folder(root):
        return [str(root)]
    found = []
    with os.scandir(root) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    for child in children:
        suffix = Path(child.name).suffix.lower()
        if child.is_dir():
            # A folder named x.mp4 is no video file, but what lies in it may be.
            found += find_videos(child.path)
        elif suffix in VIDEO_SUFFIXES and not child.name.startswith("."):
            found.append(child.path)
    return found
