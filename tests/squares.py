"""Work for several processes, in a file that each of them imports at once."""

import os
import signal

from ssan.errors import VideoError


def square(number: int) -> int:
    """The square of a number; 7 is refused, and 13 ends the process."""
    if number == 7:
        raise VideoError("seven", code="empty", path="7.mp4")
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number
