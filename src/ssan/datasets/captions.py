"""Captions of videos: MSR-VTT, YouCook2, LSMDC, and a user's own in a CSV file. One sample for each caption.

Features are looked up by ``Sample.video``, so that a list is of use where no video file is left.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ssan.datasets.lists import split_named
from ssan.datasets.samples import Sample, Samples, is_plain, quoted
from ssan.datasets.tables import (
    MOST_SECONDS,
    Where,
    beginning_of,
    check_id,
    check_once,
    fault,
    known_split,
    lines_of,
    part,
    table_with_header,
)
from ssan.datasets.tree import Finder, is_tree, names_in
from ssan.errors import AnnotationError, UsageError, few, unknown
from ssan.files import is_text, read_json

MSRVTT_DATA = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
MSRVTT_PAIRS = "MSRVTT_JSFUSION_test.csv"
MSRVTT_LISTS = {"1k-A-9k": "MSRVTT_train.9k.csv", "1k-A-7k": "MSRVTT_train.7k.csv"}
MSRVTT_PLACES = ("", "annotations", "annotation", "msrvtt_data", "train_val_annotation", "test_videodatainfo")
MSRVTT_FOLDERS = ("videos", "videos/all", "TrainValVideo", "TestVideo")
PROTOCOLS = ("full", *MSRVTT_LISTS)

YOUCOOK_DATA = ("youcookii_annotations_trainval.json", "youcookii_annotations_test_segments_only.json")
YOUCOOK_CLIPS = "validation_youcook.csv"
YOUCOOK_PLACES = ("", "annotations", "YouCookII", "YouCookII/annotations")
YOUCOOK_FOLDERS = ("raw_videos", "videos")

LSMDC_COLUMNS = ("video id", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")
LSMDC_FOLDERS = ("videos", "avi")
LSMDC_ENCODINGS = ("utf-8", "cp1252", "latin-1")

_LSMDC_FILES = {
    "train": re.compile(r"LSMDC\d\d_annos_training\w*\.csv", re.IGNORECASE),
    "val": re.compile(r"LSMDC\d\d_annos_val\w*\.csv", re.IGNORECASE),
    "test": re.compile(r"LSMDC\d\d_challenge_1000_public\w*\.csv", re.IGNORECASE),
}
_YOUCOOK_FILE = re.compile(r"youcookii_annotations\w*(?:-\w+)?\.json", re.IGNORECASE)


# ------------------------------------------------------------------------------------------------------------- all


class Places:
    """Where the videos of captions are or would be, by their ids."""

    def __init__(self, root: str, videos: str | None, folders: Sequence[str] = (), suffix: str = ".mp4") -> None:
        self._home = videos or (os.path.dirname(root) or "." if os.path.isfile(root) else root)
        below = [os.path.join(self._home, folder) for folder in folders]
        self._finders = [Finder(folder) for folder in (self._home, *filter(is_tree, below))]
        self._suffix = suffix
        self._known: dict[str, tuple[str, bool]] = {}

    def place(self, video: str, folder: str = "") -> tuple[str, bool]:
        """The path of a video, and whether it is there.

        :param folder: where else it may lie, below each of the folders that videos may be in.
        """
        if video not in self._known:
            names = [video, os.path.join(folder, video)] if folder and is_plain(folder) else [video]
            there = next(filter(None, (finder.find(name) for finder in self._finders for name in names)), None)
            path = there or os.path.normpath(os.path.join(self._home, video + self._suffix))
            self._known[video] = path, there is not None
        return self._known[video]


def header_of(path: str) -> set[str]:
    """The names in the first line of a CSV file; none of what is no file."""
    first = beginning_of(path, 2000).decode("utf-8-sig", "replace").splitlines()[:1]
    return {word.strip(' "') for line in first for word in line.split(",")}


def caption_format(path: str) -> str | None:
    """The format of captions that a file has, by its name or its first line; None where it has none of them."""
    name = os.path.basename(path)
    if any(form.fullmatch(name) for form in _LSMDC_FILES.values()):
        return "lsmdc"
    if name in (*MSRVTT_DATA, MSRVTT_PAIRS, *MSRVTT_LISTS.values()):
        return "msrvtt"
    if name == YOUCOOK_CLIPS or _YOUCOOK_FILE.fullmatch(name):
        return "youcook2"
    if not name.lower().endswith(".csv"):
        return None
    header = header_of(path)
    if {"path", "label"} <= header:
        return None
    forms = {"captions_csv": {"video", "caption"}, "msrvtt": {"video_id", "sentence"},
             "youcook2": {"video_id", "text", "start", "end"}}  # fmt: skip
    return next((format for format, columns in forms.items() if columns <= header), None)


def _caption(text: object, source: str, line: int | None = None, *, place: str = "") -> str:
    """What a caption says, without the blanks around it."""
    if not isinstance(text, str) or not text.strip() or not is_text(text):
        raise fault(f"{place}the caption is {_shown(text)}; expected what is said of the video", source, line)
    return text.strip()


def _shown(value: object) -> str:
    """A value of a JSON file for a message; of lists and objects only that they are."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return quoted(value) if isinstance(value, str) else str(value)[:40]


