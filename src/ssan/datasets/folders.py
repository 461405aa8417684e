"""A user's own videos: a folder of classes, or a CSV file."""

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssan.datasets.samples import (
    SPLIT_ALIASES,
    Sample,
    Samples,
    canonical_split,
    inside,
    printable,
    quoted,
)
from ssan.datasets.tree import Finder, find_videos, is_tree, subfolders
from ssan.errors import AnnotationError, UsageError, unknown
from ssan.files import is_text, read_text

MOST_DIGITS = 9
MOST_SECONDS = 1e9
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


def read_folder(root: str, split: str, *, splits: str | None = None, val_groups: str | None = None) -> Samples:
    """A folder of classes: ``ROOT/{train,val,test}/CLASS/FILE``, or ``ROOT/CLASS/FILE`` with a rule for the split.

    :param split: ``train``, ``val``, ``test``, or ``all``, which needs no rule; and no classes, so that videos without
        labels can be listed and checked. Two files of one name but for the suffix are refused unless it is ``all``.
    :param splits: a CSV file with columns ``path,split``; paths are relative to ``root``. Videos that it does not name
        belong to no split.
    :param val_groups: ``REGEX=a,b,c``: a video whose file name matches, with one of a, b, c as the regex's group, is in
        ``val``, all others in ``train``. For splitting by person, place or source rather than at random.
    :raises UsageError: no such folder, no class in it, or no way to tell the split.
    """
    if not is_tree(root):
        raise UsageError("no such folder; --data names the folder of videos", code="missing", path=root)
    folders = subfolders(root)
    by_split = [name for name in folders if name.lower() in SPLIT_FOLDERS]
    if "train" in [SPLIT_FOLDERS[name.lower()] for name in by_split]:
        if splits or val_groups:
            raise UsageError(
                f"the folder has its own split ({', '.join(by_split)}); leave out --splits and --val-groups", path=root
            )
        stray = sorted(set(folders) - set(by_split))
        if stray:
            raise UsageError(
                f"the folder {quoted(stray[0])} lies beside {', '.join(by_split)} and belongs to no split; put it into "
                "one of them, or elsewhere",
                path=root,
            )
        homes = [(SPLIT_FOLDERS[name.lower()], name) for name in by_split]
        classes = sorted({c for _, name in homes for c in subfolders(os.path.join(root, name))})
        found: list[tuple[str, str | None, str]] = [
            (home, label, path)
            for home, name in homes
            for label in subfolders(os.path.join(root, name))
            for path in find_videos(os.path.join(root, name, label))
        ]
    else:
        classes = folders
        found = [("", label, path) for label in classes for path in find_videos(os.path.join(root, label))]
        if split != "all" or splits or val_groups:
            rule = _split_rule(root, splits, val_groups, [path for _, _, path in found])
            found = [(rule.get(path, ""), label, path) for _, label, path in found]
    if not classes and split == "all" and not (splits or val_groups):
        found = [("", None, path) for path in find_videos(root) if path != root]
    if not classes and not found:
        raise UsageError(
            "the folder has no class folders; expected FOLDER/CLASS/FILE or FOLDER/train/CLASS/FILE", path=root
        )
    unwritable = next((label for label in classes if not is_text(label)), None)
    if unwritable is not None:
        raise AnnotationError(
            f"the name of the class folder {quoted(unwritable)} is not UTF-8, so it is no label; name it otherwise",
            code="bad_annotation",
            path=root,
        )
    _refuse_lookalikes(classes, root)
    index: dict[str | None, int] = {label: number for number, label in enumerate(classes)}
    found = [(home, label, path) for home, label, path in found if split in ("all", home)]
    names = _identities([path for _, _, path in found], root, keep_apart=split == "all")
    return Samples(
        (
            Sample(id=name, path=path, label=label, label_index=index.get(label), split=home or None)
            for name, (home, label, path) in zip(names, found, strict=True)
        ),
        classes,
        root,
    )


def _identities(paths: Sequence[str], root: str, *, keep_apart: bool) -> list[str]:
    """Paths relative to the root, without suffix; ``keep_apart`` leaves it on where it alone tells two videos apart."""
    whole = [Path(os.path.relpath(path, root)) for path in paths]
    short = [name if os.path.isdir(path) else name.with_suffix("") for path, name in zip(paths, whole, strict=True)]
    counts = Counter(short)
    return [_as_id(name if keep_apart and counts[stem] > 1 else stem) for name, stem in zip(whole, short, strict=True)]


