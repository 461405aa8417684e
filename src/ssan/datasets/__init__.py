"""Lists of labelled videos in the formats people have them in, and the one dataset that reads their clips.

A reader is ``read(root, split, **options) -> Samples``; a new format is one function and one line in ``FORMATS``.
"""

import gc
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ssan.datasets.captions import is_captions_csv, read_captions_csv
from ssan.datasets.folders import read_csv, read_folder
from ssan.datasets.folds import find_hmdb_lists, find_ucf_lists, read_hmdb51, read_ucf101
from ssan.datasets.howto100m import find_howto100m, is_howto100m, read_howto100m
from ssan.datasets.kinetics import find_tables, is_table, read_kinetics
from ssan.datasets.lists import find_lists, kind_of_list, lists_there, read_mmaction2_list, read_tsm_list
from ssan.datasets.lsmdc import find_lsmdc, is_lsmdc, read_lsmdc
from ssan.datasets.msrvtt import find_msrvtt, is_msrvtt, read_msrvtt
from ssan.datasets.samples import Sample, Samples, canonical_split
from ssan.datasets.something import (
    JESTER_PREFIX,
    V1_PREFIX,
    find_annotations,
    find_rows,
    read_jester,
    read_something_v1,
    read_something_v2,
)
from ssan.datasets.tree import is_tree
from ssan.datasets.youcook2 import find_youcook, is_youcook, read_youcook2
from ssan.errors import UsageError, printable, unknown

__all__ = ["FORMATS", "Sample", "Samples", "detect", "read"]

FORMATS: dict[str, Callable[..., Samples]] = {
    "folder": read_folder,
    "csv": read_csv,
    "sthv1": read_something_v1,
    "sthv2": read_something_v2,
    "jester": read_jester,
    "kinetics400": read_kinetics,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "tsm_list": read_tsm_list,
    "mmaction2_list": read_mmaction2_list,
    "msrvtt": read_msrvtt,
    "youcook2": read_youcook2,
    "lsmdc": read_lsmdc,
    "captions_csv": read_captions_csv,
    "howto100m": read_howto100m,
}


def detect(root: str, annotations: str | None = None, videos: str | None = None) -> str:
    """The format of what is at ``root``, by its files.

    A text file that is found by its name is taken for a list only if there are videos that its lines name, unless
    there is nothing else to be read.
    """
    place = annotations or root
    if place.lower().endswith(".csv"):
        if is_table(place) or is_howto100m(place):
            return "kinetics400" if is_table(place) else "howto100m"
        return _caption_format(place) or "csv"
    if not os.path.exists(root) and not is_tree(root):
        raise UsageError("no such file or folder; --data names the videos or their list", code="missing", path=root)
    if os.path.isfile(place):
        return "folder" if is_tree(place) else _caption_format(place) or _format_of_lists([place]) or "folder"
    official = {
        "sthv1": find_rows(place, V1_PREFIX),
        "sthv2": find_annotations(place),
        "jester": find_rows(place, JESTER_PREFIX),
        "kinetics400": any(map(is_table, find_tables(place))),
        "ucf101": find_ucf_lists(place),
        "hmdb51": find_hmdb_lists(place),
        "msrvtt": find_msrvtt(place),
        "youcook2": find_youcook(place),
        "lsmdc": find_lsmdc(place),
        "howto100m": find_howto100m(place),
        "captions_csv": is_captions_csv(os.path.join(place, "captions.csv")),
    }
    there = [format for format, found in official.items() if found]
    if len(there) > 1:
        raise UsageError(f"here are the lists of {' and '.join(there)}; say which with --format", path=place)
    if there:
        return there[0]
    return _format_of_lists(lists_there(root, annotations, videos)) or "folder"


def _caption_format(path: str) -> str | None:
    """The format of captions that a file has, by its name or its first line; None where it has none of them."""
    forms = {"captions_csv": is_captions_csv, "msrvtt": is_msrvtt, "youcook2": is_youcook, "lsmdc": is_lsmdc}
    return next((format for format, is_of in forms.items() if is_of(path)), None)


def _format_of_lists(paths: list[str]) -> str | None:
    """Lists of three columns are the same to both, and called TSM's."""
    for path in paths:
        kind = kind_of_list(path)
        if kind is not None:
            return "tsm_list" if kind == "rawframes" else "mmaction2_list"
    return None


def read(format: str, root: str | os.PathLike[str], split: str, **options: str | None) -> Samples:
    """The samples of one split (``train``, ``val``, ``test``, ``all``) of the data at ``root``.

    :param format: a key of ``FORMATS``, or ``auto``.
    :param options: what the reader takes; options that are None count as not given.
    :raises UsageError: an unknown format, split or option.
    :raises AnnotationError: annotations that are malformed; with file and, where there is one, line.
    """
    root = os.fspath(root)
    given = {name: value for name, value in options.items() if value is not None}
    found_out = format == "auto"
    if found_out:
        format = detect(root, given.get("annotations"), given.get("videos"))
    if format not in FORMATS:
        raise UsageError(unknown("format", format, [*FORMATS, "auto"]))
    reader = FORMATS[format]
    known = list(inspect.signature(reader).parameters)[2:]
    for name in given:
        if name not in known:
            raise UsageError(f"the format {format} does not take {name!r}; it takes {', '.join(known)}")
    with _collecting_paused():
        samples = reader(root, canonical_split(split), **given)
    if found_out and format == "folder":
        samples.notes += [
            f"{printable(path)} is not taken for a list, as no line of it names a video that is here; --annotations "
            "names a list"
            for paths in (find_lists(root).values() if os.path.isdir(root) else ())
            for path in paths
            if kind_of_list(path) is not None
        ]
    return samples


@contextmanager
def _collecting_paused() -> Iterator[None]:
    """No garbage collection meanwhile: a third of the time that 170,000 samples take, of which none is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
