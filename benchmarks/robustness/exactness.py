"""Every frame that the reader gives against decoding everything in sequence, and against a second program.

    python -m benchmarks.robustness.exactness --videos DIR [DIR ...]

Reads a rendered matrix of codecs, containers and structures, the odd files of tests/odd_files.py, and every video file
below the folders given. Of each file several choices of frames are read (all of them, segments, the first, the last,
random ones), from packets held in memory and from a file sought in, and compared with PyAV decoding the best stream
from the beginning on one thread (with several, FFmpeg mends the last, damaged picture of a file that is cut off in
another way). What PyAV decodes is itself compared with what the program ``ffmpeg`` does, which has libraries of another
version, byte for byte before any conversion; of a damaged file up to the last picture but one, as each version mends
the last in its own way. Writes benchmarks/results/exactness.json; ends with status 1 if any frame differs.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np
from tests.encoded_videos import STREAMS, cut_start, render
from tests.odd_files import OddFiles
from tqdm import tqdm

from ssan.errors import VideoError
from ssan.files import write_json
from ssan.video import packets
from ssan.video.preprocess import segment_indices
from ssan.video.reader import open_video

RESULTS = Path(__file__).parents[1] / "results" / "exactness.json"
CONTAINERS = {
    "h264": ("mp4", "mkv", "mov", "avi", "ts"),
    "hevc": ("mp4", "mkv", "mov", "ts"),
    "vp9": ("webm", "mkv", "mp4"),
    "vp8": ("webm", "mkv"),
    "av1": ("mp4", "mkv", "webm"),
    "mpeg4": ("mp4", "mkv", "mov", "avi"),
    "mpeg2": ("ts", "mkv", "mpg", "avi"),
    "mjpeg": ("mov", "mkv", "avi", "mp4"),
}
DAMAGED = ("_cut.", "ends_in_zeros", "a_byte_short", "corrupted")
"""Parts of the names of files that are damaged and yet decode to their end."""
UNSETTLED = ("mpeg2_cut.mpg", "mpeg2_ends_in_zeros.mpg")
"""Of the odd files: what is made of damaged pictures, and of those that refer to them, changes from run to run."""
MOST_HELD_BACK = 3
SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".ts", ".mpg")


def rendered(folder: Path) -> Iterator[Path]:
    """The matrix. What this build of FFmpeg cannot write is left out and said."""
    plain = [(name, suffix, {}) for name in STREAMS for suffix in CONTAINERS[name.split("_")[0]]]
    uneven = [
        (name, suffix, {"uneven": True})
        for name, suffix, _ in plain
        if suffix in ("mp4", "mkv", "webm", "mov") and name != "h264_refresh"
    ]
    turned = [("h264_closed", suffix, {"rotation": angle}) for suffix, angle in product(("mp4", "mov"), (90, 180, 270))]
    odd = [(name, "mkv", {"size": (47, 61)}) for name in ("vp9_hidden", "vp8", "mjpeg", "mpeg4_b")]
    for name, suffix, options in [*plain, *uneven, *turned, *odd]:
        extra = "".join(f"_{key}{value if key == 'rotation' else ''}" for key, value in options.items())
        path = folder / f"{name}{extra}.{suffix}"
        try:
            render(path, name, **options)
        except (av.error.FFmpegError, ValueError) as error:
            print(f"{path.name} is left out: this FFmpeg does not write it ({error})", file=sys.stderr)
            continue
        yield path
        if suffix in ("mp4", "mov") and not options and name.startswith(("h264", "hevc", "mpeg4_b")):
            later = folder / f"{name}_edited.{suffix}"
            later.write_bytes(cut_start(path.read_bytes(), 5))
            yield later
        if not options:
            short = folder / f"{name}_cut.{suffix}"
            short.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
            yield short


def everything(path: Path) -> tuple[list[np.ndarray], list[bytes], bool]:
    """Every frame, decoded from the beginning, apart from the package: its pixels, turned upright, and a hash of what
    the decoder gave; and whether an error has ended it."""
    pictures: list[np.ndarray] = []
    hashes: list[bytes] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                pictures.append(upright(frame))
                hashes.append(hashlib.blake2b(tight(frame)).digest())
    except av.error.FFmpegError:
        return pictures, hashes, True  # what has come up to there counts
    return pictures, hashes, False


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The pixels (height, width, 3) as the display matrix shows them."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix = next((side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5] / (1 << 16)
    # (x, y) is shown at (a x + c y, b x + d y).
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def tight(frame: av.VideoFrame) -> bytes:
    """The planes of a frame, without what lies between their rows."""
    rows = []
    for plane, part in zip(frame.planes, frame.format.components, strict=False):
        bits = part.bits if len(frame.planes) > 1 else sum(each.bits for each in frame.format.components)
        size = plane.width * ((bits + 7) // 8)
        data = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        rows.append(data[: plane.height, :size].tobytes())
    return b"".join(rows)


def by_program(path: Path, size: int) -> list[bytes]:
    """A hash of each frame, of so many bytes, that the program decodes."""
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-threads", "1", "-noautorotate", "-i", str(path), "-an"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    hashes = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        while content := program.stdout.read(size):
            hashes.append(hashlib.blake2b(content).digest())
    return hashes


def choices(num_frames: int) -> list[list[int]]:
    chance = np.random.default_rng(num_frames)
    some = [sorted(chance.choice(num_frames, min(8, num_frames), replace=False).tolist()) for _ in range(4)]
    some += [chance.permutation(some[0]).tolist(), segment_indices(num_frames, 8, rng=None)]
    some += [[0], [num_frames - 1], [num_frames // 2], list(range(num_frames // 3, num_frames // 2 + 1))]
    return [*some, list(range(num_frames)), list(range(0, num_frames, 7))]


def num_settled(path: Path, num_frames: int) -> int:
    """How many frames of a file FFmpeg makes alike each time; in some damaged ones it leaves memory as it was."""
    return num_frames - MOST_HELD_BACK if path.name in UNSETTLED else num_frames


def against_program(path: Path, hashes: list[bytes], size: int, damaged: bool) -> dict[str, Any]:
    expected = by_program(path, size)
    end = len(hashes) - 1 if damaged else max(len(hashes), len(expected))
    end = min(end, num_settled(path, len(hashes))) if damaged else end
    pairs = list(zip_longest(hashes, expected))[:end]
    return {"program_frames": len(pairs), "program_differences": sum(own != other for own, other in pairs)}


def compare(path: Path, held: bool, program: bool) -> dict[str, Any]:
    reference, hashes, damaged = everything(path)
    result: dict[str, Any] = {"file": path.name, "frames": 0, "differences": 0, "decodable": len(reference)}
    if not reference:
        return result
    if held and program:
        with av.open(str(path)) as container:
            size = len(tight(next(container.decode(container.streams.best("video")))))
        result |= against_program(path, hashes, size, damaged or any(mark in path.name for mark in DAMAGED))
    before = packets.MOST_BYTES_HELD
    packets.MOST_BYTES_HELD = before if held else 0
    try:
        with open_video(path, apart=held) as video:
            result["way"] = "selecting" if not held and video._packets.trusted else ""  # type: ignore[attr-defined]
            for choice in choices(num_settled(path, len(reference))):
                clip = video.read(choice)
                for position, number in enumerate(choice):
                    own = clip.frames[position].permute(1, 2, 0).numpy()
                    result["frames"] += 1
                    result["differences"] += not np.array_equal(own, reference[number])
    except VideoError as error:
        result["error"] = error.message
    finally:
        packets.MOST_BYTES_HELD = before
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="folders of real videos")
    arguments = parser.parse_args()
    groups: dict[str, list[dict[str, Any]]] = {}
    program = shutil.which("ffmpeg") is not None
    if not program:
        print("the program ffmpeg is not installed: nothing is compared with it", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        sets = [("rendered", list(rendered(Path(folder))))]
        sets.append(("odd", [file.path for file in OddFiles(Path(folder, "odd"))]))
        for root in arguments.videos:
            sets.append((root.name, sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES)))
        for name, paths in sets:
            shown = tqdm(paths, desc=name, unit="file")
            groups[name] = [compare(path, held, program) for path in shown for held in (True, False)]
    rows = [row for group in groups.values() for row in group]
    refused = [row for row in rows if "error" in row]
    summary = {
        "files": len(rows) // 2,
        "frames": sum(row["frames"] for row in rows),
        "differences": sum(row["differences"] for row in rows),
        "program_frames": sum(row.get("program_frames", 0) for row in rows),
        "program_differences": sum(row.get("program_differences", 0) for row in rows),
        "refused": refused,
        "unreadable": sorted({row["file"] for row in rows if not row["decodable"]}),
        "read_by_selecting": sum(row.get("way") == "selecting" for row in rows),
        "groups": {
            name: {
                "files": len(group) // 2,
                "frames": sum(row["frames"] for row in group),
                "differences": sum(row["differences"] for row in group),
                "program_frames": sum(row.get("program_frames", 0) for row in group),
                "program_differences": sum(row.get("program_differences", 0) for row in group),
            }
            for name, group in groups.items()
        },
        "versions": {"av": av.__version__},
    }
    write_json(RESULTS, {"schema": 1, **summary})
    for row in rows:
        if row["differences"] or row.get("program_differences") or "error" in row:
            print(row)
    print({key: value for key, value in summary.items() if key not in ("refused",)})
    return 1 if summary["differences"] or summary["program_differences"] or refused else 0


if __name__ == "__main__":
    sys.exit(main())
