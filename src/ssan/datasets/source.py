"""Formats of labelled videos, and sources, which say where videos are as a command names them.

A reader is ``read(root, split, **options) -> Samples``; a new format is one function and one line in ``FORMATS``. One
whose videos are split by a rule takes it as ``rule``, and so all that a ``SplitRule`` has as its options.
"""

import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from ssan.datasets.captions import is_captions_csv, read_captions_csv
from ssan.datasets.cvat import read_cvat
from ssan.datasets.elan import read_elan
from ssan.datasets.folders import read_csv, read_folder
from ssan.datasets.howto100m import find_howto100m, is_howto100m, read_howto100m
from ssan.datasets.kinetics import find_tables, is_table, read_kinetics
from ssan.datasets.label_studio import read_label_studio
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
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import beginning_of
from ssan.datasets.tree import is_tree, names_in, subfolders
from ssan.datasets.ucf_hmdb import find_hmdb_lists, find_ucf_lists, read_hmdb51, read_ucf101
from ssan.datasets.via import read_via
from ssan.datasets.youcook2 import find_youcook, is_youcook, read_youcook2
from ssan.errors import UsageError, printable, unknown
from ssan.video.clip import RATE_VARIABLE, TIMES_FILE, assumed_rate

OF_A_RULE = [field.name for field in fields(SplitRule)]
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
    "label_studio": read_label_studio,
    "cvat": read_cvat,
    "elan": read_elan,
    "via": read_via,
}


def detect(root: str, annotations: str | None = None, videos: str | None = None) -> str:
    """The format of what is at ``root``, by its files.

    A text file that is found by its name is taken for a list only if there are videos that its lines name, unless
    there is nothing else to be read.
    """
    source = annotations or root
    if source.lower().endswith(".csv"):
        if is_table(source) or is_howto100m(source):
            return "kinetics400" if is_table(source) else "howto100m"
        return _caption_format(source) or "csv"
    if not os.path.exists(root) and not is_tree(root):
        raise UsageError("no such file or folder; --data names the videos or their list", code="missing", path=root)
    if os.path.isfile(source):
        if is_tree(source):
            return "folder"
        return _caption_format(source) or _tool_of(source) or _format_of_lists([source]) or "folder"
    official = {
        "sthv1": find_rows(source, V1_PREFIX),
        "sthv2": find_annotations(source),
        "jester": find_rows(source, JESTER_PREFIX),
        "kinetics400": any(map(is_table, find_tables(source))),
        "ucf101": find_ucf_lists(source),
        "hmdb51": find_hmdb_lists(source),
        "msrvtt": find_msrvtt(source),
        "youcook2": find_youcook(source),
        "lsmdc": find_lsmdc(source),
        "howto100m": find_howto100m(source),
        "captions_csv": is_captions_csv(os.path.join(source, "captions.csv")),
    }
    there = [format for format, found in official.items() if found]
    if len(there) > 1:
        raise UsageError(f"here are the lists of {' and '.join(there)}; say which with --format", path=source)
    if there:
        return there[0]
    lists = _format_of_lists(lists_there(root, annotations, videos))
    if lists is None and any(name.lower().endswith(".eaf") for name in names_in(source)) and not subfolders(source):
        return "elan"
    return lists or "folder"


def _caption_format(path: str) -> str | None:
    """The format of captions that a file has, by its name or its first line; None where it has none of them."""
    forms = {"captions_csv": is_captions_csv, "msrvtt": is_msrvtt, "youcook2": is_youcook, "lsmdc": is_lsmdc}
    return next((format for format, is_of in forms.items() if is_of(path)), None)


def _tool_of(path: str) -> str | None:
    """The annotation tool that wrote a file, by its suffix and how it begins; None where none did."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".eaf":
        return "elan"
    begins = beginning_of(path, 4096) if suffix in (".json", ".xml") else b""
    if suffix == ".xml":
        return "cvat" if b"<annotations" in begins else None
    if begins.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return "label_studio" if b'"annotations"' in begins or b'"timelinelabels"' in begins else None
    return "via" if b'"project"' in begins and (b'"vid_list"' in begins or b'"pid"' in begins) else None


def _format_of_lists(paths: list[str]) -> str | None:
    """Lists of three columns are the same to both, and called TSM's."""
    for path in paths:
        kind = kind_of_list(path)
        if kind is not None:
            return "tsm_list" if kind == "rawframes" else "mmaction2_list"
    return None


