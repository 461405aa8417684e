"""Something-Something V1 and V2, and Jester, in the layouts of their publisher."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from ssan.datasets.samples import Sample, Samples, inside
from ssan.datasets.tables import (
    Where,
    check_id,
    check_once,
    fault,
    number_of,
    refuse_link_out,
    refuse_lookalikes,
    table,
    unknown_label,
    unlike_names,
)
from ssan.datasets.tree import Finder, home_of
from ssan.errors import UsageError, quoted
from ssan.files import is_text, read_json

FILE_OF_SPLIT = {"train": "train", "val": "validation", "test": "test"}
PREFIX = "something-something-v2-"
V1_PREFIX = "something-something-v1-"
JESTER_PREFIX = "jester-v1-"
V2_FOLDERS = ("20bn-something-something-v2", "20bn-something-something-v2-frames", "videos", "frames")
V1_FOLDERS = ("20bn-something-something-v1", "frames", "videos")
JESTER_FOLDERS = ("20bn-jester-v1", "frames", "videos")


# ---------------------------------------------------------------------------------------------------- V1 and Jester


def find_rows(root: str, prefix: str) -> str | None:
    """The folder and prefix of the official CSV files in ``root`` (or its ``labels``, ``annotations``), or None."""
    starts = (os.path.join(root, *folder, prefix) for folder in ((), ("labels",), ("annotations",)))
    return next((start for start in starts if os.path.isfile(f"{start}labels.csv")), None)


def read_something_v1(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, class_order: str = "file"
) -> Samples:
    """Something-Something V1: ``something-something-v1-{train,validation,test,labels}.csv`` and folders of frames.

    A row is ``id;label``, one of the test split ``id`` alone; the labels file has one label a line. None has a header.
    The test split has labels only where ``something-something-v1-test-answers.csv`` or ``test-answers.csv``, of rows
    ``id;label``, is beside it. The frames of a video are ``{id}/00001.jpg`` and so on, in the first there is of the
    folders ``20bn-something-something-v1``, ``frames`` and ``videos`` below the root, or in the root.

    Projects disagree about the order of classes, so that indices, model files and submissions cannot be exchanged
    between them. Unsaid by the paper, our choice: that of the labels file
    (test_the_classes_of_v1_have_either_order_by_name).

    :param annotations: the folder that has the CSV files, where that is another.
    :param videos: the folder that has the folders of frames, or videos made of them.
    :param class_order: class indices by line of the labels ``file``, as mmaction2 has them, or by ``sorted`` label,
        as TSM's repository has them.
    :raises UsageError: a file is not there.
    :raises AnnotationError: a file is malformed or empty, a label is no class, an id is no file name or stands twice.
    """
    return _read_rows(root, split, V1_PREFIX, V1_FOLDERS, annotations, videos, class_order)


def read_jester(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, class_order: str = "file"
) -> Samples:
    """Jester: ``jester-v1-{train,validation,test,labels}.csv`` and folders of frames, as Something-Something V1 is.

    The frames lie in the first there is of ``20bn-jester-v1``, ``frames`` and ``videos`` below the root, or in the
    root. All else, options and errors too, is as for Something-Something V1 (``sthv1``).
    """
    return _read_rows(root, split, JESTER_PREFIX, JESTER_FOLDERS, annotations, videos, class_order)


def _read_rows(
    root: str,
    split: str,
    prefix: str,
    folders: Sequence[str],
    annotations: str | None,
    videos: str | None,
    class_order: str,
) -> Samples:
    if class_order not in ("file", "sorted"):
        raise UsageError(f"class_order is {class_order!r}; it must be 'file' or 'sorted'")
    start = _start_of_rows(annotations or root, prefix)
    named_in = refuse_link_out(f"{start}labels.csv", annotations or root, "copy it there if it is meant")
    classes = _read_lines(named_in)
    if class_order == "sorted":
        classes.sort()
    index = {label: number for number, label in enumerate(classes)}
    finder = Finder(home_of(root, videos, folders))
    samples = []
    seen: dict[str, Where] = {}
    for name in FILE_OF_SPLIT if split == "all" else [split]:
        path = f"{start}{FILE_OF_SPLIT[name]}.csv"
        if split == "all" and not os.path.isfile(path):
            continue
        answers = _read_answers(start, classes, named_in) if name == "test" else {}
        rows = table(path, ";", ["id"] if name == "test" else ["id", "label"])
        if not rows:
            raise fault("there is nothing in it; expected a video in every line", path, code="empty")
        for line, (identity, *rest) in rows:
            check_id(identity, path, line)
            check_once(seen, identity, path, line)
            label = rest[0] if rest else answers.get(identity)
            if label is not None and label not in index:
                raise unknown_label(label, classes, named_in, path, line)
            there, exists = finder.locate(identity, source=path, line=line)
            samples.append(
                Sample(
                    id=identity,
                    path=there,
                    label=label,
                    label_index=None if label is None else index[label],
                    exists=exists,
                    split=name,
                )
            )
    return Samples(samples, classes, start)


def _start_of_rows(folder: str, prefix: str) -> str:
    start = find_rows(folder, prefix)
    if start is None:
        raise UsageError(
            f"no {prefix}labels.csv here; expected it and {prefix}train.csv, {prefix}validation.csv, {prefix}test.csv "
            "in the folder itself or in labels/; --annotations names another folder",
            code="missing",
            path=folder,
        )
    return start


def _read_lines(path: str) -> list[str]:
    """The classes, one a line."""
    return unlike_names([(line, name) for line, (name,) in table(path, ";", ["label"])], path)


# --------------------------------------------------------------------------------------------------------------- V2


def find_annotations(root: str) -> str | None:
    """The folder and prefix of the official files below ``root`` (or its ``labels`` folder), or None."""
    for start in (os.path.join(root, PREFIX), os.path.join(root, "labels", PREFIX), os.path.join(root, "labels", "")):
        if os.path.isfile(f"{start}labels.json"):
            return start
    # labels.json by itself is anybody's; beside it the split files make it this layout.
    start = os.path.join(root, "")
    both = all(os.path.isfile(f"{start}{name}.json") for name in ("labels", "train"))
    return start if both else None


def read_something_v2(root: str, split: str, *, annotations: str | None = None, videos: str | None = None) -> Samples:
    """``something-something-v2-{labels,train,validation,test}.json``, or the same names without the prefix.

    The class of a video is its ``template`` without brackets; its index is the one that the labels file gives. The
    caption is ``label``. Videos are ``{id}.webm``, another suffix, or a folder of frames ``{id}``, in the first there
    is of the folders ``20bn-something-something-v2``, ``20bn-something-something-v2-frames``, ``videos`` and ``frames``
    below the root, or in the root. The test split has labels only where ``test-answers.csv`` (``id;class`` a line) is
    beside it.

    :raises UsageError: a file is not there, or is no JSON.
    :raises AnnotationError: a file is malformed, a template is no class, or an id is no file name or stands twice.
    """
    start = _start_of_json(annotations or root)
    named_in = f"{start}labels.json"
    classes = _read_classes(named_in)
    index = {label: number for number, label in enumerate(classes)}
    folder = home_of(root, videos, V2_FOLDERS)
    finder = Finder(folder)
    samples = []
    seen: dict[str, Where] = {}
    for name in FILE_OF_SPLIT if split == "all" else [split]:
        path = f"{start}{FILE_OF_SPLIT[name]}.json"
        if split == "all" and not os.path.isfile(path):
            continue
        answers = _read_answers(start, classes, named_in) if name == "test" else {}
        for number, (identity, template, caption) in enumerate(_entries(path), start=1):
            check_id(identity, path, prefix=f"entry {number}: ")
            check_once(seen, identity, path, number, unit="entry")
            label = template.replace("[", "").replace("]", "") if template else answers.get(identity)
            if label is not None and label not in index:
                error = unknown_label(label, classes, named_in, path, None)
                raise fault(f"entry {number} (id {identity}): {error.message}", path, code=error.code or "")
            there = finder.find(identity)
            samples.append(
                Sample(
                    id=identity,
                    path=there or inside(folder, f"{identity}.webm", source=path),
                    label=label,
                    label_index=None if label is None else index[label],
                    caption=caption,
                    exists=there is not None,
                    split=name,
                )
            )
    return Samples(samples, classes, start)


def _start_of_json(folder: str) -> str:
    start = find_annotations(folder)
    if start is None:
        raise UsageError(
            f"no Something-Something V2 annotations here; expected {PREFIX}labels.json and {PREFIX}train.json, or a "
            "folder labels/ with labels.json and train.json",
            code="missing",
            path=folder,
        )
    return start


def _read_classes(path: str) -> list[str]:
    def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise fault(f"the class {quoted(twice)} stands twice in it; a class has one index", path, code="duplicate")
        return dict(pairs)

    content = read_json(path, pairs=unrepeated)
    wrong = 'expected {"class without brackets": "its index"} with indices 0, 1, 2 and so on'
    if not isinstance(content, dict) or not content:
        raise fault(wrong, path)
    by_index: dict[int, str] = {}
    for label, index in content.items():
        number = number_of(str(index)[:40])
        if number is None or number in by_index or not is_text(label):
            raise fault(f"{quoted(label)} has the index {quoted(str(index), 40)}; {wrong}", path)
        by_index[number] = label
    if sorted(by_index) != list(range(len(by_index))):
        raise fault(f"the indices have gaps; {wrong}", path)
    classes = [by_index[number] for number in range(len(by_index))]
    refuse_lookalikes(classes, path)
    return classes


def _entries(path: str) -> list[tuple[str, str | None, str | None]]:
    """The id, template and label of each entry."""
    content = read_json(path)
    if not isinstance(content, list):
        raise fault("expected a list of entries with an id each", path)
    entries = []
    for number, entry in enumerate(content, start=1):
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        identity, template, label = fields.get("id"), fields.get("template"), fields.get("label")
        if type(identity) not in (str, int) or not all(isinstance(v, str | None) for v in (template, label)):
            raise fault(
                f'entry {number} is {quoted(str(entry), 80)}; expected {{"id", "label", "template"}} as text', path
            )
        entries.append((str(identity), template, label))
    return entries


# ------------------------------------------------------------------------------------------------------------- both


def _read_answers(start: str, classes: Sequence[str], named_in: str) -> dict[str, str]:
    """The labels of the test split by id, for those who have them."""
    for path in (f"{start}test-answers.csv", os.path.join(os.path.dirname(start), "test-answers.csv")):
        if os.path.isfile(path):
            known, answers = set(classes), {}
            seen: dict[str, Where] = {}
            for line, (identity, label) in table(path, ";", ["id", "class"]):
                check_once(seen, identity, path, line)
                if label not in known:
                    raise unknown_label(label, classes, named_in, path, line)
                answers[identity] = label
            return answers
    return {}


def read_test_list(format: Literal["sthv1", "sthv2"], annotations: str) -> tuple[list[str], list[str]]:
    """The ids of the test split in the order of the official list, and the classes in that of the labels file.

    No videos are looked for, and no answers.

    :param annotations: the folder that has both files, in a layout of the format; or the list itself, which has the
        labels file beside it.
    :raises UsageError: a file is not there.
    :raises AnnotationError: one is malformed, or an id is no file name or stands twice.
    """
    ending, unit = (".csv", "line") if format == "sthv1" else (".json", "entry")
    if os.path.isdir(annotations):
        start = _start_of_rows(annotations, V1_PREFIX) if format == "sthv1" else _start_of_json(annotations)
    elif annotations.endswith(f"test{ending}"):
        start = annotations.removesuffix(f"test{ending}")
    else:
        raise UsageError(
            f"expected the list of the test split, whose name ends in test{ending}, or the folder with it and the "
            f"labels of {format}",
            path=annotations,
        )
    path, named_in = f"{start}test{ending}", f"{start}labels{ending}"
    if format == "sthv1":
        classes = _read_lines(named_in)
        ids = [(line, identity) for line, (identity,) in table(path, ";", ["id"])]
    else:
        classes = _read_classes(named_in)
        ids = [(number, identity) for number, (identity, _, _) in enumerate(_entries(path), start=1)]
    if not ids:
        raise fault("there is nothing in it; expected the id of a video in every line", path, code="empty")
    seen: dict[str, Where] = {}
    for number, identity in ids:
        check_id(identity, path, number if unit == "line" else None)
        check_once(seen, identity, path, number, unit=unit)
    return [identity for _, identity in ids], classes
