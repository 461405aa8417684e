"""Picture files, decoded."""

import os
from collections.abc import Callable, Sequence
from io import BytesIO

import av
import av.error
import numpy as np
import simplejpeg

from ssan.errors import VideoError
from ssan.video.allowed import NO_PROTOCOL, PICTURES
from ssan.video.clip import cannot_open, checked_size

MOST_BYTES = 200_000_000


MOST_BYTES_AT_ONCE = 1 << 26
"""Of the pixels of several pictures."""


def read_pictures(paths: Sequence[str], allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None) -> np.ndarray:
    """Picture files as RGB (n, h, w, 3): so many from the first on as have its size, and not too many at once.

    :param allocate: gives the array of a shape to write them into.
    """
    first = read_picture(paths[0])
    count = min(len(paths), max(1, MOST_BYTES_AT_ONCE // first.nbytes))
    shape = count, *first.shape
    pictures = allocate(shape) if allocate else np.empty(shape, np.uint8)
    pictures[0] = first
    for number in range(1, count):
        picture = read_picture(paths[number])
        if picture.shape != first.shape:
            return pictures[:number]
        pictures[number] = picture
    return pictures


def read_picture(path: str) -> np.ndarray:
    """A picture file as RGB (h, w, 3); transparency is dropped. What the name claims does not matter.

    It is JPEG, PNG, BMP, GIF or WebP by how it begins, or no picture.
    """
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
        form = next((form for begins, form in PICTURES.items() if data.startswith(begins)), None)
        if form is None:
            raise ValueError  # which is what the other decoders say
        # The reader is named: left to itself FFmpeg would also take a text for a list, and go where that leads.
        options = {"protocol_whitelist": NO_PROTOCOL, "format_whitelist": form}
        with av.open(BytesIO(data), mode="r", format=form, options=options) as container:
            for stream in container.streams.video[:1]:
                checked_size(stream.height, stream.width, path)
            return next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (ValueError, av.error.FFmpegError, StopIteration, IndexError) as error:
        raise VideoError(
            f"the frame does not decode ({len(data)} bytes); expected a whole JPEG or PNG file. Extract it again",
            code="decode_error",
            path=path,
        ) from error
