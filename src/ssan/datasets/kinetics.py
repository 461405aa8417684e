"""Kinetics-400 in the CSV files of its publisher."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ssan.datasets.samples import SPLITS, Sample, Samples, canonical_split
from ssan.datasets.tables import (
    Where,
    beginning_of,
    check_id,
    check_once,
    class_names,
    fault,
    known_split,
    part,
    plain_form,
    refuse_lookalikes,
    table_with_header,
    unknown_label,
)
from ssan.datasets.tree import Finder, home_of, is_tree, names_in, subfolders
from ssan.errors import UsageError, quoted

COLUMNS = ("youtube_id", "time_start", "time_end")
VIDEO_FOLDERS = ("videos", "kinetics400", "kinetics-400", "kinetics_400")

_TABLE = re.compile(
    r"(?:(?:kinetics[-_ ]?(?:400)?|k400)[-_ ])?(train|val|valid|validate|validation|test)\.csv", re.IGNORECASE
)
_SPLIT_FOLDER = re.compile(
    r"(?:(?:videos|rawframes)_)?(?:train|val|valid|validate|validation|test)(?:_256)?", re.IGNORECASE
)
_DROPPED = re.compile(r"[\"'`()]")

Row = tuple[int, dict[str, str], str | None]


class _Clip(NamedTuple):
    """What a row says: a part of a video, in seconds, its label as it is written there, and its split."""

    name: str
    video: str
    start: float
    end: float
    label: str
    split: str | None
    path: str
    line: int


def canonical_label(label: str) -> str:
    """What all ways to write a class of Kinetics have in common: no case, quotes, parentheses; blanks for ``_``.

    >>> canonical_label("massaging_person's_head") == canonical_label('"massaging persons head"')
    True
    """
    return plain_form(" ".join(_DROPPED.sub("", label).replace("_", " ").split()))


def find_tables(source: str) -> list[str]:
    """The CSV files of Kinetics in a folder (or its ``annotations``); the one that ``source`` is, if it is a file.

    In a folder those count that are named after a split; without any, all that begin as Kinetics' do.
    """
    if os.path.isfile(source):
        return [source]
    for folder in (source, os.path.join(source, "annotations")):
        names = [name for name in names_in(folder) if name.lower().endswith(".csv")]
        found = [os.path.join(folder, name) for name in names if _TABLE.fullmatch(name)]
        found = found or [path for path in (os.path.join(folder, name) for name in names) if is_table(path)]
        if found:
            return found
    return []


def is_table(path: str) -> bool:
    """Whether a file begins with a header as Kinetics has it."""
    words = re.split(rb"[^a-z_]+", beginning_of(path, 1000).partition(b"\n")[0].lower())
    return all(name.encode() in words for name in COLUMNS)


def read_kinetics(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, labels: str | None = None
) -> Samples:
    """Kinetics-400: CSV files with the header ``label,youtube_id,time_start,time_end,split[,is_cc]``.

    The files are ``train.csv``, ``val.csv`` (or ``valid``, ``validate``, ``validation``) and ``test.csv``, also with
    ``kinetics-400_`` or the like before that, in the folder or in ``annotations``; or one file for several splits, by
    its column ``split``. Files of test videos may lack ``label``.

    A video is ``{youtube_id}_{time_start:06d}_{time_end:06d}`` with any suffix, or a folder of frames: below the first
    there is of the folders ``videos``, ``kinetics400``, ``kinetics-400`` and ``kinetics_400``, or the root; there
    directly or in a folder of its class, however the class is written (``canonical_label``), and each of that also
    below ``train``, ``val`` and ``test`` (``videos_train``, ``train_256`` and the like). Where there is only the whole
    video, ``{youtube_id}``, the sample is its part [time_start, time_end). About a tenth of the videos is gone for
    everybody: those have ``exists=False``.

    The classes are the labels of all the files that are there, sorted.

    :param annotations: the folder of the CSV files, or one of them, where they are not at the root.
    :param videos: the folder of the videos, where that is another.
    :param labels: a file of class names, one a line, which says their order; found in any way of writing.
    :raises UsageError: there are no such files, or two for one split.
    :raises AnnotationError: a file is malformed or has no row of the split, an id is no file name or stands twice, two
        labels are one but for their writing, or a label is not in ``labels``.
    """
    source = annotations or root
    homes = _homes_of_tables(source)
    wanted = [path for path, home in homes.items() if split == "all" or home in (None, split)]
    if not wanted:
        raise UsageError(
            f"there is no CSV file for the split {split!r} here; found {', '.join(map(os.path.basename, homes))}",
            code="missing",
            path=source,
        )
    rows = {path: _rows(path, homes[path]) for path in (wanted if labels else homes)}
    classes, names = _classes(rows, labels)
    found = _Videos(home_of(os.path.dirname(root) if os.path.isfile(root) else root, videos, VIDEO_FOLDERS))
    index = {label: number for number, label in enumerate(classes)}
    samples = []
    for clip in _clips(rows, wanted, split):
        label = names.get(clip.label)
        if label is None and clip.label:
            raise unknown_label(clip.label, classes, labels or "", clip.path, clip.line)
        samples.append(found.sample(clip, label, None if label is None else index[label]))
    if not samples:
        there_are = Counter(home for path in wanted for *_, home in rows[path])
        raise fault(
            f"it has no row of the split {split!r}; found {dict(there_are) or 'none at all'}", wanted[0], code="empty"
        )
    return Samples(samples, classes, source)


def _homes_of_tables(source: str) -> dict[str, str | None]:
    """The split of each CSV file, train before val before test; None where its rows say it, which only one file may."""
    tables = find_tables(source)
    if not tables:
        raise UsageError(
            "no CSV file of Kinetics here; expected train.csv, val.csv or test.csv with the header "
            f"label,{','.join(COLUMNS)},split; --annotations names another folder, or one file",
            code="missing",
            path=source,
        )
    homes = {path: _split_of(path) for path in sorted(tables, key=lambda path: SPLITS.index(_split_of(path) or "all"))}
    twice = [path for path, home in homes.items() if home is not None and list(homes.values()).count(home) > 1]
    if twice or (len(tables) > 1 and None in homes.values()):
        raise UsageError(
            f"{' and '.join(map(quoted, map(os.path.basename, twice or tables)))} stand side by side, and it cannot be "
            "told which to take; --annotations names one file",
            path=source,
        )
    return homes


def _check_that_splits_are_said(rows: Sequence[Row], path: str) -> None:
    if not all(home for *_, home in rows):
        raise UsageError(
            "neither its name nor a column 'split' says which split it is; name it train.csv, val.csv or test.csv, "
            "or take it whole with --split all",
            path=path,
        )


def _split_of(path: str) -> str | None:
    match = _TABLE.fullmatch(os.path.basename(path))
    return canonical_split(match[1].lower()) if match else None


def _rows(path: str, home: str | None) -> list[Row]:
    """The rows of a file, each with its line and split."""
    rows: list[Row] = []
    for line, row in table_with_header(path, COLUMNS):
        said = known_split(row["split"], path, line) if "split" in row else home
        if home is not None and said != home:
            raise fault(
                f"the split is {quoted(row['split'])} in a file whose name says {home!r}; expected one of them",
                path,
                line,
            )
        if "label" not in row and said != "test":
            raise fault(
                "there is no column 'label', without which only test videos can be; expected "
                f"label,{','.join(COLUMNS)}",
                path,
                1,
            )
        if row.get("label") == "" and said != "test":
            raise fault("the label is empty; expected the name of a class", path, line)
        rows.append((line, row, said))
    return rows


def _classes(rows: dict[str, list[Row]], labels: str | None) -> tuple[list[str], dict[str, str]]:
    """The classes in order, and for each label as it stands in the files the class that it is."""
    first: dict[str, Where] = {}
    for path, table in rows.items():
        for line, row, _ in table:
            if row.get("label"):
                first.setdefault(row["label"], (path, line))
    but_for = "case, quotes, parentheses or underscores"
    refuse_lookalikes(first, "", first, form=canonical_label, but_for=but_for)
    if labels is None:
        return sorted(first), {label: label for label in first}
    classes = class_names(labels, form=canonical_label, but_for=but_for)
    by_form = {canonical_label(name): name for name in classes}
    forms = {label: canonical_label(label) for label in first}
    return classes, {label: by_form[form] for label, form in forms.items() if form in by_form}


def _clips(rows: dict[str, list[Row]], wanted: Sequence[str], split: str) -> Iterator[_Clip]:
    """The clips of the split, in the order of the files; none stands twice in them, whichever split it is of."""
    seen: dict[str, Where] = {}
    for path in wanted:
        if split != "all":
            _check_that_splits_are_said(rows[path], path)
        for line, row, home in rows[path]:
            name, start, end = _trimmed(row, path, line)
            check_once(seen, name, path, line)
            if split in ("all", home):
                yield _Clip(name, row["youtube_id"], start, end, row.get("label", ""), home, path, line)


def _trimmed(row: dict[str, str], path: str, line: int) -> tuple[str, float, float]:
    """The name of the file with this part alone, and the bounds of the part."""
    check_id(row["youtube_id"], path, line)
    start, end = part(row["time_start"], row["time_end"], path, line)
    if start is None or end is None or start != int(start) or end != int(end):
        raise fault(
            f"the part is {quoted(row['time_start'])} to {quoted(row['time_end'])}; expected whole seconds, which the "
            "names of the files have",
            path,
            line,
        )
    return f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}", start, end


class _Videos:
    """The videos below a folder, directly or in folders of splits, of classes, or both."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._finder = Finder(home)
        below = subfolders(home) if is_tree(home) else []
        self._flat = ["", *(name for name in below if _SPLIT_FOLDER.fullmatch(name))]
        self._of_class: dict[str, list[str]] = defaultdict(list)
        for folder in self._flat:
            for name in subfolders(os.path.join(home, folder)) if folder else below:
                self._of_class[canonical_label(name)].append(os.path.join(folder, name))
        self._folders: dict[str | None, Sequence[str]] = {}

    def sample(self, clip: _Clip, label: str | None, label_index: int | None) -> Sample:
        """The clip as a sample: the file of its part, or its part of the whole video."""
        there, is_whole = self._find(clip.name, clip.video, label)
        return Sample(
            id=clip.name,
            path=there or os.path.join(self._home, f"{clip.name}.mp4"),
            label=label,
            label_index=label_index,
            start_seconds=clip.start if is_whole else None,
            end_seconds=clip.end if is_whole else None,
            exists=there is not None,
            split=clip.split,
        )

    def _find(self, name: str, whole: str, label: str | None) -> tuple[str | None, bool]:
        """The path of the part, or of the whole video, and which of the two it is."""
        if label not in self._folders:
            own: Iterable[str] = () if label is None else self._of_class.get(canonical_label(label), ())
            self._folders[label] = [*own, *self._flat]
        for stem in (name, whole):
            for folder in self._folders[label]:
                there = self._finder.find(os.path.join(folder, stem))
                if there is not None:
                    return there, stem == whole
        return None, False
