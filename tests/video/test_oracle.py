"""Frames of odd files as a second program decodes them: Debian's ffmpeg, which shares no library with our reader."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from odd_files import OddFile, OddFiles
from ssan.errors import VideoError
from ssan.video.clip import Video
from ssan.video.reader import open_video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ffmpeg,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed"),
]

GROUPS = (
    "plain", "at_odd_times", "edited", "turned", "described_twice", "packed", "not_coded", "with_empty_chunks",
    "laid_out", "beginning_late",
)  # fmt: skip
MOST_HELD_BACK = 3
"""So many pictures our encodings let a decoder hold back; behind damage nobody asks it for them."""


AT_A_TIME = 16
"""Files that one call of the program decodes: it takes longer to start than to decode any."""


def decode(files: list[OddFile]) -> None:
    """Have the program decode files, each by itself; what it says of each is left beside it for ``decoded``."""
    each = ["-an", "-fps_mode", "passthrough", "-enc_time_base", "-1"]
    for first in range(0, len(files), AT_A_TIME):
        some = files[first : first + AT_A_TIME]
        command = ["ffmpeg", "-y", "-v", "quiet", "-nostdin"]
        for file in some:
            command += ["-threads", "1", "-i", str(file.path)]
        for number, file in enumerate(some):
            this = ["-map", f"{number}:v:0", *each]
            command += [*this, "-f", "rawvideo", f"{file.path}.raw"]
            command += [*this, "-c:v", "wrapped_avframe", "-f", "framecrc", f"{file.path}.times"]
        subprocess.run(command, capture_output=True, check=False)


def decoded(file: OddFile) -> tuple[list[np.ndarray], list[float]]:
    """All frames of a file by the program, upright as (height, width, 3), and when each is shown, in seconds."""
    times = Path(f"{file.path}.times")
    raw = np.fromfile(f"{file.path}.raw", np.uint8)
    height, width = file.size
    like = av.VideoFrame(width, height, file.pixels).to_ndarray()
    assert len(raw) > 0, "the program gives no frames"
    assert len(raw) % like.nbytes == 0, "the program gives frames of another size"
    unit, shown = 0.0, []
    for line in times.read_text().splitlines():
        if line.startswith("#tb 0:"):
            over, under = line.split(":")[1].split("/")
            unit = int(over) / int(under)
        elif not line.startswith("#"):
            shown.append(int(line.split(",")[2]) * unit)
    reformatter = VideoReformatter()
    frames = []
    for content in raw.reshape(-1, like.nbytes):
        frame = av.VideoFrame.from_ndarray(content.view(like.dtype).reshape(like.shape), format=file.pixels)
        rgb = reformatter.reformat(frame, format="rgb24", interpolation=Interpolation.BILINEAR)
        frames.append(rgb.to_ndarray())
    return frames, shown


def read(video: Video, numbers: list[int]) -> list[np.ndarray]:
    return list(video.read(numbers).frames.permute(0, 2, 3, 1).numpy())


def choices(num_frames: int) -> Iterator[list[int]]:
    last = num_frames - 1
    yield list(range(num_frames))
    yield from ([number] for number in sorted({0, last, num_frames // 2, num_frames * 3 // 4, min(1, last)}))
    chance = np.random.default_rng(num_frames)
    yield sorted(chance.choice(num_frames, min(5, num_frames), replace=False).tolist())
    yield chance.choice(num_frames, min(4, num_frames), replace=False).tolist()
    yield [last, 0, last]


def faults(file: OddFile) -> Iterator[str]:
    """What is read otherwise than the program has it."""
    expected, shown = decoded(file)
    try:
        for together in (False, True):
            with open_video(file.path) as shared:
                for numbers in choices(len(expected)):
                    with open_video(file.path) as fresh:
                        frames = read(shared if together else fresh, numbers)
                    wrong = [
                        n for n, frame in zip(numbers, frames, strict=True) if not same(frame, expected[n], file.exact)
                    ]
                    if wrong:
                        how = "one after the other" if together else "freshly opened"
                        yield f"{file.path.name}: of frames {numbers}, {how}, {wrong} are others"
        with open_video(file.path) as video:
            streamed = [frame for clip in video.stream() for frame in clip.frames.permute(0, 2, 3, 1).numpy()]
            if len(streamed) != len(expected) or not all(map(same, streamed, expected, repeat(file.exact))):
                yield f"{file.path.name}: {len(streamed)} frames in sequence, expected these {len(expected)}"
            found = video.examine()
            if found.frames_decoded != len(expected) or (file.whole and found.error is not None):
                yield f"{file.path.name}: found {found}"
            if file.late_seconds is None:
                with suppress(VideoError):
                    yield f"{file.path.name}: frame 1 begins at {video.begin_seconds(1)} s, which nobody can know"
                return
            begins = [video.begin_seconds(number) - video.begin_seconds(0) for number in range(len(expected))]
        late = [abs(begin - (at - shown[0])) for begin, at in zip(begins, shown, strict=True)]
        if max(late) > file.late_seconds:
            yield f"{file.path.name}: frame {int(np.argmax(late))} begins {max(late):.3f} s too early or late"
    except VideoError as error:
        yield f"{file.path.name}: refused, {error.code}: {error.message}"


def same(one: np.ndarray, other: np.ndarray, exact: bool = True) -> bool:
    """Two pictures of ours that are not the same differ by some 30 grey levels on the average."""
    return np.array_equal(one, other) if exact else float(np.abs(one.astype(int) - other).mean()) < 3


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> OddFiles:
    return OddFiles(tmp_path_factory.mktemp("odd") / "files")


@pytest.mark.parametrize("group", GROUPS)
def test_every_frame_is_the_one_that_a_second_program_decodes(group: str, odd_files: OddFiles) -> None:
    files = list(getattr(odd_files, group)())
    assert files
    decode(files)
    assert [fault for file in files for fault in faults(file)] == []


def test_of_a_damaged_file_what_is_read_is_what_a_second_program_decodes(odd_files: OddFiles) -> None:
    wrong = []
    for file in odd_files.damaged():
        decode([file])
        expected, _ = decoded(file)
        given: list[np.ndarray] = []
        with open_video(file.path) as video:
            try:
                for clip in video.stream():
                    given += list(clip.frames.permute(0, 2, 3, 1).numpy())
            except VideoError as error:
                if error.code not in ("truncated", "decode_error"):
                    wrong.append(f"{file.path.name}: {error.code}")
        # The last ones may be damaged or refer to one that is: FFmpeg does not always make the same of those.
        if not all(map(same, given[:-MOST_HELD_BACK], expected)) or len(given) < len(expected) - MOST_HELD_BACK:
            wrong.append(f"{file.path.name}: {len(given)} frames, of which not all are among these {len(expected)}")
        for number in {0, len(given) // 2, max(len(given) - 1 - MOST_HELD_BACK, 0)}:
            with open_video(file.path) as video:
                if not same(read(video, [number])[0], expected[number]):
                    wrong.append(f"{file.path.name}: frame {number} alone is another")
    assert wrong == []
