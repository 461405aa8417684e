"""Something-Something V2 in its official layouts."""

import csv
import io
import os
from typing import Any

from ssan.datasets.samples import Sample, Samples, inside, printable
from ssan.datasets.tree import Finder
from ssan.errors import AnnotationError, UsageError
from ssan.files import is_text, read_json, read_text

FILE_OF_SPLIT = {"train": "train", "val": "validation", "test": "test"}
VIDEO_FOLDERS = ("20bn-something-something-v2", "videos")
PREFIX = "something-something-v2-"
MOST_DIGITS = 9
MOST_LETTERS = 200


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
    caption is ``label``. Videos are ``{id}.webm``, another suffix, or a folder of frames ``{id}``. The test split has
    labels only where ``test-answers.csv`` (``id;class`` a line) is beside it.

    :raises AnnotationError: a file is malformed, a template is no class, or an id would lead out of the folder.
    """
    start = find_annotations(annotations or root)
    if start is None:
        raise UsageError(
            f"no Something-Something V2 annotations here; expected {PREFIX}labels.json and {PREFIX}train.json, or a "
            "folder labels/ with labels.json and train.json",
            code="missing",
            path=annotations or root,
        )
    classes = _read_classes(f"{start}labels.json")
    index = {label: number for number, label in enumerate(classes)}
    folder = videos or next(
        (os.path.join(root, name) for name in VIDEO_FOLDERS if os.path.isdir(os.path.join(root, name))), root
    )
    finder = Finder(folder)
    samples = []
    for name in FILE_OF_SPLIT if split == "all" else [split]:
        path = f"{start}{FILE_OF_SPLIT[name]}.json"
        if split == "all" and not os.path.isfile(path):
            continue
        answers = _read_answers(start) if name == "test" else {}
        for number, entry in enumerate(_entries(path), start=1):
            identity = entry["id"]
            label = entry["template"].replace("[", "").replace("]", "") if entry["template"] else answers.get(identity)
            if label is not None and label not in index:
                raise AnnotationError(
                    f"entry {number} (id {printable(identity[:80])}) has the class {label[:200]!r}, which is not in "
                    f"{start}labels.json; both files must be of one release",
                    code="unknown_label",
                    path=path,
                )
            if not identity or len(identity) > MOST_LETTERS or os.sep in identity or identity in (".", ".."):
                raise AnnotationError(
                    f"entry {number} has the id {identity[:80]!r}, which is not a file name; expected digits, as in "
                    "the official lists",
                    code="path_escape",
                    path=path,
                )
            there = finder.find(identity)
            samples.append(
                Sample(
                    id=identity,
                    path=there or inside(folder, f"{identity}.webm", source=path),
                    label=label,
                    label_index=None if label is None else index[label],
                    caption=entry["label"],
                    exists=there is not None,
                    split=name,
                )
            )
    return Samples(samples, classes, start)


def _read_classes(path: str) -> list[str]:
    content = read_json(path)
    wrong = 'expected {"class without brackets": "its index"} with indices 0, 1, 2 and so on'
    if not isinstance(content, dict) or not content:
        raise AnnotationError(wrong, code="bad_annotation", path=path)
    by_index: dict[int, str] = {}
    for label, number in content.items():
        digits = str(number)
        if not digits.isdecimal() or len(digits) > MOST_DIGITS or int(number) in by_index or not is_text(label):
            raise AnnotationError(
                f"{label[:80]!r} has the index {digits[:40]!r}; {wrong}", code="bad_annotation", path=path
            )
        by_index[int(number)] = label
    if sorted(by_index) != list(range(len(by_index))):
        raise AnnotationError(f"the indices have gaps; {wrong}", code="bad_annotation", path=path)
    return [by_index[number] for number in range(len(by_index))]


def _entries(path: str) -> list[dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise AnnotationError("expected a list of entries with an id each", code="bad_annotation", path=path)
    entries = []
    for number, entry in enumerate(content, start=1):
        fields = entry if isinstance(entry, dict) else {}
        identity, template, label = fields.get("id"), fields.get("template"), fields.get("label")
        if type(identity) not in (str, int) or not all(isinstance(v, str | None) for v in (template, label)):
            raise AnnotationError(
                f'entry {number} is {str(entry)[:80]!r}; expected {{"id", "label", "template"}} as text',
                code="bad_annotation",
                path=path,
            )
        entries.append({"id": str(identity), "template": template, "label": label})
    return entries


def _read_answers(start: str) -> dict[str, str]:
    for path in (f"{start}test-answers.csv", os.path.join(os.path.dirname(start), "test-answers.csv")):
        if os.path.isfile(path):
            text = read_text(path, "lines of id;class", error=AnnotationError)
            try:
                rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=";"))
            except csv.Error as error:
                raise AnnotationError(
                    f"not a CSV file: {error}; expected id;class", code="bad_annotation", path=path
                ) from None
            for line, row in enumerate(rows, start=1):
                if len(row) != 2:
                    raise AnnotationError("expected id;class", code="bad_annotation", path=path, line=line)
            return {row[0]: row[1] for row in rows}
    return {}
