"""Lists of videos in the plain text files of TSM's repository and of mmaction2."""

import os
import re
from collections.abc import Sequence

from ssan.datasets.samples import Sample, Samples, canonical_split
from ssan.datasets.tables import (
    DELIMITERS,
    MOST_CLASSES,
    MOST_DIGITS,
    Where,
    beginning_of,
    check_once,
    class_names,
    fault,
    lines_of,
    number_of,
    refuse_link_out,
)
from ssan.datasets.tree import VIDEO_SUFFIXES, Finder, find_videos, is_tree, names_in, subfolders
from ssan.errors import AnnotationError, UsageError, printable, quoted, unknown

HOMES = ("videos", "frames", "rawframes")
MOST_LINES_TRIED = 200
NAMES_FILES = ("category.txt", "label_map.txt", "classInd.txt")
KINDS = {"video": ("PATH", "LABEL"), "rawframes": ("PATH", "NUM_FRAMES", "LABEL"),
         "rawframes_offset": ("PATH", "OFFSET", "NUM_FRAMES", "LABEL")}  # fmt: skip

_BEGINS = re.compile(r"train|val|test")
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|training|val|valid|validate|validation|test|testing)(?![a-z])")
_UCF_LIST = re.compile(r"(train|test)list0[123]\.txt")

_VIDEO_AND_NUMBERS = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))})(?:\s+[0-9]+)+$", re.IGNORECASE
)

Row = tuple[int, str, tuple[int, ...]]


def split_named(path: str) -> str | None:
    """The split that the name of a list says: with a word of it, or with how it begins.

    >>> [split_named(name) for name in ("kinetics_val_list.txt", "trainlist.txt", "videos.txt")]
    ['val', 'train', None]
    """
    name = os.path.basename(path).lower()
    words = {canonical_split(word) for word in _SPLIT_WORD.findall(name)}
    if len(words) == 1:
        return words.pop()
    begins = _BEGINS.match(name)
    return begins[0] if begins and not words else None


def find_lists(root: str) -> dict[str, list[str]]:
    """The text files in a folder (or its ``labels``, ``annotations``) by the split that their names say.

    Where a split has one called ``SPLIT_videofolder.txt``, as TSM's are, it is that one.
    """
    for folder in (root, os.path.join(root, "labels"), os.path.join(root, "annotations")):
        lists: dict[str, list[str]] = {}
        for name in names_in(folder):
            split = split_named(name) if name.lower().endswith(".txt") and not _UCF_LIST.fullmatch(name) else None
            if split is not None:
                lists.setdefault(split, []).append(os.path.join(folder, name))
        for split, paths in lists.items():
            lists[split] = [path for path in paths if os.path.basename(path) == f"{split}_videofolder.txt"] or paths
        if lists:
            return lists
    return {}


def lists_there(root: str, annotations: str | None, videos: str | None) -> list[str]:
    """The text files found by their names that are lists: where they are, or the videos, is said, or a video is there.

    A note of whoever filmed the videos can end in a number, as a line of a list does. Where no folder holds a video
    that would be read instead, a list is one without its videos too.
    """
    found = [path for paths in find_lists(annotations or root).values() for path in paths]
    official = [path for path in found if os.path.basename(path).endswith("_videofolder.txt")]
    if annotations is not None or videos is not None or official:
        return found
    named = [path for path in found if _names_a_video(path, root)]
    return named or ([] if found and any(_has_video(os.path.join(root, name)) for name in subfolders(root)) else found)


def _names_a_video(path: str, root: str) -> bool:
    """Whether one of the first lines of a text file names a video that is there, with numbers after it."""
    folders = [root, *(os.path.join(root, name) for name in HOMES)]
    finders = [Finder(folder) for folder in folders if is_tree(folder)]
    lines = beginning_of(path, 1_000_000).decode("utf-8-sig", "replace").splitlines()
    for text in lines[:MOST_LINES_TRIED]:
        words = text.split()
        for num_numbers in range(1, min(_num_columns(text), len(KINDS) + 1)):
            name = text.strip().rsplit(None, num_numbers)[0] if len(words) > num_numbers else ""
            if name and any(finder.find(os.path.normpath(name)) for finder in finders):
                return True
    return False


def _has_video(folder: str) -> bool:
    return any(path != folder for path in find_videos(folder))


def kind_of_list(path: str) -> str | None:
    """The key of ``KINDS`` that the first line of a file is like; None where it is like none.

    A video file with two numbers after it is taken for one with two labels, which ``read_mmaction2_list`` refuses.
    """
    lines = beginning_of(path, 10_000).decode("utf-8-sig", "replace").splitlines()
    text = next((line for line in lines if line.strip()), "")
    num_columns = _num_columns(text)
    if num_columns == 3 and _is_video(text.rsplit(None, 2)[0]):
        return "video"
    return {len(columns): kind for kind, columns in KINDS.items()}.get(num_columns)


