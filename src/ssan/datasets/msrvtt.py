"""MSR-VTT: its official split, and the lists of 1k-A. Source: Xu et al., CVPR 2016; Yu et al., ECCV 2018 (1k-A)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ssan.datasets.captions import (
    CaptionIds,
    VideosById,
    caption_id,
    caption_of,
    entries,
    files_named,
    has_columns,
    id_of,
    of_split,
)
from ssan.datasets.lists import split_named
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.tables import Where, check_id, check_once, fault, known_split, table_with_header
from ssan.errors import AnnotationError, UsageError, quoted, unknown
from ssan.files import read_json

MSRVTT_DATA = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
MSRVTT_PAIRS = "MSRVTT_JSFUSION_test.csv"
MSRVTT_LISTS = {"1k-A-9k": "MSRVTT_train.9k.csv", "1k-A-7k": "MSRVTT_train.7k.csv"}
MSRVTT_SUBFOLDERS = ("", "annotations", "annotation", "msrvtt_data", "train_val_annotation", "test_videodatainfo")
MSRVTT_FOLDERS = ("videos", "videos/all", "TrainValVideo", "TestVideo")
PROTOCOLS = ("full", *MSRVTT_LISTS)


def find_msrvtt(root: str) -> dict[str, str]:
    """The files of MSR-VTT in a folder and in those that people unpack them to, by name."""
    return files_named(root, MSRVTT_SUBFOLDERS, (*MSRVTT_DATA, MSRVTT_PAIRS, *MSRVTT_LISTS.values()))


def is_msrvtt(path: str) -> bool:
    """Whether a file is one of MSR-VTT, by its name or its columns."""
    named = os.path.basename(path) in (*MSRVTT_DATA, MSRVTT_PAIRS, *MSRVTT_LISTS.values())
    return named or has_columns(path, "video_id", "sentence")


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
      ``MSRVTT_train.9k.csv`` or ``MSRVTT_train.7k.csv`` (``video_id``). There is nothing for validation, and ``val``
      is refused; ``all`` is training, where the JSON is there, and the pairs.

    Unsaid by the paper, our choice: without ``protocol`` it is ``full`` where the pairs are not there; with them it is
    ``1k-A-9k``, or ``1k-A-7k`` where only that list is there
    (test_the_protocol_of_msrvtt_follows_from_the_files_that_are_there).

    The id is ``{video_id}#{sen_id}``, of a pair its key; ``video`` is the ``video_id``. The times in the JSON are
    those in the video on YouTube that a clip was cut from, not in the clip: samples have no part. Categories are
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
    if list is None and protocol is None:
        list = next((path for path in given if path.lower().endswith(".csv")), None)
    source = annotations or root
    files = find_msrvtt(os.path.dirname(source) if given and os.path.isfile(source) else source)
    data = _json_files(given, files)
    finder = VideosById(root, videos, MSRVTT_FOLDERS)
    if list is not None:
        return _of_own_list(list, data, finder, split)
    if protocol is None:
        protocol = _protocol_of(files, data, data == given[:1], source)
    if protocol == "full":
        return of_split(_official(_Captions(data, source), finder), split, source)
    return _of_1k_a(protocol, files, data, finder, split, source)


def _json_files(given: Sequence[str], files: Mapping[str, str]) -> list[str]:
    """The JSON files to read: those that are named, else the one with everything, else the two of the splits."""
    named = [path for path in given if path.lower().endswith(".json")]
    whole = [files[name] for name in MSRVTT_DATA[:1] if name in files]
    return named or whole or [files[name] for name in MSRVTT_DATA[1:] if name in files]


def _of_own_list(path: str, data: Sequence[str], finder: VideosById, split: str) -> Samples:
    """What a list of the user's own names, for the split that its name says, or else for the one that is asked for."""
    home = split_named(path)
    if split not in ("all", home or split):
        raise UsageError(f"the split {split!r} was asked for, and the name of the list says {home!r}", path=path)
    return Samples(_listed(path, data, finder, home if split == "all" else split), (), path)


def _protocol_of(files: Mapping[str, str], data: Sequence[str], data_is_named: bool, source: str) -> str:
    """The protocol that follows from the files that are there."""
    if not data and MSRVTT_PAIRS not in files:
        raise UsageError(
            f"no files of MSR-VTT here; expected {MSRVTT_DATA[0]}, or {' and '.join(MSRVTT_DATA[1:])}, or "
            f"{MSRVTT_PAIRS} for the pairs of 1k-A; --annotations names another folder, or one file",
            code="missing",
            path=source,
        )
    if MSRVTT_PAIRS not in files or (data and data_is_named):
        return "full"
    only_7k = MSRVTT_LISTS["1k-A-7k"] in files and MSRVTT_LISTS["1k-A-9k"] not in files
    return f"1k-A-{'7k' if only_7k else '9k'}"


