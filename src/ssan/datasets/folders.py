"""A user's own videos: a folder of classes, or a CSV file."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ssan.datasets.samples import Sample, Samples, inside
from ssan.datasets.tables import (
    Where,
    check_once,
    fault,
    known_split,
    number_of,
    part,
    refuse_lookalikes,
    table_with_header,
)
from ssan.datasets.tree import Finder, find_videos, identity, is_tree, subfolders
from ssan.errors import AnnotationError, UsageError, printable, quoted
from ssan.files import is_text

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
    refuse_lookalikes(classes, root)
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
    """Ids of videos; ``keep_apart`` leaves the suffix on where it alone tells two of them apart."""
    names = [identity(path, root) for path in paths]
    counts = Counter(names)
    return [
        identity(path, root, suffix=True) if keep_apart and counts[name] > 1 else name
        for path, name in zip(paths, names, strict=True)
    ]


def _split_rule(root: str, splits: str | None, val_groups: str | None, paths: list[str]) -> dict[str, str]:
    if splits and val_groups:
        raise UsageError("--splits and --val-groups say the same thing twice; give one of them")
    if splits:
        homes: dict[str, str] = {}
        there = {os.path.normpath(path): path for path in paths}
        for line, row in table_with_header(splits, ("path", "split")):
            path = inside(root, row["path"], source=splits, line=line)
            path = there.get(path, path)
            if path in homes:
                raise AnnotationError(
                    f"{quoted(row['path'])} stands in an earlier line too; a video has one line",
                    code="duplicate",
                    path=splits,
                    line=line,
                )
            homes[path] = known_split(row["split"], splits, line)
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
    rows = table_with_header(table, ("path", "label"))
    if split != "all" and rows and "split" not in rows[0][1]:
        raise UsageError(
            "the file has no column 'split', so it cannot tell which videos are for training; add one (train, val, "
            "test), or take them all with --split all",
            path=table,
        )
    first: dict[str, Where] = {}
    for line, row in rows:
        if row["label"]:
            first.setdefault(row["label"], (table, line))
    refuse_lookalikes(first, table, first)
    classes = sorted(first) if class_order == "sorted" else list(first)
    index = {label: number for number, label in enumerate(classes)}
    samples: list[Sample] = []
    seen: dict[str, Where] = {}
    finder = Finder(folder)
    for line, row in rows:
        wanted = split == "all" or known_split(row["split"], table, line) == split
        path, exists = finder.locate(row["path"], source=table, line=line)
        identity = row.get("id") or Path(row["path"]).with_suffix("").as_posix()
        check_once(seen, identity, table, line, advice=" (a column id sets them)")
        frames = row.get("num_frames") or ""
        if frames and number_of(frames) is None:
            raise fault(f"num_frames is {frames[:40]!r}; expected a whole number", table, line)
        start, end = part(row.get("start_seconds"), row.get("end_seconds"), table, line)
        if not wanted:
            continue
        samples.append(
            Sample(
                id=identity,
                path=path,
                label=row["label"] or None,
                label_index=index.get(row["label"]),
                start_seconds=start,
                end_seconds=end,
                num_frames=number_of(frames),
                caption=row.get("caption") or None,
                exists=exists,
                split=known_split(row["split"], table, line) if row.get("split") else None,
            )
        )
    return Samples(samples, classes, table)
