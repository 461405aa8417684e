"""One picture file, decoded."""

import os
from io import BytesIO

import av
import av.error
import numpy as np
import simplejpeg

from ssan.errors import VideoError
from ssan.video.clip import cannot_open, checked_size

MOST_BYTES = 200_000_000


def read_picture(path: str) -> np.ndarray:
    """A picture file as RGB (h, w, 3); transparency is dropped. What the name claims does not matter."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise VideoError(
            "the frame is not a file but a folder, a pipe or a device; expected a JPEG or PNG file. Extract it again",
            code="decode_error",
            path=path,
        )
    try:
        with open(path, "rb") as handle:
            data = handle.read(MOST_BYTES + 1)
    except OSError as error:
        raise cannot_open(path, error) from error
    if len(data) > MOST_BYTES:
        raise VideoError(
            f"the frame is larger than {MOST_BYTES // 1_000_000} MB; expected a JPEG or PNG file. Extract it again",
            code="decode_error",
            path=path,
        )
    try:
        if data.startswith(b"\xff\xd8"):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            checked_size(height, width, path)
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        with av.open(BytesIO(data), mode="r") as container:
            for stream in container.streams.video[:1]:
                checked_size(stream.height, stream.width, path)
            return next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (ValueError, av.error.FFmpegError, StopIteration, IndexError) as error:
        raise VideoError(
            f"the frame does not decode ({len(data)} bytes); expected a whole JPEG or PNG file. Extract it again",
            code="decode_error",
            path=path,
        ) from error
