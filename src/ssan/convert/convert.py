"""Conversion of data sets, once, so that they are read quickly ever after: smaller videos, frames, one clip file, flow.

    SOURCE/walk/daria.avi  ->  DEST/walk/daria.mp4             video
                               DEST/walk/daria/00001.jpg ...   jpeg
                               DEST.clips, walk/daria in it    clips
                               DEST/walk/daria/flow_x_00001.jpg, flow_y_00001.jpg ...   flow

Names stay as they are, so annotations fit the copy as they fitted the videos, and those in SOURCE are copied along.
Each copy is read once more and compared with its video before it gets its name. A manifest beside the copies says of
which video (size and time of change) and by which settings each was made: what is there already is not made again.
"""

import errno
import os
import shutil
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av.error
from tqdm import tqdm

from ssan.convert.copies import CopyJob, Made, Manifest, OneFile, Tree, pixels_path, size_on_disk
from ssan.convert.forms import FORMS, Frames, Settings, require_encoder
from ssan.convert.optical_flow import flow_between
from ssan.convert.workers import in_processes
from ssan.datasets.tree import find_videos, is_frame_folder, is_tree
from ssan.errors import SsanError, UsageError, VideoError, printable
from ssan.files import is_lock, one_writer, open_regular, replacing, replacing_folder
from ssan.video.clip_file import SUFFIX, split_path
from ssan.video.reader import open_video

MANIFEST = "converted.jsonl"
ANNOTATIONS = frozenset([".json", ".csv", ".txt"])


@dataclass
class Summary:
    """How many videos there are, and what became of them.

    ``failed`` has an error for each video that has no copy, ``truncated`` one for each whose copy ends where decoding
    does, ``not_copied`` one for each annotation that is not copied along. ``num_stale`` copies are of
    videos that are no longer there. ``bytes`` is the size of the copies.
    """

    num_videos: int
    num_converted: int = 0
    num_unchanged: int = 0
    num_stale: int = 0
    num_annotations: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failed: list[SsanError] = field(default_factory=list)
    truncated: list[SsanError] = field(default_factory=list)
    not_copied: list[SsanError] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "num_videos": self.num_videos,
            "num_converted": self.num_converted,
            "num_unchanged": self.num_unchanged,
            "num_failed": len(self.failed),
            "num_truncated": len(self.truncated),
            "num_stale": self.num_stale,
            "num_annotations": self.num_annotations,
            "failed": [error.as_dict() for error in self.failed],
            "truncated": [error.as_dict() for error in self.truncated],
            "not_copied": [error.as_dict() for error in self.not_copied],
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


def convert(source: str, dest: str, settings: Settings, *, workers: int = 1, quiet: bool = False) -> Summary:
    """Convert the videos below ``source`` into ``dest``, those that are new there or have changed.

    Interrupted at any point, it goes on where it was when it is called again.

    :param workers: processes that convert; 1 converts in this one.
    :raises UsageError: no videos, a path where something else is or where another process is writing, or other
        settings than before.
    :raises SsanError: the disk is full (code ``no_space``), or a process was ended from outside.
    """
    began = time.monotonic()
    if settings.form == "video":
        require_encoder()
    if settings.method is not None:
        flow_between(settings.method)  # whether there is OpenCV is to be known before the first video
    _check_paths(source, dest, settings.form == "clips")
    with one_writer(dest, folder=settings.form != "clips"):
        return _convert(source, dest, settings, workers, quiet, began)


def _convert(source: str, dest: str, settings: Settings, workers: int, quiet: bool, began: float) -> Summary:
    """As ``convert``, where nobody else writes to ``dest``."""
    in_one_file = settings.form == "clips"
    jobs, refused = _jobs(source, dest, settings)
    if not jobs and not refused:
        raise UsageError("there are no videos in it; name the folder that they are in", code="empty", path=source)
    beside = f"{dest}.jsonl" if in_one_file else os.path.join(dest, MANIFEST)
    there = os.path.exists(dest) and (in_one_file or any(not is_lock(name) for name in os.listdir(dest)))
    if there and not os.path.exists(beside):
        raise UsageError(
            f"there is something that was not made here, or its manifest {os.path.basename(beside)} is missing; name "
            "another path",
            path=dest,
        )
    summary = Summary(len(jobs) + len(refused), failed=refused)
    with Manifest(beside, settings.as_dict()) as manifest:
        copies = (OneFile if in_one_file else Tree)(dest, manifest)
        pending = []
        for job in jobs:
            known = copies.known(job)
            if known is None:
                pending.append(job)
                continue
            summary.num_unchanged += 1
            if known["truncated"]:
                summary.truncated.append(VideoError(known["truncated"], code="truncated", path=job.source))
        if not in_one_file:
            summary.num_annotations = _copy_annotations(source, dest, summary.not_copied)
        with copies.writing(len(pending)), closing(_progress(pending, settings, workers, quiet)) as results:
            for made in results:
                error = made.error or copies.keep(made)
                if error is not None:
                    summary.failed.append(error)
                    continue
                summary.num_converted += 1
                if made.truncated is not None:
                    summary.truncated.append(made.truncated)
        summary.num_stale = len(manifest.entries.keys() - {job.name for job in jobs})
        summary.bytes = sum(manifest.entries[job.name]["bytes"] for job in jobs if job.name in manifest.entries)
    for errors in (summary.failed, summary.truncated):
        errors.sort(key=lambda error: error.path or "")
    summary.seconds = time.monotonic() - began
    return summary


