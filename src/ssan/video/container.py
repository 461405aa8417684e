"""Container of a video, opened in FFmpeg: what may be opened, how much is decoded for it, and which stream is read."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import av
import av.container
import av.error
from av.stream import Disposition
from av.video.stream import VideoStream

from ssan.errors import VideoError
from ssan.video.allowed import CODECS, WHITELISTS
from ssan.video.clip import checked_size


@contextmanager
def open_container(path: str, threads: int) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """Open a file in FFmpeg and find its best video stream.

    "file:" keeps a name like 12:30.mp4 from being taken for a network address, and the whitelist keeps a playlist that
    poses as a video from opening other addresses. Text, pictures and playlists, which FFmpeg would play, are refused.
    """
    try:
        container = _opened_by_ffmpeg(path)
    except av.error.FFmpegError as error:
        raise VideoError(
            f"FFmpeg does not recognise a video in it ({error.strerror}); expected mp4, webm, avi, mkv or another "
            "video file, complete. Copy or download it again, or leave it out",
            code="not_video",
            path=path,
        ) from error
    with container:
        kind = container.format.name
        if kind in ("tty", "image2", "concat", "hls", "dash") or kind.endswith("_pipe"):
            raise VideoError(
                f"this is not a video ({kind}: a text, a picture or a list); expected mp4, webm, avi, mkv or another "
                "video file, or a folder of pictures. Leave it out",
                code="not_video",
                path=path,
            )
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise VideoError(
                "there is no video stream in it, only sound or other data; expected a moving picture. Leave it out",
                code="no_video_stream",
                path=path,
            )
        if stream.codec_context is None or stream.codec_context.codec.name not in CODECS:
            raise VideoError(
                "there is no decoder here for its video stream, or none that is used; convert the file to H.264",
                code="decode_error",
                path=path,
            )
        checked_size(stream.codec_context.height, stream.codec_context.width, path)
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        stream.thread_count = threads
        yield container, stream


def _opened_by_ffmpeg(path: str) -> av.container.InputContainer:
    """Open a file without decoding a frame to find out what the decoder will find out anyway.

    The header does not tell how pixels are stored, and FFmpeg decodes the first frame to know: a tenth of the work of
    a short video in webm, or of a clip out of a large one in mp4. Given a guess it does not, in mp4 if it need not wait
    for a time stamp either. The decoder replaces the guess by the truth. Of mp4 only where its index is complete: from
    that FFmpeg knows how many pictures H.264 holds back, without having seen any.
    """
    options = WHITELISTS
    head = b""
    with suppress(OSError), open(path, "rb") as handle:  # what cannot be read FFmpeg says below
        head = handle.read(8)
    is_mp4 = head[4:] == FTYP
    if is_mp4 or head.startswith(EBML):
        one_stream: Any = [{"pixel_format": "yuv420p"}]
        more = {"max_ts_probe": "0"} if is_mp4 else {}
        try:
            container = av.open(
                f"file:{path}", metadata_errors="ignore", options={**options, **more}, stream_options=one_stream
            )
        except av.error.FFmpegError:
            raise
        except ValueError:  # there is sound too
            pass
        else:
            if not is_mp4 or _is_told_by_its_header(container):
                return container
            container.close()
    return av.open(f"file:{path}", metadata_errors="ignore", options=options)


def _is_told_by_its_header(container: av.container.InputContainer) -> bool:
    """Whether the only stream is of a codec for which a guess is enough, with all of its packets in the index."""
    stream = container.streams[0]
    return (
        isinstance(stream, VideoStream)
        and stream.codec_context is not None
        and stream.codec_context.codec.canonical_name in ("h264", "hevc", "mpeg4", "vp9", "av1")
        and bool(stream.average_rate)
        and 0 < stream.frames == len(stream.index_entries)
    )


EBML = b"\x1a\x45\xdf\xa3"
"""How every Matroska and webm file begins."""

FTYP = b"ftyp"
"""How every mp4 and nearly every mov file begins, after the length of its first box."""