def _as_id(path: Path) -> str:
    name = path.as_posix()
    # An id is text wherever it goes; bytes that are none are written as \xff.
    return name if is_text(name) else os.fsencode(name).decode("utf-8", "backslashreplace")


def _refuse_lookalikes(classes: Iterable[str], source: str, lines: Mapping[str, int] | None = None) -> None:
    folded: dict[str, str] = {}
    for label in classes:
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            raise AnnotationError(
                f"the classes {quoted(other)} and {quoted(label)} differ only by case; make them one, or name them "
                "apart",
                code="bad_annotation",
                path=source,
                line=None if lines is None else lines[label],
            )


def _split_rule(root: str, splits: str | None, val_groups: str | None, paths: list[str]) -> dict[str, str]:
    if splits and val_groups:
        raise UsageError("--splits and --val-groups say the same thing twice; give one of them")
    if splits:
        homes: dict[str, str] = {}
        there = {os.path.normpath(path): path for path in paths}
        for line, row in _rows(splits, ("path", "split")):
            path = inside(root, row["path"], source=splits, line=line)
            path = there.get(path, path)
            if path in homes:
                raise AnnotationError(
                    f"{quoted(row['path'])} stands in an earlier line too; a video has one line",
                    code="duplicate",
                    path=splits,
                    line=line,
                )
            homes[path] = _known_split(row["split"], splits, line)
        present = set(paths)
        absent = [path for path in homes if path not in present]
        if absent:
            raise AnnotationError(
                f"{len(absent)} of {len(homes)} videos that it names are not in {root}, first {printable(absent[0])}; "
                "paths must be relative to that folder",
                code="missing",
                path=splits,
            )
        return homes
    if val_groups:
        pattern, equals, names = val_groups.rpartition("=")
        groups = {name.strip() for name in names.split(",") if name.strip()}
        if not equals or not groups:
            raise UsageError(f"--val-groups is {val_groups!r}; expected REGEX=a,b,c, such as '^([a-z]+)_=ann,bob'")
        try:
            regex = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"--val-groups: {pattern!r} is not a regular expression: {error}") from None
        if regex.groups < 1:
            raise UsageError(f"--val-groups: {pattern!r} has no group; put the part that names the group in ( )")
        homes, seen = {}, set()
        for path in paths:
            match = regex.search(os.path.basename(path))
            group = match.group(1) if match else None
            seen.add(group)
            homes[path] = "val" if group in groups else "train"
        if groups - seen:
            found = ", ".join(sorted(name for name in seen if name)) or "none"
            raise UsageError(f"--val-groups: no file has the group {min(groups - seen)!r}; found: {found}")
        return homes
    raise UsageError(
        "the folder does not say which videos are for training and which for validation. Make FOLDER/train and "
        "FOLDER/val, or give --splits CSV (columns path,split), or --val-groups 'REGEX=a,b,c' (file names whose group "
        "is a, b or c are for validation); --split all takes every video",
        path=root,
    )