def _check_paths(source: str, dest: str, in_one_file: bool) -> None:
    if not is_tree(source):
        raise UsageError("no such folder; expected a folder of videos, or a clip file", code="missing", path=source)
    if os.path.isdir(source) and is_frame_folder(source):
        raise UsageError("the folder holds the frames of one video; name the folder that it is in", path=source)
    if in_one_file != dest.endswith(SUFFIX):
        expected = f"--to clips writes one file, whose name ends in {SUFFIX}"
        raise UsageError(expected if in_one_file else f"a folder's name may not end in {SUFFIX}: {expected}", path=dest)
    if os.path.exists(dest) and os.path.isdir(dest) == in_one_file:
        what = "a folder where a file" if in_one_file else "a file where a folder"
        raise UsageError(f"{what} is to be written; name another path", path=dest)
    here, there = os.path.join(os.path.realpath(source), ""), os.path.join(os.path.realpath(dest), "")
    if not in_one_file and (here.startswith(there) or there.startswith(here)):
        raise UsageError(f"the copies must lie apart from the videos in {source}; name another path", path=dest)


def _jobs(source: str, dest: str, settings: Settings) -> tuple[list[CopyJob], list[SsanError]]:
    """The videos to convert, and an error for each whose copy would have the path of another's."""
    suffix = FORMS[settings.form].suffix
    jobs: dict[str, CopyJob] = {}
    refused: list[SsanError] = []
    for path in find_videos(source):
        relative = os.path.relpath(path, source)
        whole = os.path.isdir(path) or split_path(path) is not None
        name = Path(relative if whole else os.path.splitext(relative)[0]).as_posix()
        above = [str(parent) for parent in Path(name).parents] if suffix is None else []
        other = next((jobs[taken] for taken in [name, *above] if taken in jobs), None)
        if other:
            refused.append(
                VideoError(
                    f"its copy would have the path of that of {printable(other.source)}; expected videos whose names "
                    "differ in more than the suffix. Rename one",
                    code="duplicate",
                    path=path,
                )
            )
            continue
        if settings.form == "clips":
            target = pixels_path(dest, str(len(jobs)))
        else:
            target = os.path.join(dest, name) + (suffix or "")
        jobs[name] = CopyJob(path, name, target)
    return list(jobs.values()), refused


def _results(jobs: Sequence[CopyJob], settings: Settings, workers: int) -> Generator[Made, None, None]:
    make, workers = partial(_make, settings), min(workers, len(jobs))
    return in_processes(make, jobs, workers) if workers > 1 else (make(job) for job in jobs)


def _make(settings: Settings, job: CopyJob) -> Made:
    """Make one copy, and compare it with its video."""
    form = FORMS[settings.form]
    replacement = replacing_folder(job.target) if form.suffix is None else replacing(job.target, sync=bool(form.suffix))
    try:
        with open_video(job.source) as video, replacement as written:
            frames = Frames(video, settings.resize)
            form.write(frames, written, settings)
            form.check(frames, written, settings)
            num_bytes = size_on_disk(written) or 0
    except VideoError as error:
        # Of a folder of frames the file is named in which the fault is; of a copy that is gone, nothing.
        path = error.path if error.path and error.path.startswith(job.source) else job.source
        message = error.message
        return Made(job, VideoError(message, code=error.code, path=path))
    except av.error.FFmpegError as error:
        message = (
            f"its frames cannot be encoded ({error.strerror}); expected pictures as H.264 takes them. Leave it out"
        )
        return Made(job, VideoError(message, code="decode_error", path=job.source))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = "the name of its copy is longer than the disk takes; expected a shorter one. Rename the video"
        return Made(job, VideoError(message, code="decode_error", path=job.source))
    return Made(
        job,
        truncated=frames.truncated,
        num_bytes=num_bytes,
        size_px=frames.size_px,
        times=tuple(frames.times),
        durations=tuple(frames.durations),
    )


def _progress(jobs: Sequence[CopyJob], settings: Settings, workers: int, quiet: bool) -> Generator[Made, None, None]:
    silent = quiet or not sys.stderr.isatty()
    with (
        tqdm(total=len(jobs), desc="converting", unit="video", disable=silent, file=sys.stderr, leave=False) as bar,
        closing(_results(jobs, settings, workers)) as results,
    ):
        for made in results:
            yield made
            bar.update()


def _copy_annotations(source: str, dest: str, not_copied: list[SsanError]) -> int:
    """Copy what lies beside the videos and is no video: annotations, under the names that they have.

    What a link out of ``source`` leads to is another's, and stays out of the copy; ``not_copied`` is told.
    """
    count, root = 0, os.path.join(os.path.realpath(source), "")
    for folder, below, names in os.walk(source):
        below[:] = [name for name in below if not name.startswith(".")]
        if is_frame_folder(folder):
            below.clear()  # the frames of a video, and what is said about those
            continue
        for name in names:
            if Path(name).suffix.lower() not in ANNOTATIONS or name.startswith("."):
                continue
            path = os.path.join(folder, name)
            try:
                if not os.path.realpath(path).startswith(root):
                    raise UsageError(
                        f"a link that leads out of {source}, which is not followed; expected a file. Put the file "
                        "there, or copy it yourself",
                        code="path_escape",
                        path=path,
                    )
                with (
                    open_regular(path, "annotations") as given,
                    replacing(os.path.join(dest, os.path.relpath(folder, source), name), sync=False) as written,
                    open(written, "wb") as copy,
                ):
                    shutil.copyfileobj(given, copy)
            except UsageError as error:
                not_copied.append(error)
                continue
            count += 1
    return count
