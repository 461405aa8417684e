"""UCF101 and HMDB51, each with three ways to split it into training and testing."""

import os
import re

from ssan.datasets.samples import Sample, Samples
from ssan.datasets.tables import (
    Where,
    check_id,
    check_once,
    class_names,
    fault,
    lines_of,
    number_of,
    refuse_lookalikes,
    unknown_label,
)
from ssan.datasets.tree import VIDEO_SUFFIXES, Finder, home_of, names_in
from ssan.errors import UsageError, quoted

FOLDS = ("1", "2", "3")
UCF_FOLDERS = ("UCF-101", "UCF101", "videos")
HMDB_FOLDERS = ("hmdb51_org", "videos")

_HMDB_LIST = re.compile(r"(.+)_test_split([123])\.txt")


# ----------------------------------------------------------------------------------------------------------- UCF101


def find_ucf_lists(root: str) -> str | None:
    """The folder with the lists of UCF101: this one, or ``ucfTrainTestlist`` in it; None without."""
    for folder in (root, os.path.join(root, "ucfTrainTestlist")):
        lists = (os.path.join(folder, f"{kind}list0{fold}.txt") for kind in ("train", "test") for fold in FOLDS)
        if any(map(os.path.isfile, lists)):
            return folder
    return None


def read_ucf101(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, fold: str = "1"
) -> Samples:
    """UCF101: ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``, in the folder or in ``ucfTrainTestlist``.

    A row is ``CLASS/FILE``, in the training list with the number of the class after it (in the test list it may be
    there), counted from 1 as in ``classInd.txt``, whose order the classes have. There is no list for validation:
    ``val`` and ``test`` are both the test list, ``all`` is both lists. Videos lie in folders of their classes or side
    by side, below the first there is of the folders ``UCF-101``, ``UCF101`` and ``videos``, or in the root; with any
    suffix, or as folders of frames.

    :param annotations: the folder of the lists, where they are not at the root.
    :param videos: the folder of the videos, where that is another.
    :param fold: 1, 2 or 3.
    :raises UsageError: a list is not there, or no such fold.
    :raises AnnotationError: a list is malformed or empty, or names no class or a video twice.
    """
    _check_fold(fold)
    folder = find_ucf_lists(annotations or root)
    if folder is None:
        raise UsageError(
            f"no lists of UCF101 here; expected classInd.txt, trainlist0{fold}.txt and testlist0{fold}.txt in the "
            "folder itself or in ucfTrainTestlist/; --annotations names another folder",
            code="missing",
            path=annotations or root,
        )
    named_in = os.path.join(folder, "classInd.txt")
    classes = class_names(named_in, numbered=True)
    index = {label: number for number, label in enumerate(classes)}
    videos_of = _Videos(home_of(root, videos, UCF_FOLDERS))
    samples = []
    seen: dict[str, Where] = {}
    for kind in ("train", "test") if split == "all" else ["train" if split == "train" else "test"]:
        path = os.path.join(folder, f"{kind}list0{fold}.txt")
        lines = lines_of(path, "lines of CLASS/FILE")
        if not lines:
            raise fault("there is nothing in it; expected CLASS/FILE in every line", path, code="empty")
        for line, text in lines:
            label, file, number = _class_and_file(text, path, line, is_numbered=kind == "train")
            if label not in index:
                raise unknown_label(label, classes, named_in, path, line)
            if number is not None and number != index[label] + 1:
                raise fault(
                    f"the class has the number {number}; {quoted(label)} has {index[label] + 1} in {named_in}",
                    path,
                    line,
                )
            samples.append(videos_of.sample(label, file, index[label], kind if split == "all" else split, path, line))
            check_once(seen, samples[-1].id, path, line)
    return Samples(samples, classes, folder)


def _class_and_file(text: str, path: str, line: int, *, is_numbered: bool) -> tuple[str, str, int | None]:
    """The class, the file and the number after them, where there is one; the file's name may hold blanks."""
    name, *word = text.rsplit(None, 1)
    number = number_of(word[0]) if word else None
    if number is None:
        if is_numbered:
            raise fault(f"expected CLASS/FILE and the number of the class, and found {quoted(text)}", path, line)
        name = text
    label, slash, file = name.partition("/")
    if not slash or "/" in file:
        raise fault(f"expected CLASS/FILE, and found {quoted(name)}", path, line)
    return label, file, number


