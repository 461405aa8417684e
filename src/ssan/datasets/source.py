"""Where labelled videos are, as a command names them."""

import os
from dataclasses import dataclass, field

from ssan.datasets import Samples, detect, read
from ssan.datasets.tree import is_tree
from ssan.errors import UsageError


@dataclass(frozen=True)
class DataSource:
    """Where labelled videos are, and how to read them.

    :param options: what the format's reader takes, such as ``annotations``, ``videos``, ``splits``, ``val_groups``.
    """

    root: str
    format: str = "auto"
    options: dict[str, str] = field(default_factory=dict)

    def read(self, split: str) -> Samples:
        return read(self.format, self.root, split, **self.options)

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
        return detect(self.root, self.options.get("annotations")) if self.format == "auto" else self.format

    @property
    def folder(self) -> str:
        """The folder of the videos: as named, or the one of the data or in which the list of them is."""
        named = self.options.get("videos")
        if named is not None or is_tree(self.root):
            return named or self.root
        return os.path.dirname(self.root) or "."


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