def read_csv(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, class_order: str = "sorted"
) -> Samples:
    """A CSV file with a header: ``path,label``, and of ``split,caption,id,num_frames,start_seconds,end_seconds`` any.

    A video is found under another suffix too, or as a folder of frames, if it has been converted. A row with a start or
    an end is a part of a video, [start, end), from the beginning of the video on.

    :param root: the file, or the folder of videos where ``annotations`` names the file.
    :param videos: the folder that paths are relative to; by default the one that the file is in.
    :param class_order: class indices by ``sorted`` label, or by first appearance in the ``file``.
    """
    table = annotations or root
    folder = videos or (root if annotations else os.path.dirname(os.path.abspath(root)))
    if class_order not in ("sorted", "file"):
        raise UsageError(f"class_order is {class_order!r}; it must be 'sorted' or 'file'")
    rows = list(_rows(table, ("path", "label")))
    if split != "all" and rows and "split" not in rows[0][1]:
        raise UsageError(
            "the file has no column 'split', so it cannot tell which videos are for training; add one (train, val, "
            "test), or take them all with --split all",
            path=table,
        )
    first_line: dict[str, int] = {}
    for line, row in rows:
        if row["label"]:
            first_line.setdefault(row["label"], line)
    _refuse_lookalikes(first_line, table, first_line)
    classes = sorted(first_line) if class_order == "sorted" else list(first_line)
    index = {label: number for number, label in enumerate(classes)}
    samples: list[Sample] = []
    lines: dict[str, int] = {}
    finder = Finder(folder)
    for line, row in rows:
        wanted = split == "all" or _known_split(row["split"], table, line) == split
        path = inside(folder, row["path"], source=table, line=line)
        if path == os.path.normpath(folder):
            raise AnnotationError(
                f"the path is {quoted(row['path'])}; expected a file below {folder}",
                code="bad_annotation",
                path=table,
                line=line,
            )
        identity = row.get("id") or Path(row["path"]).with_suffix("").as_posix()
        if identity in lines:
            raise AnnotationError(
                f"the id {quoted(identity)} stands in line {lines[identity]} too; ids must differ (a column id sets "
                "them)",
                code="duplicate",
                path=table,
                line=line,
            )
        lines[identity] = line
        frames = row.get("num_frames") or ""
        if frames and not (frames.isdecimal() and len(frames) <= MOST_DIGITS):
            raise AnnotationError(
                f"num_frames is {frames[:40]!r}; expected a whole number", code="bad_annotation", path=table, line=line
            )
        start, end = part(row.get("start_seconds"), row.get("end_seconds"), table, line)
        if not wanted:
            continue
        there = finder.find(os.path.relpath(path, folder))
        samples.append(
            Sample(
                id=identity,
                path=there or path,
                label=row["label"] or None,
                label_index=index.get(row["label"]),
                start_seconds=start,
                end_seconds=end,
                num_frames=int(frames) if frames else None,
                caption=row.get("caption") or None,
                exists=there is not None,
                split=_known_split(row["split"], table, line) if row.get("split") else None,
            )
        )
    return Samples(samples, classes, table)


def part(start: str | None, end: str | None, source: str, line: int) -> tuple[float | None, float | None]:
    """The bounds of a part of a video, in seconds, from what an annotation says; nothing said is None."""
    bounds = []
    for word in (start, end):
        try:
            value = float(word) if word else None
        except ValueError:
            value = math.nan
        if value is not None and not (0 <= value < MOST_SECONDS):
            raise AnnotationError(
                f"{quoted(str(word))} is no time; expected seconds from the beginning of the video, such as 12.5",
                code="bad_annotation",
                path=source,
                line=line,
            )
        bounds.append(value)
    first, last = bounds
    if last is not None and last <= (first or 0):
        raise AnnotationError(
            f"the part ends at {last:g} s and starts at {first or 0:g} s; expected an end after the start",
            code="bad_annotation",
            path=source,
            line=line,
        )
    return first, last


def _rows(path: str, required: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header, each with its line number; malformed ones are named."""
    if os.path.isdir(path):
        raise UsageError("a folder, where a CSV file was expected", path=path)
    text = read_text(path, "a CSV file", error=AnnotationError)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        table = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise AnnotationError(
            f"not a CSV file: {error}; expected values separated by commas",
            code="bad_annotation",
            path=path,
            line=reader.line_num,
        ) from None
    header = [cell.strip() for cell in table[0][1]] if table else []
    absent = [name for name in required if name not in header]
    if absent:
        raise AnnotationError(
            f"the first line has no column {absent[0]!r}; expected a header with {','.join(required)}, separated by "
            f"commas, and found {quoted(','.join(header) or 'nothing')}",
            code="bad_annotation",
            path=path,
            line=1,
        )
    twice = next((name for place, name in enumerate(header) if name in header[:place]), None)
    if twice is not None:
        raise AnnotationError(
            f"the column {quoted(twice)} stands twice in the header; leave out one",
            code="bad_annotation",
            path=path,
            line=1,
        )
    for line, cells in table[1:]:
        if len(cells) != len(header):
            raise AnnotationError(
                f"{len(cells)} values where the header has {len(header)} columns; put values with commas in quotes",
                code="bad_annotation",
                path=path,
                line=line,
            )
    return [(line, dict(zip(header, map(str.strip, cells), strict=True))) for line, cells in table[1:]]


def _known_split(word: str, source: str, line: int) -> str:
    known = {"train", "val", "test", *SPLIT_ALIASES}
    if word not in known:
        raise AnnotationError(unknown("split", word[:80], known), code="bad_annotation", path=source, line=line)
    return canonical_split(word)