def read_tsm_list(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, labels: str | None = None
) -> Samples:
    """The lists of TSM's repository: ``PATH NUM_FRAMES LABEL`` a line, separated by blanks, the label a class index.

    What is separated off from the right is the numbers, so a path may hold blanks. The lists are
    ``{train,val,test}_videofolder.txt``, or other ``.txt`` files whose names say their split (``train_list.txt``,
    ``something_val.txt``), in the folder or in its ``labels`` or ``annotations``. Or ``annotations``, or the root, is
    one list: it is read for the split that its name says, and for ``all``.

    A path is relative to ``videos``, or to the root or its ``videos``, ``frames`` or ``rawframes``, wherever the video
    is. It is a folder of frames, or a video file, which may have been converted. The id is the path, without a video's
    suffix.

    :param labels: a file of class names, one a line in the order of the indices. By default it is ``category.txt``,
        ``label_map.txt`` or ``classInd.txt`` (numbered from 1), whichever there is first, beside the lists. Without
        one, classes are called "0" to the highest index that is in any of the lists.
    :raises UsageError: there is no list for the split, or there are two.
    :raises AnnotationError: a line is malformed, a path leads out of the folder or stands twice, an index is out of
        range.
    """
    return _read(root, split, annotations, videos, labels, "rawframes")


