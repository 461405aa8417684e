"""Reading videos: frames by number out of a file or a folder of pictures, decoded in a process apart.

A decoder is a large program in C that is fed with other people's files. Ours runs in a process of its own, so that a
file that makes it crash, hang, or ask for all memory costs this process an error that names the file and no more. Each
process that reads videos has one such reader, which starts when the first video is opened (about 0.2 seconds), serves
one request after another, and ends with it; threads that read side by side have one each (``OwnReader``). Pixels come
back in memory that both processes see, where the system has such: a place of it belongs to one clip until the last view
of its frames is gone.

Before a video is blamed for the end of its reader, what was asked for is tried once more in a new one: it may have been
another program, or the want of memory, that has ended it.
"""

import os
from collections.abc import Callable, Sequence

from ssan.errors import VideoError
from ssan.video.clip import Clip, Part, PartOfVideo, Resize, SecondsPart, Video
from ssan.video.decoder_process import LIMIT_SECONDS as LIMIT_SECONDS
from ssan.video.decoder_process import OwnReader as OwnReader
from ssan.video.decoder_process import VideoApart, limit_of, look_at_picture, pictures_of


def open_video(
    path: str | os.PathLike[str],
    *,
    frames_per_second: float | None = None,
    threads: int = 1,
    limit_seconds: float | None = None,
    apart: bool = True,
    part: SecondsPart | None = None,
) -> Video:
    """Open a video file, a folder that directly holds JPEG or PNG files, one per frame, or ``x.clips/a``: video ``a``
    of the clip file ``x.clips`` (``ssan.video.clip_file``).

    ``frames_per_second`` is for folders, 12 unless given; a file knows its own. ``threads`` is for files: more than one
    helps when a single video is read, and hurts when several processes read one each. ``limit_seconds`` of processor
    time may be spent on opening it and on each clip, by default ``LIMIT_SECONDS`` or what the environment variable
    SSAN_DECODE_SECONDS says. ``apart=False`` decodes in this process, without the limits of time and memory. Of a
    ``part`` of a file, in seconds, the video that is given has the frames alone, numbered from the first of them
    (``ssan.video.part``); folders and clip files are opened whole.

    :raises VideoError: it cannot be read; the code says why.
    """
    path = os.fspath(path)
    if ".clips" in path:
        from ssan.video.clip_file import open_clip_video, split_path

        inside = split_path(path)
        if inside:
            return open_clip_video(path, *inside)
    if os.path.isdir(path):
        from ssan.video.folder import FrameFolder

        if not apart:
            return FrameFolder(path, frames_per_second=frames_per_second)
        limit = limit_of(limit_seconds)
        return FrameFolder(
            path,
            frames_per_second=frames_per_second,
            decode=lambda files: pictures_of(path, files, limit),
            look=lambda file: look_at_picture(file, limit),
        )
    if apart:
        return VideoApart(path, threads=threads, limit_seconds=limit_seconds, part=part)
    from ssan.video.part import open_file

    return open_file(path, threads=threads, part=part)


def read_clip(
    path: str | os.PathLike[str],
    choose: Callable[[int], Sequence[int]],
    *,
    part: Part | None = None,
    resize: Resize | None = None,
    frames_per_second: float | None = None,
    threads: int = 1,
    limit_seconds: float | None = None,
    apart: bool = True,
) -> Clip:
    """Open a video, let ``choose`` pick frame numbers from the number of frames that there are, and read those.

    Of a ``part`` of the video (``Video.frames_of``) ``choose`` is given the number of frames in the part, and counts
    from its first one. So do the clip's ``indices``; its ``num_frames``, ``num_promised`` and ``duration_seconds`` are
    those of the part: what a long video is as a whole, reading a part of it need not find out.

    A file can promise more frames than decode. If the choice reaches beyond those that do, ``choose`` is asked once
    more with the true number; the clip then has ``num_frames < num_promised``.
    """
    part = None if part == (None, None) else part
    seconds = part if isinstance(part, tuple) else None
    video = open_video(
        path,
        frames_per_second=frames_per_second,
        threads=threads,
        limit_seconds=limit_seconds,
        apart=apart,
        part=seconds,
    )
    try:
        if part is not None and video.part is None:
            video = PartOfVideo(video, part)
        try:
            return video.read(choose(video.num_frames), resize=resize)
        except VideoError as error:
            if error.code != "truncated" or video.num_frames == 0:
                raise
        return video.read(choose(video.num_frames), resize=resize)
    finally:
        video.close()
