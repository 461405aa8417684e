"""Captions of videos: what the readers of published sets share, and a user's own in a CSV file.

One sample for each caption. Features are looked up by ``Sample.video``, so that a list is of use where no video file is
left.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ssan.datasets.samples import Sample, Samples, is_plain
from ssan.datasets.tables import beginning_of, check_id, fault, known_split, part, table_with_header
from ssan.datasets.tree import Finder, is_tree
from ssan.errors import quoted, shortened
from ssan.files import is_text


class VideosById:
    """Videos that captions belong to, found by their ids: where each is, or would be."""

    def __init__(self, root: str, videos: str | None, folders: Sequence[str] = (), suffix: str = ".mp4") -> None:
        self._home = videos or (os.path.dirname(root) or "." if os.path.isfile(root) else root)
        below = [os.path.join(self._home, folder) for folder in folders]
        self._finders = [Finder(folder) for folder in (self._home, *filter(is_tree, below))]
        self._suffix = suffix
        self._known: dict[str, tuple[str, bool]] = {}

    def locate(self, video: str, folder: str = "") -> tuple[str, bool]:
        """The path of a video, and whether it is there.

        :param folder: where else it may lie, below each of the folders that videos may be in.
        """
        if video not in self._known:
            names = [video, os.path.join(folder, video)] if folder and is_plain(folder) else [video]
            there = next(filter(None, (finder.find(name) for finder in self._finders for name in names)), None)
            path = there or os.path.normpath(os.path.join(self._home, video + self._suffix))
            self._known[video] = path, there is not None
        return self._known[video]


def header_of(path: str) -> set[str]:
    """The names in the first line of a CSV file; none of what is no file."""
    first = beginning_of(path, 2000).decode("utf-8-sig", "replace").splitlines()[:1]
    return {word.strip(' "') for line in first for word in line.split(",")}


def has_columns(path: str, *names: str) -> bool:
    """Whether a CSV file has these columns of a list of captions, and is not one of labels."""
    if not path.lower().endswith(".csv"):
        return False
    header = header_of(path)
    return header >= set(names) and not header >= {"path", "label"}


def is_captions_csv(path: str) -> bool:
    """Whether a file begins with a header as ``read_captions_csv`` reads it."""
    return has_columns(path, "video", "caption")


class CaptionIds:
    """Ids of captions that have none: that of the video, ``#``, and how many of its captions came before."""

    def __init__(self) -> None:
        self._num_of: Counter[str] = Counter()

    def next(self, video: str) -> str:
        number = self._num_of[video]
        self._num_of[video] += 1
        return f"{video}#{number}"


def caption_of(text: object, source: str, line: int | None = None, *, prefix: str = "") -> str:
    """What a caption says, without the blanks around it."""
    if not isinstance(text, str) or not text.strip() or not is_text(text):
        raise fault(f"{prefix}the caption is {shown(text)}; expected what is said of the video", source, line)
    return text.strip()


def shown(value: object) -> str:
    """A value of a JSON file for a message; of lists and objects only that they are."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and value.bit_length() > 999:  # Python writes out no number of thousands of digits
        return "a huge number"
    return quoted(value) if isinstance(value, str) else shortened(str(value), 40)


def entries(content: object, key: str, path: str, wrong: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in a list of a JSON file, counted from 1."""
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise fault(f"there is no list {key!r}; expected {wrong}", path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise fault(f"entry {number} of {key!r} is {shown(row)}; expected {wrong}", path)
        yield number, row


def id_of(value: object, path: str, prefix: str) -> str:
    """An id that stands in a JSON file, which is the name of a video's file."""
    if not isinstance(value, str):
        raise fault(f"{prefix}the id of the video is {shown(value)}; expected text", path)
    check_id(value, path, prefix=prefix)
    return value


def caption_id(video: str, number: object, path: str, what: str) -> str:
    """The id of a caption: that of its video, ``#``, and the number or word that a JSON file gives it.

    :param what: what of the file has that number, for the message.
    """
    word = str(number)[:80] if type(number) in (int, str) else ""
    if type(number) not in (int, str) or not is_text(word):
        raise fault(f"{what} is {shown(number)}; expected a number", path)
    return f"{video}#{word}"


def files_named(root: str, folders: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """The paths of those files that are there, by name: of each, that in the first folder that has it."""
    found: dict[str, str] = {}
    for name in names:
        paths = (os.path.join(root, folder, name) for folder in folders)
        path = next(filter(os.path.isfile, paths), None)
        if path is not None:
            found[name] = path
    return found


def of_split(samples: list[Sample], split: str, source: str) -> Samples:
    """The samples of a split; none is an error that says which splits there are."""
    kept = [sample for sample in samples if split in ("all", sample.split)]
    if not kept:
        there = dict(Counter(sample.split or "none" for sample in samples)) or "none at all"
        raise fault(f"it has no caption of the split {split!r}; found {there}", source, code="empty")
    return Samples(kept, (), source)


def read_captions_csv(root: str, split: str, *, annotations: str | None = None, videos: str | None = None) -> Samples:
    """A CSV file with the header ``video,caption``, and of ``start,end,split`` any: a caption a line.

    ``video`` is the id that its features have: the path of the video relative to the folder that features were
    extracted from, without suffix. The video itself is found with any suffix, or as a folder of frames. With a start
    or an end, in seconds, the caption is of that part, [start, end). One file may hold all splits by its column
    ``split``; without that column all of it is whichever split is asked for.

    The id is ``{video}#`` and the number of the line among those of its video, from 0, whatever the split.

    :param root: the file, or a folder with ``captions.csv``; with ``annotations``, which names the file, the videos'.
    :param videos: the folder that videos are relative to; by default the one that the file is in, or the root.
    :raises UsageError: there is no such file.
    :raises AnnotationError: the file is malformed or has no line of the split, a caption is empty, a video's path is
        none or leads out of the folder, a part ends before it starts.
    """
    path = annotations or (os.path.join(root, "captions.csv") if is_tree(root) else root)
    samples = []
    ids = CaptionIds()
    finder = Finder(videos or (root if is_tree(root) else os.path.dirname(root) or "."))
    for line, row in table_with_header(path, ["video", "caption"]):
        home = known_split(row["split"], path, line) if "split" in row else None if split == "all" else split
        video = row["video"]
        if not video:
            raise fault("the video is empty; expected the id of its features", path, line)
        _, relative = finder.resolve(video, source=path, line=line)
        if relative != video:
            raise fault(f"the video is {quoted(video)}; expected it without detours, {quoted(relative)}", path, line)
        there, exists = finder.locate(video, source=path, line=line)
        start, end = part(row.get("start"), row.get("end"), path, line)
        samples.append(
            Sample(
                ids.next(video),
                there,
                start_seconds=start,
                end_seconds=end,
                caption=caption_of(row["caption"], path, line),
                exists=exists,
                split=home,
                video=video,
            )
        )
    return of_split(samples, split, path)