def _entries(content: object, key: str, path: str, wrong: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in a list of a JSON file, counted from 1."""
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise fault(f"there is no list {key!r}; expected {wrong}", path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise fault(f"entry {number} of {key!r} is {_shown(row)}; expected {wrong}", path)
        yield number, row


def _id(value: object, path: str, place: str) -> str:
    """An id that stands in a JSON file, which is the name of a video's file."""
    if not isinstance(value, str):
        raise fault(f"{place}the id of the video is {_shown(value)}; expected text", path)
    check_id(value, path, place=place)
    return value


def _files(place: str, folders: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """The paths of those files that are there, by name: of each, that in the first folder that has it."""
    found: dict[str, str] = {}
    for name in names:
        paths = (os.path.join(place, folder, name) for folder in folders)
        path = next(filter(os.path.isfile, paths), None)
        if path is not None:
            found[name] = path
    return found


def _of_split(samples: list[Sample], split: str, source: str) -> Samples:
    """The samples of a split; none is an error that says which splits there are."""
    kept = [sample for sample in samples if split in ("all", sample.split)]
    if not kept:
        there = dict(Counter(sample.split or "none" for sample in samples)) or "none at all"
        raise fault(f"it has no caption of the split {split!r}; found {there}", source, code="empty")
    return Samples(kept, (), source)


# ---------------------------------------------------------------------------------------------------------- MSR-VTT


def find_msrvtt(place: str) -> dict[str, str]:
    """The files of MSR-VTT in a folder and in those that people unpack them to, by name."""
    return _files(place, MSRVTT_PLACES, (*MSRVTT_DATA, MSRVTT_PAIRS, *MSRVTT_LISTS.values()))


def read_msrvtt(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    protocol: str | None = None,
    list: str | None = None,
) -> Samples:
    """MSR-VTT: ``MSRVTT_data.json``, or ``train_val_videodatainfo.json`` and ``test_videodatainfo.json``; 1k-A by CSV.

    They lie in the folder, or in ``annotations``, ``annotation``, ``msrvtt_data``, ``train_val_annotation`` or
    ``test_videodatainfo`` in it. The protocols:

    - ``full``: the official split, 6,513 videos for training, 497 for validation, 2,990 for testing, 20 captions each.
    - ``1k-A-9k``, ``1k-A-7k``: for testing the 1,000 pairs of a caption and a video in ``MSRVTT_JSFUSION_test.csv``
      (``key,vid_key,video_id,sentence``), which needs no JSON; for training all captions of the videos in
      ``MSRVTT_train.9k.csv`` or ``MSRVTT_train.7k.csv`` (``video_id``). There is nothing for validation: ``val`` and
      ``test`` are both the pairs, ``all`` is training, where the JSON is there, and the pairs.

    Unsaid by the paper, our choice: without ``protocol`` it is ``full`` where the pairs are not there; with them it is
    ``1k-A-9k``, or ``1k-A-7k`` where only that list is there
    (test_the_protocol_of_msrvtt_follows_from_the_files_that_are_there).

    The id is ``{video_id}#{sen_id}``, of a pair its key; ``video`` is the ``video_id``. The times in the JSON are
    places in the video on YouTube that a clip was cut from, not in the clip: samples have no part. Categories are
    numbers without names: samples have no label. Videos are ``{video_id}.mp4`` or of another suffix, in the root or in
    ``videos``, ``videos/all``, ``TrainValVideo`` or ``TestVideo``.

    :param annotations: the folder of these files, where that is another; or one of them. So may be the root.
    :param videos: the folder of the videos, where that is another.
    :param protocol: ``full``, ``1k-A-9k`` or ``1k-A-7k``.
    :param list: instead, a CSV file of the videos (``video_id``) or of the pairs (``video_id,sentence``, with a ``key``
        if there is one) that the split is.
    :raises UsageError: a file is not there, or no such protocol.
    :raises AnnotationError: a file is malformed, a caption is empty or of no video, an id is no file name or stands
        twice, or there is no caption of the split.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(unknown("protocol", protocol, PROTOCOLS))
    if protocol is not None and list is not None:
        raise UsageError("protocol and list both say which videos; give one of them")
    given = [path for path in (annotations, root) if path is not None and os.path.isfile(path)]
    data = [path for path in given if path.lower().endswith(".json")]
    if list is None and protocol is None:
        list = next((path for path in given if path.lower().endswith(".csv")), None)
    place = annotations or root
    files = find_msrvtt(os.path.dirname(place) if given and os.path.isfile(place) else place)
    data = data or [files[name] for name in MSRVTT_DATA[:1] if name in files]
    data = data or [files[name] for name in MSRVTT_DATA[1:] if name in files]
    places = Places(root, videos, MSRVTT_FOLDERS)
    if list is not None:
        home = split_named(list)
        if split not in ("all", home or split) and (split, home) != ("val", "test"):
            raise UsageError(f"the split {split!r} was asked for, and the name of the list says {home!r}", path=list)
        return Samples(_listed(list, data, places, home if split == "all" else split), (), list)
    if protocol is None and not data and MSRVTT_PAIRS not in files:
        raise UsageError(
            f"no files of MSR-VTT here; expected {MSRVTT_DATA[0]}, or {' and '.join(MSRVTT_DATA[1:])}, or "
            f"{MSRVTT_PAIRS} for the pairs of 1k-A; --annotations names another folder, or one file",
            code="missing",
            path=place,
        )
    if protocol is None:
        only_7k = MSRVTT_LISTS["1k-A-7k"] in files and MSRVTT_LISTS["1k-A-9k"] not in files
        whole = MSRVTT_PAIRS not in files or (data and data == given[:1])
        protocol = "full" if whole else f"1k-A-{'7k' if only_7k else '9k'}"
    if protocol == "full":
        return _of_split(_official(_Msrvtt(data, place), places), split, place)
    samples = []
    for home, name in (("train", MSRVTT_LISTS[protocol]), ("test", MSRVTT_PAIRS)):
        if split == "all" and not (data if home == "train" else name in files):
            continue
        if split in ("all", home) or (split, home) == ("val", "test"):
            if name not in files:
                raise UsageError(
                    f"there is no {name} here, which is the protocol {protocol} for the split {split!r}; expected it "
                    "beside the others. --annotations names another folder, --reader list=FILE another list",
                    code="missing",
                    path=place,
                )
            samples += _listed(files[name], data, places, home if split == "all" else split)
    if not samples:
        raise fault(f"there is neither a JSON file nor {MSRVTT_PAIRS} in it; expected one of them", place, code="empty")
    return Samples(samples, (), place)


class _Msrvtt:
    """What the JSON files say: the split of each video, and its captions with their ids."""

    def __init__(self, paths: Sequence[str], place: str) -> None:
        if not paths:
            raise UsageError(
                f"no JSON file of MSR-VTT here, which has the captions; expected {MSRVTT_DATA[0]}, or "
                f"{' and '.join(MSRVTT_DATA[1:])}; --annotations names another folder, or the file",
                code="missing",
                path=place,
            )
        self.named_in = " and ".join(paths)
        self.splits: dict[str, str] = {}
        self.captions: dict[str, list[tuple[str, str]]] = {}
        seen: dict[str, Where] = {}
        wrong = '{"videos": [{"video_id", "split"}], "sentences": [{"video_id", "caption", "sen_id"}]}'
        contents = [(path, read_json(path)) for path in paths]
        for path, content in contents:
            for number, video in _entries(content, "videos", path, wrong):
                identity = _id(video.get("video_id"), path, f"video {number}: ")
                check_once(seen, identity, path, number, unit="video")
                split = video.get("split")
                if not isinstance(split, str):
                    raise fault(f"video {number} ({quoted(identity)}) has no split; expected {wrong}", path)
                try:
                    self.splits[identity] = known_split(split, path, None)
                except AnnotationError as error:
                    raise fault(f"video {number} ({quoted(identity)}): {error.message}", path) from None
                self.captions[identity] = []
        said: dict[str, Where] = {}
        for path, content in contents:
            for number, sentence in _entries(content, "sentences", path, wrong):
                place = f"sentence {number}: "
                identity = _id(sentence.get("video_id"), path, place)
                if identity not in self.captions:
                    raise fault(f"{place}there is no video {quoted(identity)}; expected it among 'videos'", path)
                key = sentence.get("sen_id")
                if type(key) not in (int, str) or not is_text(str(key)[:80]):
                    raise fault(f"{place}the sen_id is {_shown(key)}; expected a number", path)
                key = f"{identity}#{str(key)[:80]}"
                check_once(said, key, path, number, unit="sentence")
                self.captions[identity].append((key, _caption(sentence.get("caption"), path, place=place)))


def _official(data: _Msrvtt, places: Places) -> list[Sample]:
    return [
        _msrvtt_sample(key, video, caption, places, split)
        for video, split in data.splits.items()
        for key, caption in data.captions[video]
    ]


def _listed(path: str, data: Sequence[str], places: Places, split: str | None) -> list[Sample]:
    """The pairs that a list has; of a list of videos alone all their captions."""
    rows = table_with_header(path, ["video_id"])
    if not rows:
        raise fault("there is nothing in it; expected the id of a video in every line", path, code="empty")
    pairs = "sentence" in rows[0][1]
    known = None if pairs else _Msrvtt(data, path)
    samples = []
    seen: dict[str, Where] = {}
    num_of: Counter[str] = Counter()
    for line, row in rows:
        video = row["video_id"]
        check_id(video, path, line)
        if known is None:
            caption = _caption(row["sentence"], path, line)
            identity = row.get("key") or f"{video}#{num_of[video]}"
            num_of[video] += 1
            check_once(seen, identity, path, line)
            samples.append(_msrvtt_sample(identity, video, caption, places, split))
            continue
        check_once(seen, video, path, line)
        if not known.captions.get(video):
            raise fault(f"there is no caption of {quoted(video)} in {known.named_in}; expected some", path, line)
        samples += [_msrvtt_sample(key, video, caption, places, split) for key, caption in known.captions[video]]
    return samples


def _msrvtt_sample(identity: str, video: str, caption: str, places: Places, split: str | None) -> Sample:
    path, exists = places.place(video)
    return Sample(identity, path, caption=caption, exists=exists, split=split, video=video)


# --------------------------------------------------------------------------------------------------------- YouCook2


def find_youcook(place: str) -> list[str]:
    """The JSON files of YouCook2 in a folder, or without any the list of clips."""
    found = _files(place, YOUCOOK_PLACES, YOUCOOK_DATA) or _files(place, YOUCOOK_PLACES, [YOUCOOK_CLIPS])
    return [*found.values()]


def read_youcook2(root: str, split: str, *, annotations: str | None = None, videos: str | None = None) -> Samples:
    """YouCook2: ``youcookii_annotations_trainval.json``, or the list of clips ``validation_youcook.csv``.

    The JSON is ``{"database": {ID: {"duration", "subset", "recipe_type", "annotations": [{"segment": [start, end],
    "id", "sentence"}]}}}`` with the subsets training, validation and testing (of which captions are not public:
    ``youcookii_annotations_test_segments_only.json`` gives samples without). The CSV has the header
    ``end,start,task,text,video_id`` and 3,350 clips of validation, those that figures are usually of. They lie in the
    folder, or in ``annotations``, ``YouCookII`` or ``YouCookII/annotations`` in it; the JSON counts where both are.

    A sample is a clip with its bounds in seconds. The id is ``{video}#{id}``, in the CSV ``{video}#`` and the number of
    the clip among those of its video, from 0. Videos are ``{video}.mp4`` or of another suffix, in the root,
    ``raw_videos`` or ``videos``: there directly, or in ``SUBSET/RECIPE`` as they are downloaded.

    :param annotations: the folder of these files, where that is another; or one of them. So may be the root.
    :param videos: the folder of the videos, where that is another.
    :raises UsageError: there are no such files, or the list of clips is asked for another split.
    :raises AnnotationError: a file is malformed, a caption or a clip is empty, a clip ends a second or more after its
        video, an id is no file name or stands twice, or there is no clip of the split.
    """
    place = annotations or root
    files = [place] if os.path.isfile(place) else find_youcook(place)
    if not files:
        raise UsageError(
            f"no files of YouCook2 here; expected {YOUCOOK_DATA[0]} or {YOUCOOK_CLIPS}; --annotations names another "
            "folder, or one file",
            code="missing",
            path=place,
        )
    places = Places(root, videos, YOUCOOK_FOLDERS)
    if not files[0].lower().endswith(".csv"):
        seen: dict[str, Where] = {}
        return _of_split([sample for path in files for sample in _recipes(path, places, seen)], split, place)
    if split not in ("val", "all"):
        raise UsageError(
            f"the split {split!r} was asked for, and this list has clips of validation alone; use --split val, or name "
            f"{YOUCOOK_DATA[0]} with --annotations",
            path=files[0],
        )
    return _of_split(_clips(files[0], places), split, files[0])


def _recipes(path: str, places: Places, seen: dict[str, Where]) -> Iterator[Sample]:
    """The clips of a JSON file."""
    wrong = '{"database": {ID: {"duration", "subset", "annotations": [{"segment", "id", "sentence"}]}}}'
    content = read_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise fault(f"there is no object 'database'; expected {wrong}", path)
    for number, (video, about) in enumerate(database.items(), start=1):
        place = f"video {number} ({video[:80]!r}): "
        _id(video, path, f"video {number}: ")
        check_once(seen, video, path, number, unit="video")
        fields: dict[str, Any] = about if isinstance(about, dict) else {}
        duration, subset, recipe = fields.get("duration"), fields.get("subset"), fields.get("recipe_type")
        if not isinstance(duration, int | float) or not 0 < duration < MOST_SECONDS or not isinstance(subset, str):
            raise fault(f"{place}expected its duration in seconds and its subset as in {wrong}", path)
        try:
            split = known_split(subset, path, None)
        except AnnotationError as error:
            raise fault(f"{place}{error.message}", path) from None
        there, exists = places.place(video, f"{subset}/{recipe}" if isinstance(recipe, str) else "")
        clips: dict[str, Where] = {}
        for order, clip in _entries(fields, "annotations", path, wrong):
            where = f"{place}clip {order}: "
            key = clip.get("id")
            if type(key) not in (int, str) or not is_text(str(key)[:80]):
                raise fault(f"{where}the id is {_shown(key)}; expected a number", path)
            key = f"{video}#{str(key)[:80]}"
            check_once(clips, key, path, order, unit="clip")
            start, end = _segment(clip.get("segment"), duration, path, where)
            said = split == "test" and "sentence" not in clip
            caption = None if said else _caption(clip.get("sentence"), path, place=where)
            yield Sample(
                key, there, start_seconds=start, end_seconds=end, caption=caption, exists=exists, split=split,
                video=video,
            )  # fmt: skip


def _segment(segment: object, duration: float, path: str, place: str) -> tuple[float, float]:
    """The bounds of a clip; an end that was rounded up to whole seconds may be after the end of the video."""
    bounds = segment if isinstance(segment, list) else []
    if len(bounds) != 2 or not all(type(bound) in (int, float) for bound in bounds):
        raise fault(f"{place}the segment is {_shown(segment)}; expected [start, end] in seconds", path)
    start, end = part(str(bounds[0]), str(bounds[1]), path, None, place=place)
    assert start is not None
    assert end is not None
    if end >= math.floor(duration) + 2:
        raise fault(f"{place}it ends at {end:g} s and the video at {duration:g} s; expected no later", path)
    return start, end


def _clips(path: str, places: Places) -> list[Sample]:
    """The clips of the list."""
    samples = []
    num_of: Counter[str] = Counter()
    for line, row in table_with_header(path, ["end", "start", "text", "video_id"]):
        video = row["video_id"]
        check_id(video, path, line)
        start, end = part(row["start"], row["end"], path, line)
        if start is None or end is None:
            raise fault("a bound of the clip is empty; expected its start and its end in seconds", path, line)
        there, exists = places.place(video, f"validation/{row.get('task') or ''}")
        samples.append(
            Sample(
                f"{video}#{num_of[video]}",
                there,
                start_seconds=start,
                end_seconds=end,
                caption=_caption(row["text"], path, line),
                exists=exists,
                split="val",
                video=video,
            )
        )
        num_of[video] += 1
    return samples


# ------------------------------------------------------------------------------------------------------------ LSMDC


def find_lsmdc(place: str) -> dict[str, list[str]]:
    """The files of LSMDC in a folder, or in its ``annotations``, by split."""
    for folder in (place, os.path.join(place, "annotations")):
        names = names_in(folder)
        found = {
            split: [os.path.join(folder, name) for name in names if form.fullmatch(name)]
            for split, form in _LSMDC_FILES.items()
        }
        if any(found.values()):
            return {split: paths for split, paths in found.items() if paths}
    return {}


def read_lsmdc(
    root: str, split: str, *, annotations: str | None = None, videos: str | None = None, encoding: str = "utf-8"
) -> Samples:
    """LSMDC: six columns separated by tabs, without a header; a caption a line, of a clip that is a file of its own.

    The columns are the id of the clip, four times, and the sentence; quotes are letters like others. The times are
    places in the film, not in the clip: samples have no part. The files are ``LSMDC16_annos_training.csv``,
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
    place = annotations or root
    if os.path.isfile(place):
        forms = (home for home, form in _LSMDC_FILES.items() if form.fullmatch(os.path.basename(place)))
        home = next(forms, None) or split_named(place)
        if split not in ("all", home or split):
            raise UsageError(f"the split {split!r} was asked for, and the file's name says {home!r}", path=place)
        files = {(home or split): [place]}
    else:
        files = find_lsmdc(place)
    wanted = [home for home in files if split in ("all", home)]
    if not wanted:
        raise UsageError(
            f"there is no file of LSMDC for the split {split!r} here; expected LSMDC16_annos_training.csv, "
            "LSMDC16_annos_val.csv or LSMDC16_challenge_1000_publictect.csv, and found "
            f"{few([os.path.basename(path) for paths in files.values() for path in paths])}; --annotations names "
            "another folder, or one file",
            code="missing",
            path=place,
        )
    places = Places(root, videos, LSMDC_FOLDERS, ".avi")
    samples = []
    num_of: Counter[str] = Counter()
    for home in wanted:
        if len(files[home]) > 1:
            raise UsageError(
                f"there are {len(files[home])} files for the split {home!r}: "
                f"{few([os.path.basename(path) for path in files[home]])}; name one with --annotations",
                path=place,
            )
        for line, clip, sentence in _sentences(files[home][0], encoding):
            path, exists = places.place(clip, clip.rpartition("_")[0])
            samples.append(
                Sample(
                    f"{clip}#{num_of[clip]}",
                    path,
                    caption=_caption(sentence, files[home][0], line),
                    exists=exists,
                    split=None if home == "all" else home,
                    video=clip,
                )
            )
            num_of[clip] += 1
    return Samples(samples, (), place)


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


# ------------------------------------------------------------------------------------------------------ a CSV file


def read_captions_csv(root: str, split: str, *, annotations: str | None = None, videos: str | None = None) -> Samples:
    """A CSV file with the header ``video,caption``, and of ``start,end,split`` any: a caption a line.

    ``video`` is the id that its features have: the path of the video relative to the folder that features were
    extracted from, without suffix. The video itself is found with any suffix, or as a folder of frames. With a start
    or an end, in seconds, the caption is of that part, [start, end). One file may hold all splits by its column
    ``split``; without that column all of it is whichever split is asked for.

    The id is ``{video}#`` and the number of the line among those of its video, from 0, whatever the split.

    :param root: the file, or a folder with ``captions.csv``; with ``annotations``, which names the file, the videos'.
    :param videos: the folder that videos are relative to; by default the one that the file is in, or the root.
    :raises UsageError: there is no such file.
    :raises AnnotationError: the file is malformed or has no line of the split, a caption is empty, a video's path is
        none or leads out of the folder, a part ends before it starts.
    """
    path = annotations or (os.path.join(root, "captions.csv") if is_tree(root) else root)
    samples = []
    num_of: Counter[str] = Counter()
    finder = Finder(videos or (root if is_tree(root) else os.path.dirname(root) or "."))
    for line, row in table_with_header(path, ["video", "caption"]):
        home = known_split(row["split"], path, line) if "split" in row else None if split == "all" else split
        video = row["video"]
        if not video:
            raise fault("the video is empty; expected the id of its features", path, line)
        _, relative = finder.place(video, source=path, line=line)
        if relative != video:
            raise fault(f"the video is {quoted(video)}; expected it without detours, {quoted(relative)}", path, line)
        there, exists = finder.locate(video, source=path, line=line)
        start, end = part(row.get("start"), row.get("end"), path, line)
        samples.append(
            Sample(
                f"{video}#{num_of[video]}",
                there,
                start_seconds=start,
                end_seconds=end,
                caption=_caption(row["caption"], path, line),
                exists=exists,
                split=home,
                video=video,
            )
        )
        num_of[video] += 1
    return _of_split(samples, split, path)
