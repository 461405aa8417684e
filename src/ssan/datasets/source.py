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

    def __post_init__(self) -> None:
        for name in ("format", "root", "split"):
            if name in self.options:
                said = "data" if name == "root" else name
                raise UsageError(f"{name}={self.options[name]} is no option of a reader; say it with --{said}")

    def read(self, split: str) -> Samples:
        return read(self.format, self.root, split, **self.options)

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
