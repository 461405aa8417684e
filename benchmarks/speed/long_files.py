"""What 8 frames cost of a file that lasts 10 seconds, 10 minutes, an hour, ten hours: seconds, memory and bytes read.

    python -m benchmarks.speed.long_files [--longest HOURS] [--rounds N]

Renders a minute of 160x120 in H.264, every frame of which shows its own number, and copies its packets into mp4 and
mkv until a file is long enough. Of each file are read 8 frames of a part of 10 seconds in the middle, and 8 spread over
the whole. Each sample has a process of its own, which has read a short file before: seconds are those from opening the
file to having the frames (on the wall, and of the process), memory is what the process grew by at most, bytes are all
that it read, of this file and of no other (``rchar`` of /proc/self/io). Frames are compared with those that decoding
the minute in sequence gives. Writes benchmarks/results/long_files.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np

from benchmarks.timing import RESULTS, machine
from ssan.files import write_json
from ssan.video.preprocess import segment_indices
from ssan.video.reader import read_clip

OUT = RESULTS / "long_files.json"
RATE, HEIGHT, WIDTH, NUM_FRAMES, BITS = 25, 120, 160, 1500, 11
LENGTHS = {"10 s": 10, "10 min": 600, "1 h": 3600, "10 h": 36_000}


def picture(number: int) -> np.ndarray:
    """Moving stripes, and the number in columns along the upper edge, bright where a bit is 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    stripes = np.sin((x + 3 * number) / 9) * 60 + np.cos((y - 2 * number) / 11) * 40 + 110
    shown = stripes.astype(np.uint8)[..., None].repeat(3, 2)
    for bit in range(BITS):
        shown[:12, bit * 14 : bit * 14 + 14] = 235 if number >> bit & 1 else 20
    return shown


def render(path: Path) -> None:
    options = {"g": "50", "bf": "2", "crf": "30", "preset": "veryfast", "x264-params": "open-gop=0"}
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(NUM_FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        output.mux(stream.encode())


def copy(minute: Path, path: Path, num_frames: int) -> None:
    """A file of so many frames, the minute's again and again; the last time up to a key frame or its end."""
    with av.open(str(minute)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        ticks = 1 / (Fraction(stream.time_base or 1) * RATE)
        packets = [
            (bytes(p), (p.pts or 0) / ticks, (p.dts or 0) / ticks, p.is_keyframe)
            for p in source.demux(stream)
            if p.size
        ]
        copied = output.add_stream_from_template(stream)
        for start in range(0, num_frames, NUM_FRAMES):
            for data, pts, dts, is_key in packets[: num_frames - start]:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = copied, Fraction(1, RATE), is_key
                packet.pts, packet.dts, packet.duration = int(pts) + start, int(dts) + start, 1
                output.mux(packet)


def choose(num_frames: int) -> Sequence[int]:
    return segment_indices(num_frames, 8, rng=None)


def sample(path: str, part: tuple[float, float] | None) -> tuple[dict[str, float], np.ndarray, list[float]]:
    """Read 8 frames and tell what it took."""
    Path("/proc/self/clear_refs").write_text("5")  # what has been the peak so far counts no more
    before, bytes_before = resident()["VmRSS"], bytes_read()
    wall, processor = time.perf_counter(), time.process_time()
    clip = read_clip(path, choose, part=part, apart=False)
    cost = {
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
        "megabytes": (resident()["VmHWM"] - before) / 1024,
        "megabytes_read": (bytes_read() - bytes_before) / 1e6,
    }
    return cost, clip.frames.permute(0, 2, 3, 1).numpy(), list(clip.times_seconds)


def resident() -> dict[str, int]:
    """Memory of this process in kB: now, and at most since the count was begun."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def measure(minute: Path, path: Path, part: tuple[float, float] | None) -> dict[str, Any]:
    """Costs of a sample in a process of its own, and how many of its frames are not those of decoding in sequence."""
    asked = json.dumps({"minute": str(minute), "path": str(path), "part": part})
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.long_files", "--one", asked], stdout=subprocess.PIPE, check=True
    )
    return json.loads(answer.stdout)


def one(asked: dict[str, Any]) -> dict[str, Any]:
    sample(asked["minute"], None)
    cost, frames, times = sample(asked["path"], tuple(asked["part"]) if asked["part"] else None)
    with av.open(asked["minute"]) as container:
        known = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wanted = [known[round(seconds * RATE) % NUM_FRAMES] for seconds in times]
    return {
        **cost,
        "frames": len(frames),
        "differences": sum(not np.array_equal(*pair) for pair in zip(frames, wanted, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=float, default=10, help="hours")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return
    rows: list[dict[str, Any]] = []
    middle: Callable[[int], float] = lambda seconds: max(seconds // 2 - 5, 0)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        minute = Path(folder) / "minute.mp4"
        render(minute)
        for container in ("mp4", "mkv"):
            for name, seconds in LENGTHS.items():
                if seconds > arguments.longest * 3600:
                    continue
                path = Path(folder) / f"long.{container}"
                copy(minute, path, seconds * RATE)
                for kind, part in {
                    "10 s of it": (middle(seconds), middle(seconds) + 10),
                    "the whole": None,
                }.items():
                    found = [measure(minute, path, part) for _ in range(arguments.rounds if part else 1)]
                    row = {"container": container, "length": name, "file_megabytes": path.stat().st_size / 1e6}
                    row |= {"sample": kind, "differences": sum(cost.pop("differences") for cost in found)}
                    row |= {key: round(median(cost[key] for cost in found), 4) for key in found[0]}
                    row["seconds_min"] = round(min(cost["seconds"] for cost in found), 4)
                    rows.append(row)
                    print(row, flush=True)
                path.unlink()
    write_json(OUT, {"schema": 1, "machine": machine(), "rounds": arguments.rounds, "rows": rows})


if __name__ == "__main__":
    main()