def _of_1k_a(
    protocol: str, files: Mapping[str, str], data: Sequence[str], finder: VideosById, split: str, source: str
) -> Samples:
    """The captions of the list for training, the pairs for testing, or both."""
    if split == "val":
        raise fault(
            f"the protocol {protocol} has captions for training and for the test, and none for validation", source,
            code="empty",
        )  # fmt: skip
    samples = []
    for home, name in (("train", MSRVTT_LISTS[protocol]), ("test", MSRVTT_PAIRS)):
        if split == "all" and not (data if home == "train" else name in files):
            continue
        if split in ("all", home):
            if name not in files:
                raise UsageError(
                    f"there is no {name} here, which is the protocol {protocol} for the split {split!r}; expected it "
                    "beside the others. --annotations names another folder, --reader list=FILE another list",
                    code="missing",
                    path=source,
                )
            samples += _listed(files[name], data, finder, home if split == "all" else split)
    if not samples:
        raise fault(
            f"there is neither a JSON file nor {MSRVTT_PAIRS} in it; expected one of them", source, code="empty"
        )
    return Samples(samples, (), source)


class _Captions:
    """What the JSON files say: the split of each video, and its captions with their ids."""

    FORM = '{"videos": [{"video_id", "split"}], "sentences": [{"video_id", "caption", "sen_id"}]}'

    def __init__(self, paths: Sequence[str], source: str) -> None:
        if not paths:
            raise UsageError(
                f"no JSON file of MSR-VTT here, which has the captions; expected {MSRVTT_DATA[0]}, or "
                f"{' and '.join(MSRVTT_DATA[1:])}; --annotations names another folder, or the file",
                code="missing",
                path=source,
            )
        self.named_in = " and ".join(paths)
        self.splits: dict[str, str] = {}
        self.captions: dict[str, list[tuple[str, str]]] = {}
        contents = [(path, read_json(path)) for path in paths]
        self._take_videos(contents)
        self._take_sentences(contents)

    def _take_videos(self, contents: Sequence[tuple[str, Any]]) -> None:
        seen: dict[str, Where] = {}
        for path, content in contents:
            for number, video in entries(content, "videos", path, self.FORM):
                identity = id_of(video.get("video_id"), path, f"video {number}: ")
                check_once(seen, identity, path, number, unit="video")
                split = video.get("split")
                if not isinstance(split, str):
                    raise fault(f"video {number} ({quoted(identity)}) has no split; expected {self.FORM}", path)
                try:
                    self.splits[identity] = known_split(split, path, None)
                except AnnotationError as error:
                    raise fault(f"video {number} ({quoted(identity)}): {error.message}", path) from None
                self.captions[identity] = []

    def _take_sentences(self, contents: Sequence[tuple[str, Any]]) -> None:
        seen: dict[str, Where] = {}
        for path, content in contents:
            for number, sentence in entries(content, "sentences", path, self.FORM):
                prefix = f"sentence {number}: "
                identity = id_of(sentence.get("video_id"), path, prefix)
                if identity not in self.captions:
                    raise fault(f"{prefix}there is no video {quoted(identity)}; expected it among 'videos'", path)
                key = caption_id(identity, sentence.get("sen_id"), path, f"{prefix}the sen_id")
                check_once(seen, key, path, number, unit="sentence")
                self.captions[identity].append((key, caption_of(sentence.get("caption"), path, prefix=prefix)))


def _official(data: _Captions, finder: VideosById) -> list[Sample]:
    return [
        _sample(key, video, caption, finder, split)
        for video, split in data.splits.items()
        for key, caption in data.captions[video]
    ]


def _listed(path: str, data: Sequence[str], finder: VideosById, split: str | None) -> list[Sample]:
    """The pairs that a list has; of a list of videos alone all their captions."""
    rows = table_with_header(path, ["video_id"])
    if not rows:
        raise fault("there is nothing in it; expected the id of a video in every line", path, code="empty")
    pairs = "sentence" in rows[0][1]
    known = None if pairs else _Captions(data, path)
    samples = []
    seen: dict[str, Where] = {}
    ids = CaptionIds()
    for line, row in rows:
        video = row["video_id"]
        check_id(video, path, line)
        if known is None:
            caption = caption_of(row["sentence"], path, line)
            numbered = ids.next(video)  # of each line, whether it has a key or not
            identity = row.get("key") or numbered
            check_once(seen, identity, path, line)
            samples.append(_sample(identity, video, caption, finder, split))
            continue
        check_once(seen, video, path, line)
        if not known.captions.get(video):
            raise fault(f"there is no caption of {quoted(video)} in {known.named_in}; expected some", path, line)
        samples += [_sample(key, video, caption, finder, split) for key, caption in known.captions[video]]
    return samples


def _sample(identity: str, video: str, caption: str, finder: VideosById, split: str | None) -> Sample:
    path, exists = finder.locate(video)
    return Sample(identity, path, caption=caption, exists=exists, split=split, video=video)
