"""Where labelled videos are, as a command names them."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from ssan.datasets import Samples, detect, read
from ssan.datasets.samples import Sample
from ssan.datasets.tree import is_tree
from ssan.errors import UsageError, printable
from ssan.video.clip import RATE_VARIABLE, TIMES_FILE, assumed_rate


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
