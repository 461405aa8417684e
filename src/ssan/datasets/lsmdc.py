"""LSMDC, clips of films. Source: Rohrbach et al., IJCV 2017."""

import os
import re
from collections.abc import Iterator

from ssan.datasets.captions import CaptionIds, VideosById, caption_of
from ssan.datasets.lists import split_named
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.tables import check_id, fault, lines_of
from ssan.datasets.tree import names_in
from ssan.errors import AnnotationError, UsageError, few, quoted, unknown

LSMDC_COLUMNS = ("video id", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")
LSMDC_FOLDERS = ("videos", "avi")
LSMDC_ENCODINGS = ("utf-8", "cp1252", "latin-1")
LSMDC_FORMS = {
    "train": re.compile(r"LSMDC\d\d_annos_training\w*\.csv", re.IGNORECASE),
    "val": re.compile(r"LSMDC\d\d_annos_val\w*\.csv", re.IGNORECASE),
    "test": re.compile(r"LSMDC\d\d_challenge_1000_public\w*\.csv", re.IGNORECASE),
}


def find_lsmdc(root: str) -> dict[str, list[str]]:
    """The files of LSMDC in a folder, or in its ``annotations``, by split."""
    for folder in (root, os.path.join(root, "annotations")):
        names = names_in(folder)
        found = {
            split: [os.path.join(folder, name) for name in names if form.fullmatch(name)]
            for split, form in LSMDC_FORMS.items()
        }
        if any(found.values()):
            return {split: paths for split, paths in found.items() if paths}
    return {}


def is_lsmdc(path: str) -> bool:
    """Whether a file has a name of LSMDC's; it has no header."""
    return any(form.fullmatch(os.path.basename(path)) for form in LSMDC_FORMS.values())


def read_lsmdc(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, encoding: str = "utf-8"
) -> Samples:
    """LSMDC: six columns separated by tabs, without a header; a caption a line, of a clip that is a file of its own.

    The columns are the id of the clip, four times, and the sentence; quotes are letters like others. The times are
    those in the film, not in the clip: samples have no part. The files are ``LSMDC16_annos_training.csv``,
    ``LSMDC16_annos_val.csv`` and, for testing, the 1,000 pairs of ``LSMDC16_challenge_1000_publictect.csv``, in the
    folder or in ``annotations``; or one file, for the split that its name says, or else for whichever is asked for.

    The id is ``{clip}#`` and the number of the caption among those of its clip, from 0; ``video`` is the clip. Videos
    are ``{clip}.avi`` or of another suffix, in the root, ``videos`` or ``avi``: there directly, or in a folder of their
    film.

    :param annotations: the folder of these files, where that is another; or one of them. So may be the root.
    :param videos: the folder of the videos, where that is another.
    :param encoding: ``utf-8``; or ``cp1252`` or ``latin-1``, which some copies of the files are in.
    :raises UsageError: there is no file for the split, or there are two; or no such encoding.
    :raises AnnotationError: a file is malformed or in another encoding, a caption is empty, an id is no file name.
    """
    if encoding not in LSMDC_ENCODINGS:
        raise UsageError(unknown("encoding", encoding, LSMDC_ENCODINGS))
    source = annotations or root
    files = _files_by_split(source, split)
    finder = VideosById(root, videos, LSMDC_FOLDERS, ".avi")
    samples = []
    ids = CaptionIds()
    for home, path in files.items():
        for line, clip, sentence in _sentences(path, encoding):
            there, exists = finder.locate(clip, clip.rpartition("_")[0])
            samples.append(
                Sample(
                    ids.next(clip),
                    there,
                    caption=caption_of(sentence, path, line),
                    exists=exists,
                    split=None if home == "all" else home,
                    video=clip,
                )
            )
    return Samples(samples, (), source)


def _files_by_split(source: str, split: str) -> dict[str, str]:
    """The file of each split that is asked for; of a single one whose name says none the split is as asked."""
    if os.path.isfile(source):
        forms = (home for home, form in LSMDC_FORMS.items() if form.fullmatch(os.path.basename(source)))
        home = next(forms, None) or split_named(source)
        if split not in ("all", home or split):
            raise UsageError(f"the split {split!r} was asked for, and the file's name says {home!r}", path=source)
        return {(home or split): source}
    files = find_lsmdc(source)
    wanted = {home: paths for home, paths in files.items() if split in ("all", home)}
    if not wanted:
        raise UsageError(
            f"there is no file of LSMDC for the split {split!r} here; expected LSMDC16_annos_training.csv, "
            "LSMDC16_annos_val.csv or LSMDC16_challenge_1000_publictect.csv, and found "
            f"{few([os.path.basename(path) for paths in files.values() for path in paths])}; --annotations names "
            "another folder, or one file",
            code="missing",
            path=source,
        )
    for home, paths in wanted.items():
        if len(paths) > 1:
            raise UsageError(
                f"there are {len(paths)} files for the split {home!r}: "
                f"{few([os.path.basename(path) for path in paths])}; name one with --annotations",
                path=source,
            )
    return {home: paths[0] for home, paths in wanted.items()}


def _sentences(path: str, encoding: str) -> Iterator[tuple[int, str, str]]:
    """The line, clip and sentence of each row."""
    expected = f"{len(LSMDC_COLUMNS)} columns separated by tabs ({', '.join(LSMDC_COLUMNS)})"
    try:
        rows = lines_of(path, expected, encoding="utf-8-sig" if encoding == "utf-8" else encoding)
    except AnnotationError as error:
        if encoding == "utf-8" and "UTF-8" in error.message:
            raise fault(f"{error.message}, or say which it is: --reader encoding=cp1252 or latin-1", path) from None
        raise
    if not rows:
        raise fault(f"there is nothing in it; expected {expected}", path, code="empty")
    for line, text in rows:
        cells = [cell.strip() for cell in text.split("\t")]
        if len(cells) != len(LSMDC_COLUMNS):
            raise fault(f"{quoted(text)} has {len(cells)} columns; expected {expected}, none of them empty", path, line)
        check_id(cells[0], path, line)
        yield line, cells[0], cells[-1]
