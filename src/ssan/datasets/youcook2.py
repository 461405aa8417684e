"""YouCook2: its annotations, and the list of 3,350 clips. Source: Zhou et al., AAAI 2018."""

import math
import os
import re
from collections.abc import Iterator
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
    shown,
)
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.tables import (
    MOST_SECONDS,
    Where,
    check_id,
    check_once,
    fault,
    known_split,
    part,
    table_with_header,
)
from ssan.errors import AnnotationError, UsageError, quoted
from ssan.files import read_json

YOUCOOK_DATA = ("youcookii_annotations_trainval.json", "youcookii_annotations_test_segments_only.json")
YOUCOOK_CLIPS = "validation_youcook.csv"
YOUCOOK_SUBFOLDERS = ("", "annotations", "YouCookII", "YouCookII/annotations")
YOUCOOK_FOLDERS = ("raw_videos", "videos")
YOUCOOK_FORM = re.compile(r"youcookii_annotations\w*(?:-\w+)?\.json", re.IGNORECASE)


def find_youcook(root: str) -> list[str]:
    """The JSON files of YouCook2 in a folder, or without any the list of clips."""
    found = files_named(root, YOUCOOK_SUBFOLDERS, YOUCOOK_DATA) or files_named(
        root, YOUCOOK_SUBFOLDERS, [YOUCOOK_CLIPS]
    )
    return [*found.values()]


def is_youcook(path: str) -> bool:
    """Whether a file is one of YouCook2, by its name or its columns."""
    name = os.path.basename(path)
    named = name == YOUCOOK_CLIPS or YOUCOOK_FORM.fullmatch(name) is not None
    return named or has_columns(path, "video_id", "text", "start", "end")


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
    source = annotations or root
    files = [source] if os.path.isfile(source) else find_youcook(source)
    if not files:
        raise UsageError(
            f"no files of YouCook2 here; expected {YOUCOOK_DATA[0]} or {YOUCOOK_CLIPS}; --annotations names another "
            "folder, or one file",
            code="missing",
            path=source,
        )
    finder = VideosById(root, videos, YOUCOOK_FOLDERS)
    if not files[0].lower().endswith(".csv"):
        seen: dict[str, Where] = {}
        return of_split([sample for path in files for sample in _recipes(path, finder, seen)], split, source)
    if split not in ("val", "all"):
        raise UsageError(
            f"the split {split!r} was asked for, and this list has clips of validation alone; use --split val, or name "
            f"{YOUCOOK_DATA[0]} with --annotations",
            path=files[0],
        )
    return of_split(_clips(files[0], finder), split, files[0])


def _recipes(path: str, finder: VideosById, seen: dict[str, Where]) -> Iterator[Sample]:
    """The clips of a JSON file."""
    wrong = '{"database": {ID: {"duration", "subset", "annotations": [{"segment", "id", "sentence"}]}}}'
    content = read_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise fault(f"there is no object 'database'; expected {wrong}", path)
    for number, (video, about) in enumerate(database.items(), start=1):
        prefix = f"video {number} ({quoted(video, 80)}): "
        id_of(video, path, f"video {number}: ")
        check_once(seen, video, path, number, unit="video")
        fields: dict[str, Any] = about if isinstance(about, dict) else {}
        duration, subset, recipe = fields.get("duration"), fields.get("subset"), fields.get("recipe_type")
        if not isinstance(duration, int | float) or not 0 < duration < MOST_SECONDS or not isinstance(subset, str):
            raise fault(f"{prefix}expected its duration in seconds and its subset as in {wrong}", path)
        try:
            split = known_split(subset, path, None)
        except AnnotationError as error:
            raise fault(f"{prefix}{error.message}", path) from None
        there, exists = finder.locate(video, f"{subset}/{recipe}" if isinstance(recipe, str) else "")
        clips: dict[str, Where] = {}
        for order, clip in entries(fields, "annotations", path, wrong):
            where = f"{prefix}clip {order}: "
            key = caption_id(video, clip.get("id"), path, f"{where}the id")
            check_once(clips, key, path, order, unit="clip")
            start, end = _segment(clip.get("segment"), duration, path, where)
            said = split == "test" and "sentence" not in clip
            caption = None if said else caption_of(clip.get("sentence"), path, prefix=where)
            yield Sample(
                key, there, start_seconds=start, end_seconds=end, caption=caption, exists=exists, split=split,
                video=video,
            )  # fmt: skip


def _segment(segment: object, duration: float, path: str, prefix: str) -> tuple[float, float]:
    """The bounds of a clip; an end that was rounded up to whole seconds may be after the end of the video."""
    bounds = segment if isinstance(segment, list) else []
    if len(bounds) != 2 or not all(type(bound) in (int, float) for bound in bounds):
        raise fault(f"{prefix}the segment is {shown(segment)}; expected [start, end] in seconds", path)
    start, end = part(str(bounds[0]), str(bounds[1]), path, None, prefix=prefix)
    assert start is not None
    assert end is not None
    if end >= math.floor(duration) + 2:
        raise fault(f"{prefix}it ends at {end:g} s and the video at {duration:g} s; expected no later", path)
    return start, end


def _clips(path: str, finder: VideosById) -> list[Sample]:
    """The clips of the list."""
    samples = []
    ids = CaptionIds()
    for line, row in table_with_header(path, ["end", "start", "text", "video_id"]):
        video = row["video_id"]
        check_id(video, path, line)
        start, end = part(row["start"], row["end"], path, line)
        if start is None or end is None:
            raise fault("a bound of the clip is empty; expected its start and its end in seconds", path, line)
        there, exists = finder.locate(video, f"validation/{row.get('task') or ''}")
        samples.append(
            Sample(
                ids.next(video),
                there,
                start_seconds=start,
                end_seconds=end,
                caption=caption_of(row["text"], path, line),
                exists=exists,
                split="val",
                video=video,
            )
        )
    return samples