def options_of(reader: Callable[..., Samples]) -> list[str]:
    """What a reader takes besides the root and the split; in the place of a rule for splits, what a rule is made of."""
    names = list(inspect.signature(reader).parameters)[2:]
    return [option for name in names for option in (OF_A_RULE if name == "rule" else [name])]


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
    known = options_of(reader)
    for name in given:
        if name not in known:
            raise UsageError(f"the format {format} does not take {name!r}; it takes {', '.join(known)}")
    taken: dict[str, Any] = dict(given)
    if "rule" in inspect.signature(reader).parameters:
        taken["rule"] = SplitRule(**{name: taken.pop(name) for name in OF_A_RULE if name in taken})
    with _collecting_paused():
        samples = reader(root, canonical_split(split), **taken)
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


@dataclass(frozen=True)
class DataSource:
    """Where labelled videos are, and how to read them.

    :param options: what the format's reader takes, such as ``annotations``, ``videos``, ``splits``, ``val_groups``; and
        ``frames_per_second``, which holds for all folders of frames that do not say it themselves, in this process and
        those that it starts.
    """

    root: str
    format: str = "auto"
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("format", "root", "split"):
            if name in self.options:
                said = "data" if name == "root" else name
                raise UsageError(f"{name}={self.options[name]} is no option of a reader; say it with --{said}")

    def read(self, split: str) -> Samples:
        options = dict(self.options)
        rate = options.pop("frames_per_second", None)
        if rate is not None:
            os.environ[RATE_VARIABLE] = rate
        told = assumed_rate()
        samples = read(self.format, self.root, split, **options)
        if told is None:
            _say_what_is_assumed(samples)
        return samples

    @classmethod
    def of(cls, data: "DataSource | Lists | str | os.PathLike[str] | tuple[Samples, Samples]") -> "DataSource | Lists":
        """What ``train`` takes as its data: a source, the path of one, or the lists for training and for validation.

        :raises UsageError: it is none of these.
        """
        if isinstance(data, DataSource | Lists):
            return data
        if isinstance(data, str | os.PathLike):
            return cls(os.fspath(data))
        if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Samples) for part in data):
            return Lists(*data)
        raise UsageError(
            f"the data are a {type(data).__name__}; expected a path, DataSource(PATH, FORMAT, OPTIONS), or two lists "
            "that `ssan.datasets.read` gives, (train, val)"
        )

    @property
    def found_format(self) -> str:
        """The format, where it was left to be found out."""
        if self.format != "auto":
            return self.format
        return detect(self.root, self.options.get("annotations"), self.options.get("videos"))

    @property
    def folder(self) -> str:
        """The folder of the videos: as named, or the one of the data or in which the list of them is."""
        named = self.options.get("videos")
        if named is not None or is_tree(self.root):
            return named or self.root
        return os.path.dirname(self.root) or "."


_said = False


def _say_what_is_assumed(samples: Iterable[Sample]) -> None:
    """Say once that seconds are counted at a rate which nothing has told, where there is a part of such a folder."""
    global _said
    for sample in samples if not _said else ():
        if sample.seconds == (None, None):
            continue
        if os.path.isdir(sample.path) and not os.path.exists(os.path.join(sample.path, TIMES_FILE)):
            _said = True
            print(
                f"ssan: {printable(sample.path)}: a part of it is given in seconds, and nothing says how many frames a "
                "second a folder of frames has; 12 are assumed, as in Something-Something and Jester. Say "
                "--reader frames_per_second=N",
                file=sys.stderr,
                flush=True,
            )
            return


@dataclass(frozen=True)
class Lists:
    """Lists of labelled videos that were read or made already, as a source.

    :raises UsageError: their classes differ.
    """

    train: Samples
    val: Samples

    def __post_init__(self) -> None:
        if self.train.classes != self.val.classes:
            raise UsageError(
                f"the lists have other classes ({len(self.train.classes)} for training, {len(self.val.classes)} for "
                "validation), or have them in another order; expected the same, as `read` gives for two splits"
            )

    @property
    def root(self) -> str:
        return self.train.source

    @property
    def format(self) -> str:
        return "lists"

    @property
    def options(self) -> dict[str, str]:
        return {}

    def read(self, split: str) -> Samples:
        return self.train if split == "train" else self.val
