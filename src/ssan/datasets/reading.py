"""A data set by its path: what ``ssan.read_dataset`` is."""

import os

from ssan.datasets.samples import Samples
from ssan.datasets.source import DataSource


def read_dataset(
    source: str | os.PathLike[str], split: str = "all", *, format: str = "auto", **options: str
) -> Samples:
    """Read a list of labelled videos, in any of the layouts that ``ssan data`` reads.

    ::

        for sample in read_dataset("videos", "val"):
            print(sample.path, sample.label)

    No video is opened. The list has ``classes``, the names of all classes in the order of their indices, and ``notes``,
    a line on each thing that was left out. A sample has ``path``, ``label``, ``label_index`` and ``exists``, and of a
    part of a video where it starts and ends (``ssan.datasets.samples.Sample``).

    :param source: a folder with a folder for each class, the folder of a published data set, or a list in a file.
    :param split: ``train``, ``val``, ``test`` or ``all``.
    :param format: a name in ``ssan.datasets.FORMATS``; ``auto`` finds it out.
    :param options: what the format's reader takes, as text, such as ``val_groups="^([a-z]+)_=daria,ido"``, or
        ``frames_per_second`` of folders of frames that do not say it.
    :raises UsageError: there is nothing, the split or format is unknown, or the reader does not take an option.
    :raises AnnotationError: a list says what it should not; with its path and, where there is one, the line.
    """
    return DataSource(os.fspath(source), format, options).read(split)
