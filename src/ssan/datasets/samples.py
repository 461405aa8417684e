"""Samples: one labelled video, and a list of them with its class names."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ssan.errors import AnnotationError, UsageError, printable, quoted, unknown
from ssan.video.clip import Frame

SPLITS = ("train", "val", "test", "all")
SPLIT_ALIASES = {"training": "train", "validation": "val", "validate": "val", "valid": "val", "testing": "test"}

_PLAIN = re.compile(r"[^/.\0\ud800-\udfff][^/\0\ud800-\udfff]*(?:/[^/.\0\ud800-\udfff][^/\0\ud800-\udfff]*)*")


@dataclass(frozen=True, slots=True)
class Sample:
    """A video, or a part of one, and what is said about it. What is not said is None.

    :param id: unique in its list; a path relative to the root without suffix where the format gives no other.
    :param path: of the file, or of the folder of frames.
    :param label_index: index of ``label`` among the list's classes.
    :param start_seconds: start of the part, [start, end); None for the whole video.
    :param start_frame: start of a part that is counted in frames, [start, end) from 0. Its bounds are no seconds, and
        ``start_seconds`` and ``end_seconds`` hold the frames themselves, which ``Video.span`` takes and no sum does.
    :param num_frames: as the annotation says; not counted.
    :param exists: whether there was something at ``path`` when the list was read.
    :param split: ``train``, ``val`` or ``test``, where the list says.
    :param video: the id of the features that a caption belongs to; several captions can name one video.
    """

    id: str
    path: str
    label: str | None = None
    label_index: int | None = None
    start_seconds: float | Frame | None = None
    end_seconds: float | Frame | None = None
    num_frames: int | None = None
    caption: str | None = None
    exists: bool = True
    split: str | None = None
    video: str | None = None
    start_frame: int | None = None
    end_frame: int | None = None

    def __post_init__(self) -> None:
        if self.start_frame is not None or self.end_frame is not None:
            end = None if self.end_frame is None else Frame(self.end_frame)
            object.__setattr__(self, "start_seconds", Frame(self.start_frame or 0))
            object.__setattr__(self, "end_seconds", end)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its video, and no part."""
        return self.start_seconds is None and self.end_seconds is None

    @property
    def seconds(self) -> tuple[float | None, float | None]:
        """Start and end in seconds; None where they are not known, as those of a part that is counted in frames."""
        start, end = self.start_seconds, self.end_seconds
        return None if isinstance(start, Frame) else start, None if isinstance(end, Frame) else end

    def as_dict(self) -> dict[str, Any]:
        # Not dataclasses.asdict, which copies every value: of a list of 170,000 that takes most of the time.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["start_seconds"], values["end_seconds"] = self.seconds
        return values


class Samples(list[Sample]):
    """A list of samples that knows the classes of its data set, also those that none of its samples has.

    ``notes`` say in a line each what its reader left out, or could have understood otherwise.
    """

    def __init__(
        self, samples: Iterable[Sample], classes: Iterable[str], source: str, notes: Iterable[str] = ()
    ) -> None:
        super().__init__(samples)
        self.classes = list(classes)
        self.source = source
        self.notes = list(notes)
        seen: dict[str, str] = {}
        for sample in self:
            if sample.id in seen:
                raise AnnotationError(
                    f"two videos have the id {quoted(sample.id)}: {printable(seen[sample.id])} and "
                    f"{printable(sample.path)}; ids must differ",
                    code="duplicate",
                    path=source,
                )
            seen[sample.id] = sample.path

    def kept(self, samples: Iterable[Sample]) -> "Samples":
        """The same list with only these samples."""
        return Samples(samples, self.classes, self.source, self.notes)


def hash_list(samples: Samples) -> str:
    """The start of a SHA-256 over the ids, labels and parts of the videos, in their order."""
    parts = [[s.id, s.label, s.label_index, *s.seconds, *_frame_bounds(s)] for s in samples]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _frame_bounds(sample: Sample) -> list[int | None]:
    """Nothing where a part is not counted in frames, so that the hash of a list without such is what it always was."""
    bounds = [sample.start_frame, sample.end_frame]
    return [] if bounds == [None, None] else bounds


def canonical_split(split: str) -> str:
    """``train``, ``val``, ``test`` or ``all`` for a name in use; an unknown one is a ``UsageError``."""
    split = SPLIT_ALIASES.get(split, split)
    if split not in SPLITS:
        raise UsageError(unknown("split", split, SPLITS))
    return split


def inside(root: str | Path, relative: str, *, source: str, line: int | None = None) -> str:
    """``root / relative`` where it stays below ``root``; a path that leaves it is an error (code ``path_escape``)."""
    joined, base = os.path.normpath(os.path.join(root, relative)), os.path.normpath(root)
    # Compared whole: "..", "." and "../.." cannot be told from each other by how they begin.
    whole, home = os.path.abspath(joined), os.path.abspath(base)
    stays = whole == home or whole.startswith(os.path.join(home, ""))
    if not stays or "\0" in relative or not _is_name(relative):
        raise AnnotationError(
            f"the path {quoted(relative)} leads out of {base}; name the folder that holds all videos with --videos",
            code="path_escape",
            path=source,
            line=line,
        )
    return joined


def is_plain(relative: str) -> bool:
    """Whether a relative path has only names that do not begin with a dot: it is normal, and stays where it is."""
    return _PLAIN.fullmatch(relative) is not None


def _is_name(relative: str) -> bool:
    """Whether a file can have this name: half a letter cannot be written."""
    try:
        os.fsencode(relative)
    except UnicodeEncodeError:
        return False
    return True
