"""Display matrix: how a stored picture is turned and mirrored until it is upright, where the file has one.

Telephones write one that turns by a quarter, cameras that look at their owner one that mirrors. A matrix that turns by
anything but quarters is not followed: the picture would get corners that are not in it.
"""

from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

LEAST_PART = 57
"""Of the larger entry of a row to the smaller where a turn is one by quarters: within one degree, as FFmpeg has it."""


class Turn(NamedTuple):
    """Rows and columns are exchanged first, then each mirrored or not."""

    transposed: bool = False
    up_down: bool = False
    left_right: bool = False

    def of(self, picture: np.ndarray) -> np.ndarray:
        """The picture (h, w, 3) upright, as a view of itself."""
        if self.transposed:
            picture = picture.transpose(1, 0, 2)
        return picture[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


UPRIGHT = Turn()


def upright_turn(frame: av.VideoFrame) -> Turn:
    """What makes a decoded frame upright; nothing where it has no matrix, or one that turns by other than quarters."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    # (x, y) is shown at (a x + c y, b x + d y); (ISO/IEC 14496-12, section 8.3.2).
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32, 9).tolist()
    if a and d and max(abs(b), abs(c)) * LEAST_PART <= min(abs(a), abs(d)):
        return Turn(up_down=d < 0, left_right=a < 0)
    if b and c and max(abs(a), abs(d)) * LEAST_PART <= min(abs(b), abs(c)):
        return Turn(transposed=True, up_down=b < 0, left_right=c < 0)
    return UPRIGHT


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    turn = upright_turn(frame)
    return (frame.width, frame.height) if turn.transposed else (frame.height, frame.width)


def upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter, height: int, width: int) -> np.ndarray:
    """The frame as (height, width, 3), scaled by swscale, then turned; a view of memory that lives as long as it."""
    turn = upright_turn(frame)
    if turn.transposed:
        height, width = width, height
    scaled = reformatter.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
    )
    plane = scaled.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
    return turn.of(rows[:, : 3 * width].reshape(height, width, 3))
