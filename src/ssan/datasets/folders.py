"""Folders of classes and CSV files, which hold a user's own videos."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssan.datasets.samples import Sample, Samples
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import (
    Where,
    check_once,
    fault,
    frame_part,
    known_split,
    number_of,
    part,
    refuse_lookalikes,
    table_with_header,
)
from ssan.datasets.tree import (
    Finder,
    Found,
    identity,
    is_frame_folder,
    is_tree,
    look_for_videos,
    loose_videos,
    subfolders,
)
from ssan.errors import AnnotationError, UsageError, printable, quoted
from ssan.files import is_text

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


def read_folder(
    root: str,
    split: str,
    *,
    rule: SplitRule,
    class_folder: str | None = None,
) -> Samples:
    """A folder of classes: ``ROOT/{train,val,test}/CLASS/FILE``, or ``ROOT/CLASS/FILE`` with a rule for the split.

    :param split: ``train``, ``val``, ``test``, or ``all``, which needs no rule; and no classes, so that videos without
        labels can be listed and checked. Two files of one name but for the suffix are refused unless it is ``all``.
    :param rule: which of the videos are for validation, where the folder does not say it.
    :param class_folder: whether the ``first`` folder on the way to a video names its class, the default, or the
        ``last``, in which the video itself lies.
    :raises UsageError: no such folder, no class in it, or no way to tell the split.
    """
    if not is_tree(root):
        raise UsageError("no such folder; --data names the folder of videos", code="missing", path=root)
    if class_folder not in (None, "first", "last"):
        raise UsageError(f"class_folder is {class_folder!r}; it must be 'first' or 'last'")
    tree = _Tree(root, class_folder)
    has_own_split = tree.look_at_all(rule.given)
    homes: dict[str, str] = {}
    said: list[str] = []
    if not has_own_split and (split != "all" or rule.given):
        homes, said = rule.homes(root, [(label, path) for _, label, path in tree.videos])
    if not tree.classes and split == "all" and not rule.given:
        tree.take_unlabelled()
    if not tree.classes and not tree.videos:
        raise UsageError(
            "the folder has no class folders; expected FOLDER/CLASS/FILE or FOLDER/train/CLASS/FILE", path=root
        )
    _check_class_names(tree.classes, root)
    index: dict[str | None, int] = {label: number for number, label in enumerate(tree.classes)}
    found = [(homes.get(path, home), label, path) for home, label, path in tree.videos]
    found = [(home, label, path) for home, label, path in found if split in ("all", home)]
    names = _identities([path for _, _, path in found], root, keep_apart=split == "all")
    return Samples(
        (
            Sample(id=name, path=path, label=label, label_index=index.get(label), split=home or None)
            for name, (home, label, path) in zip(names, found, strict=True)
        ),
        tree.classes,
        root,
        [*tree.notes(), *said],
    )


def _check_class_names(classes: Sequence[str], root: str) -> None:
    unwritable = next((label for label in classes if not is_text(label)), None)
    if unwritable is not None:
        raise AnnotationError(
            f"the name of the class folder {quoted(unwritable)} is not UTF-8, so it is no label; name it otherwise",
            code="bad_annotation",
            path=root,
        )
    refuse_lookalikes(classes, root)


def _split_folders(root: str, folders: Sequence[str]) -> list[str]:
    """Those of the folders that are splits: by their names, if one is for training, or there is nothing but splits.

    Of a folder that has none for training, one split at least must have class folders: else ``test`` is a class.
    """
    named = [name for name in folders if name.lower() in SPLIT_FOLDERS]
    if "train" in [SPLIT_FOLDERS[name.lower()] for name in named]:
        return named
    if len(named) < len(folders):
        return []
    below = [os.path.join(root, name, label) for name in named for label in subfolders(os.path.join(root, name))]
    return named if any(not os.path.isdir(path) or not is_frame_folder(path) for path in below) else []


class _Tree:
    """The videos below class folders: the split, the label and the path of each, and what was left out."""

    def __init__(self, root: str, class_folder: str | None) -> None:
        self.root, self.class_folder = root, class_folder
        self.videos: list[tuple[str, str | None, str]] = []
        self._labels: set[str] = set()
        self._found = Found()
        self._loose: list[str] = []
        self._deeper: list[str] = []

    def look_at_all(self, rules: Sequence[str]) -> bool:
        """Take the videos in all class folders; whether these lie in folders of their splits.

        :param rules: the options that say the split, with which there must be no such folders.
        """
        folders = subfolders(self.root)
        by_split = _split_folders(self.root, folders)
        if not by_split:
            self._look(self.root, folders)
            return False
        if rules:
            raise UsageError(
                f"the folder has its own split ({', '.join(by_split)}); leave out {' and '.join(rules)}", path=self.root
            )
        stray = sorted(set(folders) - set(by_split))
        if stray:
            raise UsageError(
                f"the folder {quoted(stray[0])} lies beside {', '.join(by_split)} and belongs to no split; put it into "
                "one of them, or elsewhere",
                path=self.root,
            )
        for name in by_split:
            folder = os.path.join(self.root, name)
            self._look(folder, subfolders(folder), SPLIT_FOLDERS[name.lower()])
        return True

    def _look(self, folder: str, labels: Sequence[str], home: str = "") -> None:
        """Take the videos in the class folders of a split, or of all that there is."""
        for label in labels:
            of_class = os.path.join(folder, label)
            found = look_for_videos(of_class)
            self._found.add(found)
            if self.class_folder != "last":
                self._labels.add(label)
                self.videos += [(home, label, path) for path in found.videos]
                self._deeper += [p for p in found.videos if p != of_class and os.path.dirname(p) != of_class]
                continue
            for path in found.videos:
                if path == of_class:
                    self._loose.append(path)
                    continue
                last = os.path.basename(os.path.dirname(path))
                self._labels.add(last)
                self.videos.append((home, last, path))
        self._loose += loose_videos(folder)

    def take_unlabelled(self) -> None:
        """Take every video, where there are no classes."""
        self._found, self._loose = look_for_videos(self.root), []
        self.videos = [("", None, path) for path in self._found.videos if path != self.root]

    @property
    def classes(self) -> list[str]:
        return sorted(self._labels)

    def notes(self) -> list[str]:
        """How the folder was read, where it can be read in another way, and what was left out."""
        notes = self._found.notes()
        if self._loose:
            first = printable(self._loose[0])
            notes.append(
                f"{len(self._loose)} videos lie in no class folder and are left out, such as {first}; put them into one"
            )
        if self._deeper and self.class_folder is None:
            example = printable(os.path.relpath(self._deeper[0], self.root))
            notes.append(
                f"classes are the first folders, such as {quoted(min(self._labels))}; {len(self._deeper)} of "
                f"{len(self.videos)} videos lie deeper, such as {example}. Where the last folder is the class, say "
                "--reader class_folder=last"
            )
        return notes


def _identities(paths: Sequence[str], root: str, *, keep_apart: bool) -> list[str]:
    """Ids of videos; ``keep_apart`` leaves the suffix on where it alone tells two of them apart."""
    names = [identity(path, root) for path in paths]
    counts = Counter(names)
    return [
        identity(path, root, suffix=True) if keep_apart and counts[name] > 1 else name
        for path, name in zip(paths, names, strict=True)
    ]


def read_csv(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    class_order: str = "sorted",
    rule: SplitRule,
) -> Samples:
    """A CSV file with a header: ``path,label``, and any of ``split,caption,id,num_frames`` and the bounds of parts.

    A file without a column ``split`` is split by a rule, as a folder is; parts of one video stay together.

    A video is found under another suffix too, or as a folder of frames, if it has been converted. A row with a start or
    an end is a part of a video, [start, end), from the beginning of the video on: ``start_seconds,end_seconds``, or
    ``start_frame,end_frame``, which count frames from 0.

    :param root: the file, or the folder of videos where ``annotations`` names the file.
    :param videos: the folder that paths are relative to; by default the one that the file is in.
    :param class_order: class indices by ``sorted`` label, or by first appearance in the ``file``.
    :param rule: which of the videos are for validation, where there is no column ``split``; it has no ``splits``.
    """
    table = annotations or root
    folder = videos or (root if annotations else os.path.dirname(os.path.abspath(root)))
    if class_order not in ("sorted", "file"):
        raise UsageError(f"class_order is {class_order!r}; it must be 'sorted' or 'file'")
    if rule.splits is not None:
        raise UsageError("--splits: a table has its splits in a column 'split'; write them there", path=table)
    rows = table_with_header(table, ("path", "label"))
    has_own_split = bool(rows) and "split" in rows[0][1]
    if has_own_split and rule.given:
        raise UsageError(
            f"{' and '.join(rule.given)}: the file says the splits itself, in its column 'split'; leave one out",
            path=table,
        )
    if split != "all" and rows and not has_own_split and not rule.given:
        raise UsageError(
            "the file has no column 'split', so it cannot tell which videos are for training; add one (train, val, "
            "test), give --val-fraction 0.2, --fold 1/5 or --val-groups 'REGEX=a,b,c', or take them all with --split "
            "all",
            path=table,
        )
    _refuse_bounds_without_unit(list(rows[0][1]) if rows else [], table)
    classes = _classes_of_rows(rows, table)
    if class_order == "sorted":
        classes.sort()
    index = {label: number for number, label in enumerate(classes)}
    samples: list[Sample] = []
    seen: dict[str, Where] = {}
    finder = Finder(folder)
    places = [finder.locate(row["path"], source=table, line=line) for line, row in rows]
    homes: dict[str, str] = {}
    said: list[str] = []
    if rule.given:
        listed = [(row["label"], path) for (_, row), (path, _) in zip(rows, places, strict=True)]
        homes, said = rule.homes(folder, listed)
    for (line, row), (path, exists) in zip(rows, places, strict=True):
        home = homes.get(path)
        if has_own_split and (split != "all" or row.get("split")):
            home = known_split(row["split"], table, line)
        identity = row.get("id") or Path(row["path"]).with_suffix("").as_posix()
        check_once(seen, identity, table, line, advice=" (a column id sets them)")
        frames = row.get("num_frames") or ""
        if frames and number_of(frames) is None:
            raise fault(f"num_frames is {quoted(frames, 40)}; expected a whole number", table, line)
        bounds = _bounds(row, table, line)
        if split in ("all", home):
            samples.append(
                Sample(
                    id=identity,
                    path=path,
                    label=row["label"] or None,
                    label_index=index.get(row["label"]),
                    num_frames=number_of(frames),
                    caption=row.get("caption") or None,
                    exists=exists,
                    split=home,
                    **bounds,
                )
            )
    return Samples(samples, classes, table, said)


def _refuse_bounds_without_unit(columns: Sequence[str], table: str) -> None:
    """Refuse bounds that would be passed over: each row would then be taken for all of its video."""
    meant = [name for name in columns if name.lower() in ("start", "end", "stop", "start_time", "end_time")]
    if meant:
        raise fault(
            f"the column {quoted(meant[0])} does not say whether it is seconds or frames; name the bounds of parts "
            "start_seconds and end_seconds, or start_frame and end_frame (from 0, without the last)",
            table,
            1,
        )


def _classes_of_rows(rows: Sequence[tuple[int, dict[str, str]]], table: str) -> list[str]:
    """The labels of all rows, in the order in which they first appear."""
    first: dict[str, Where] = {}
    for line, row in rows:
        if row["label"]:
            first.setdefault(row["label"], (table, line))
    refuse_lookalikes(first, table, first)
    return list(first)


def _bounds(row: Mapping[str, str], table: str, line: int) -> dict[str, Any]:
    """The fields of a sample that say which part of the video it is, in seconds or in frames."""
    start, end = part(row.get("start_seconds"), row.get("end_seconds"), table, line)
    begin, stop = frame_part(row.get("start_frame"), row.get("end_frame"), table, line)
    if (begin, stop) != (None, None) != (start, end):
        raise fault("the part has bounds in seconds and in frames; expected one of the two", table, line)
    return {"start_seconds": start, "end_seconds": end, "start_frame": begin, "end_frame": stop}