# ----------------------------------------------------------------------------------------------------------- HMDB51


def find_hmdb_lists(root: str) -> str | None:
    """The folder with the lists of HMDB51: this one, or ``testTrainMulti_7030_splits`` in it; None without."""
    folders = (root, os.path.join(root, "testTrainMulti_7030_splits"))
    return next((folder for folder in folders if _hmdb_lists(folder)), None)


def read_hmdb51(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, fold: str = "1"
) -> Samples:
    """HMDB51: ``CLASS_test_splitN.txt`` for each class, in the folder or in ``testTrainMulti_7030_splits``.

    A row is ``FILE 0``, ``FILE 1`` or ``FILE 2``: of no split, for training, for testing. There is nothing for
    validation: ``val`` and ``test`` are both what is for testing; ``all`` is every video, those of no split too. The
    classes are sorted. Videos lie in folders of their classes or side by side, below the first there is of the folders
    ``hmdb51_org`` and ``videos``, or in the root; with any suffix, or as folders of frames.

    :param annotations: the folder of the lists, where they are not at the root.
    :param videos: the folder of the videos, where that is another.
    :param fold: 1, 2 or 3.
    :raises UsageError: a list is not there, or no such fold.
    :raises AnnotationError: a list is malformed or empty, or names a video twice; two classes differ only by case.
    """
    _check_fold(fold)
    folder = find_hmdb_lists(annotations or root)
    if folder is None:
        raise UsageError(
            f"no lists of HMDB51 here; expected CLASS_test_split{fold}.txt for each class in the folder itself or in "
            "testTrainMulti_7030_splits/; --annotations names another folder",
            code="missing",
            path=annotations or root,
        )
    classes = sorted({label for label, _ in _hmdb_lists(folder)})
    refuse_lookalikes(classes, folder)
    videos_of = _Videos(home_of(root, videos, HMDB_FOLDERS))
    homes = {"0": None, "1": "train", "2": "test" if split == "all" else split}
    samples = []
    seen: dict[str, Where] = {}
    for index, label in enumerate(classes):
        path = os.path.join(folder, f"{label}_test_split{fold}.txt")
        lines = lines_of(path, f"lines of 'FILE 0', 'FILE 1' or 'FILE 2' for the class {label}")
        if not lines:
            raise fault("there is nothing in it; expected 'FILE 0', 'FILE 1' or 'FILE 2' in a line", path, code="empty")
        for line, text in lines:
            file, *word = text.rsplit(None, 1)
            if not word or word[0] not in homes:
                raise fault(f"expected 'FILE 0', 'FILE 1' or 'FILE 2', and found {quoted(text)}", path, line)
            check_id(file, path, line)
            sample = videos_of.sample(label, file, index, homes[word[0]], path, line)
            check_once(seen, sample.id, path, line)
            if split == "all" or word[0] == ("1" if split == "train" else "2"):
                samples.append(sample)
    if not samples:
        raise fault(f"no video is in the split {split!r} of fold {fold}", folder, code="empty")
    return Samples(samples, classes, folder)


def _hmdb_lists(folder: str) -> list[tuple[str, str]]:
    """The class and fold of every list in a folder."""
    return [(match[1], match[2]) for match in map(_HMDB_LIST.fullmatch, names_in(folder)) if match]


# ------------------------------------------------------------------------------------------------------------- both


def _check_fold(fold: str) -> None:
    if fold not in FOLDS:
        raise UsageError(f"fold is {fold!r}; it must be one of {', '.join(FOLDS)}")


class _Videos:
    """Videos in folders of their classes or side by side."""

    def __init__(self, home: str) -> None:
        self._finder = Finder(home)

    def sample(self, label: str, file: str, index: int, split: str | None, path: str, line: int) -> Sample:
        """The video that a line of a list names."""
        check_id(file, path, line)
        there, exists = self._finder.locate(f"{label}/{file}", source=path, line=line)
        flat = None if exists else self._finder.find(file)
        stem, suffix = os.path.splitext(file)
        return Sample(
            id=f"{label}/{stem if suffix.lower() in VIDEO_SUFFIXES else file}",
            path=flat or there,
            label=label,
            label_index=index,
            exists=exists or flat is not None,
            split=split,
        )
