"""Film strips: a few frames of a video side by side, for a page that names videos."""

import os
from dataclasses import dataclass, field

from markupsafe import Markup

from ssan.errors import UsageError, VideoError
from ssan.report.plots import frame_strip
from ssan.video.clip import Part, Resize
from ssan.video.preprocess import segment_indices
from ssan.video.reader import read_clip

NUM_FRAMES = 6
SIDE_PX = 72
MOST_SHAPE = 2
"""So many times longer than its shorter side a picture is shown; the middle of a longer one."""
LIMIT_SECONDS = 10.0


def film_strip(path: str, part: Part | None = None) -> Markup | None:
    """Frames out of equal parts of a video, small, as an ``img`` element; None where the video cannot be read."""
    try:
        clip = read_clip(
            path,
            lambda num: segment_indices(num, min(NUM_FRAMES, num), rng=None),
            part=part,
            resize=Resize("short_side", SIDE_PX),
            limit_seconds=LIMIT_SECONDS,
        )
    except (VideoError, UsageError):
        return None
    height, width = clip.frames.shape[-2:]
    tall, wide = min(height, MOST_SHAPE * SIDE_PX), min(width, MOST_SHAPE * SIDE_PX)
    top, left = (height - tall) // 2, (width - wide) // 2
    return frame_strip(clip.frames[..., top : top + tall, left : left + wide])


@dataclass
class FilmStrips:
    """Film strips of at most ``most`` videos, for those that come first; what could not be shown is counted.

    :param num_made: of strips so far.
    :param gone: paths at which there is nothing any more, or nothing that can be read.
    """

    most: int
    num_made: int = 0
    gone: list[str] = field(default_factory=list)
    _tried: dict[tuple[str, Part | None], Markup | None] = field(default_factory=dict)

    def of(self, path: str, part: Part | None = None) -> Markup | str:
        """The strip of a video; "" where it cannot be had, or there are enough."""
        key = (path, part)
        if key not in self._tried:
            if len(self._tried) >= self.most:
                return ""
            found = film_strip(path, part) if os.path.exists(path) else None
            self._tried[key] = found
            if found is None:
                self.gone.append(path)
            else:
                self.num_made += 1
        return self._tried[key] or ""