def read_mmaction2_list(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    labels: str | None = None,
    kind: str | None = None,
) -> Samples:
    """The lists of mmaction2: ``PATH LABEL``, ``PATH NUM_FRAMES LABEL`` or ``PATH OFFSET NUM_FRAMES LABEL`` a line.

    Which files they are, where videos lie and what classes are called is as for TSM's lists (``tsm_list``). With an
    offset the sample is the frames offset, offset + 1, ..., offset + NUM_FRAMES - 1 of the folder, counted from 0, or
    of the video file that is there instead. Its id ends in the first and the last of these frames.

    :param kind: ``video``, ``rawframes`` or ``rawframes_offset``, in the order above; told from the number of columns
        by default. Where lists of several kinds lie side by side, it chooses those with ``videos`` or ``rawframes`` in
        their names.
    :raises UsageError: there is no list for the split, or there are two, or no such kind.
    :raises AnnotationError: a line is malformed, its kind cannot be told, videos have several labels, a path leads out
        of the folder or stands twice, an index is out of range.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(unknown("kind", kind, KINDS))
    return _read(root, split, annotations, videos, labels, kind)


def _read(
    root: str, split: str, annotations: str | None, videos: str | None, labels: str | None, kind: str | None
) -> Samples:
    source = annotations or root
    lists = _lists(source, kind, root)
    wanted = _wanted(lists, split, source)
    if labels is None:
        labels = _names_file_beside(lists[wanted[0]], source)
    rows = {home: _rows(lists[home], kind) for home in (lists if labels is None else wanted)}
    classes = _classes(labels, rows)
    found = _Videos(root, videos)
    samples = []
    seen: dict[str, Where] = {}
    for home in wanted:
        path = lists[home]
        for line, name, (*counts, label) in rows[home]:
            if label >= len(classes):
                raise fault(
                    f"the class index is {label}; expected 0 to {len(classes) - 1}, for the {len(classes)} classes in "
                    f"{printable(labels or '')}",
                    path,
                    line,
                )
            there, exists = found.locate(name, path, line)
            start, end = (counts[0], sum(counts)) if len(counts) == 2 else (None, None)
            identity = _identity(name) if start is None else f"{_identity(name)}_{start:06d}_{sum(counts) - 1:06d}"
            check_once(seen, identity, path, line)
            samples.append(
                Sample(
                    id=identity,
                    path=there,
                    label=classes[label],
                    label_index=label,
                    start_frame=start,
                    end_frame=end,
                    num_frames=counts[-1] if counts else None,
                    exists=exists,
                    split=home or None,
                )
            )
    return Samples(samples, classes, source)


def _wanted(lists: dict[str, str], split: str, source: str) -> list[str]:
    """The splits of the lists to be read, train before val before test; ``""`` is that of a list that says none."""
    wanted: list[str] = [home for home in ("train", "val", "test", "") if home in lists and split in ("all", home)]
    if not wanted:
        found = ", ".join(map(os.path.basename, lists.values())) or "none"
        raise UsageError(
            f"there is no list for the split {split!r}; expected one with the split in its name, such as "
            f"{'train' if split == 'all' else split}_videofolder.txt, and found {found}. --annotations names another "
            "folder, or one list",
            code="missing",
            path=source,
        )
    return wanted


def _names_file_beside(path: str, source: str) -> str | None:
    """The file of class names beside a list; None where there is none."""
    beside = (os.path.join(os.path.dirname(path), name) for name in NAMES_FILES)
    labels = next(filter(os.path.isfile, beside), None)
    if labels is not None:
        home = os.path.dirname(source) if os.path.isfile(source) else source
        refuse_link_out(labels, home or ".", "name it with --reader labels=FILE if it is meant")
    return labels


def _classes(labels: str | None, rows: dict[str, list[Row]]) -> list[str]:
    """The class names in the order of their indices; without a file of names, the indices up to the highest."""
    if labels is None:
        return [str(number) for number in range(1 + max(n[-1] for table in rows.values() for *_, n in table))]
    return class_names(labels, numbered=os.path.basename(labels) == "classInd.txt")


class _Videos:
    """Videos by their paths in a list, below a folder or those of ``HOMES`` in it."""

    def __init__(self, root: str, videos: str | None) -> None:
        home = videos or (os.path.dirname(root) if os.path.isfile(root) else root)
        below = [] if videos else [os.path.join(home, name) for name in HOMES]
        self._finder, self._others = Finder(home), [Finder(folder) for folder in below if is_tree(folder)]

    def locate(self, name: str, source: str, line: int) -> tuple[str, bool]:
        """The path of a video, or where it would be, and whether it is there."""
        path, relative = self._finder.resolve(name, source=source, line=line)
        there = self._finder.find(relative)
        for other in self._others:
            there = there or other.find(relative)
        return there or path, there is not None


def _identity(name: str) -> str:
    return os.path.splitext(name)[0] if "." in name and _is_video(name) else name


def _lists(source: str, kind: str | None, root: str) -> dict[str, str]:
    """The list of each split; of a single list whose name says none the split is ``""``."""
    if os.path.isfile(source):
        return {split_named(source) or "": source}
    chosen = {}
    for split, paths in find_lists(source).items():
        if len(paths) > 1 and kind is not None:
            word = "rawframes" if kind.startswith("rawframes") else "video"
            paths = [path for path in paths if word in os.path.basename(path)] or paths
        if len(paths) > 1:
            paths = [path for path in paths if _names_a_video(path, root)] or paths
        if len(paths) > 1:
            raise UsageError(
                f"there are {len(paths)} lists for the split {split!r}: {', '.join(map(os.path.basename, paths))}; "
                "keep one in a folder, or name one with --annotations",
                path=source,
            )
        chosen[split] = refuse_link_out(paths[0], source, "name it with --annotations if it is meant")
    return chosen


def _rows(path: str, kind: str | None) -> list[Row]:
    """The line, path and numbers of each video of a list."""
    lines = lines_of(path, f"lines of {' '.join(KINDS[kind or 'video'])}")
    if not lines:
        raise fault(
            f"there is nothing in it; expected {' '.join(KINDS[kind or 'video'])} in every line", path, code="empty"
        )
    if kind is None:
        kind = _kind(lines, path)
    columns = KINDS[kind]
    shaped = re.compile(r"(.*\S)" + rf"\s+([0-9]{{1,{MOST_DIGITS}}})" * (len(columns) - 1))
    rows = []
    for line, text in lines:
        match = shaped.fullmatch(text)
        if match is None:
            raise fault(f"expected {_expected(columns, text)}, and found {quoted(text)}", path, line)
        name, *words = match.groups()
        numbers = tuple(map(int, words))
        if numbers[-1] >= MOST_CLASSES or (kind == "rawframes_offset" and not numbers[1]):
            raise fault(
                f"{quoted(text)} has {' and '.join(f'{c} {n}' for c, n in zip(columns[1:], numbers, strict=True))}; "
                f"expected a LABEL below {MOST_CLASSES:,}, and a frame or more",
                path,
                line,
            )
        if name[-1].isdecimal() and _VIDEO_AND_NUMBERS.search(name):
            raise _several_labels(text, path, line)
        rows.append((line, name, numbers))
    return rows


def _expected(columns: Sequence[str], text: str) -> str:
    expected = f"{' '.join(columns)}, separated by blanks"
    for delimiter, name in DELIMITERS.items():
        if text.count(delimiter) >= len(columns) - 1 and len(text.split()) < len(columns):
            return f"{expected} (these are separated by {name})"
    return f"{expected}, whole numbers after the path"


def _kind(lines: Sequence[tuple[int, str]], path: str) -> str:
    """The kind of an mmaction2 list, by how many numbers its lines end in."""
    kinds = {len(columns): kind for kind, columns in KINDS.items()}
    (first, text), num_columns = lines[0], _num_columns(lines[0][1])
    if num_columns not in kinds:
        expected = " or ".join(" ".join(columns) for columns in KINDS.values())
        raise fault(f"expected {expected}, separated by blanks, and found {quoted(text)}", path, first)
    for line, text in lines:
        if _num_columns(text) != num_columns:
            raise fault(
                f"{quoted(text)} ends in {_num_columns(text) - 1} numbers, and line {first} in {num_columns - 1}. "
                "Lists with several labels for a video (multi-label) cannot be read: give one label each; where it "
                f"is paths that end in numbers, say which kind it is ({', '.join(KINDS)})",
                path,
                line,
            )
        if num_columns > 2 and _is_video(text.rsplit(None, num_columns - 1)[0]):
            raise _several_labels(text, path, line)
    return kinds[num_columns]


def _several_labels(text: str, path: str, line: int) -> AnnotationError:
    return fault(
        f"{quoted(text)} gives a video file more than one number. Lists with several labels for a video (multi-label) "
        "cannot be read: give one label each; where the first number is one of frames, say --format tsm_list",
        path,
        line,
    )


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _num_columns(text: str) -> int:
    """The path and the numbers after it."""
    words = text.split()
    while len(words) > 1 and number_of(words[-1]) is not None:
        words.pop()
    return 1 + len(text.split()) - len(words)
