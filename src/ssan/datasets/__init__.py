"""Lists of labelled videos in the formats people have them in, and the one dataset that reads their clips.

A reader is ``read(root, split, **options) -> Samples``; a new format is one function and one line in ``FORMATS``.
"""

import inspect
import os
from collections.abc import Callable

from ssan.datasets.folders import read_csv, read_folder
from ssan.datasets.samples import Sample, Samples, canonical_split
from ssan.datasets.something import find_annotations, read_something_v2
from ssan.errors import UsageError, unknown

__all__ = ["FORMATS", "Sample", "Samples", "detect", "read"]

FORMATS: dict[str, Callable[..., Samples]] = {
    "folder": read_folder,
    "csv": read_csv,
    "sthv2": read_something_v2,
}


def detect(root: str, annotations: str | None = None) -> str:
    """The format of what is at ``root``, by its files."""
    if (annotations or root).lower().endswith(".csv"):
        return "csv"
    if not os.path.exists(root):
        raise UsageError("no such file or folder; --data names the videos or their list", code="missing", path=root)
    return "sthv2" if find_annotations(annotations or root) else "folder"


def read(format: str, root: str | os.PathLike[str], split: str, **options: str | None) -> Samples:
    """The samples of one split (``train``, ``val``, ``test``, ``all``) of the data at ``root``.

    :param format: a key of ``FORMATS``, or ``auto``.
    :param options: what the reader takes; options that are None count as not given.
    :raises UsageError: an unknown format, split or option.
    :raises AnnotationError: annotations that are malformed; with file and, where there is one, line.
    """
    root = os.fspath(root)
    given = {name: value for name, value in options.items() if value is not None}
    if format == "auto":
        format = detect(root, given.get("annotations"))
    if format not in FORMATS:
        raise UsageError(unknown("format", format, [*FORMATS, "auto"]))
    reader = FORMATS[format]
    known = list(inspect.signature(reader).parameters)[2:]
    for name in given:
        if name not in known:
            raise UsageError(f"the format {format} does not take {name!r}; it takes {', '.join(known)}")
    return reader(root, canonical_split(split), **given)
