"""Reading a clip of 8 frames: ours against PyAV in sequence, decord, opencv and torchcodec, one thread each.

    python -m benchmarks.speed.decode --videos DIR

Every reader gets the numbers of the frames (the middles of 8 segments) for nothing and answers with RGB pictures whose
short side is 256, or as stored where that is less. Each has a process of its own: in one process a reader finds the
memory that others have left, and PyAV is up to a tenth faster beside readers that take much of it. They take turns,
file by file, the longer the shorter a file is, in an order that changes by chance, and in its turn a reader reads the
clip four times, as clips are read one after another in use. The figure is a reader's time relative to PyAV's in the
same round, the median of the rounds. (The least of its times over the least of PyAV's is kept too; on a machine that
others use as well it hangs on single lucky rounds.) Memory is the most that a fresh process held beyond what it held
after importing and reading a small file. Frames that a reader gives are compared with PyAV's, so that a fast wrong
answer shows.

DIR is walked for video files; where it is not given, only videos rendered here are read. Readers that are not installed
leave their columns blank. Writes benchmarks/results/decode.json.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks.timing import RESULTS, machine
from ssan.errors import SsanError
from ssan.files import write_json
from ssan.video.clip import Resize
from ssan.video.decode import VideoFile
from ssan.video.preprocess import resize_rule, segment_indices
from ssan.video.reader import read_clip

SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov")
CLIPS_A_TURN = 4
Size = tuple[int, int]
Reader = Callable[[str, Sequence[int], Size], np.ndarray]

# name: (encoder, options, height, width, frames, frames a second). What the data sets of the field are made of.
RENDERED: dict[str, tuple[str, dict[str, str], int, int, int, int]] = {
    "h264_340x256_10s.mp4": ("libx264", {"bf": "3", "g": "250", "crf": "23"}, 256, 340, 300, 30),
    "h264_340x256_g12.mp4": ("libx264", {"bf": "2", "g": "12", "crf": "23"}, 256, 340, 300, 30),
    "vp9_427x240_4s.webm": ("libvpx-vp9", {"g": "9999", "deadline": "realtime", "cpu-used": "6"}, 240, 427, 48, 12),
    "h264_1080p_10s.mp4": ("libx264", {"bf": "3", "g": "250", "crf": "23"}, 1080, 1920, 300, 30),
    "mpeg4_320x240_10s.avi": ("mpeg4", {"g": "12", "bf": "0"}, 240, 320, 300, 30),
}


def ours(path: str, indices: Sequence[int], size: Size) -> np.ndarray:
    return read_clip(path, lambda n: indices, resize=Resize("exact", *size)).frames.permute(0, 2, 3, 1).numpy()


def ours_here(path: str, indices: Sequence[int], size: Size) -> np.ndarray:
    clip = read_clip(path, lambda n: indices, resize=Resize("exact", *size), apart=False)
    return clip.frames.permute(0, 2, 3, 1).numpy()


def pyav(path: str, indices: Sequence[int], size: Size) -> np.ndarray:
    wanted, pictures = set(indices), []
    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                picture = frame.reformat(
                    width=size[1], height=size[0], format="rgb24", interpolation="BILINEAR", threads=1
                ).to_ndarray()
                pictures.append(np.rot90(picture, round(frame.rotation / 90) % 4))
            if number == indices[-1]:
                break
    return np.stack(pictures)


def opencv(path: str, indices: Sequence[int], size: Size) -> np.ndarray:
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, pictures = set(indices), []
    for number in range(indices[-1] + 1):
        if not capture.grab():
            raise EOFError(f"{number} frames")
        if number in wanted:
            _, picture = capture.retrieve()
            picture = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
            pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return np.stack(pictures)


def decord(path: str, indices: Sequence[int], size: Size) -> np.ndarray:
    import decord as library

    reader = library.VideoReader(path, width=size[1], height=size[0], num_threads=1)
    return reader.get_batch(list(indices)).asnumpy()


def torchcodec(path: str, indices: Sequence[int], size: Size) -> np.ndarray:
    import torch.nn.functional as F
    from torchcodec.decoders import VideoDecoder

    frames = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact").get_frames_at(list(indices)).data
    if frames.shape[-2:] != size:
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True)
    return frames.permute(0, 2, 3, 1).numpy()


READERS: dict[str, tuple[Reader, str]] = {
    "ssan": (ours, "ssan"),
    "ssan, decoder in this process": (ours_here, "ssan"),
    "PyAV in sequence": (pyav, "av"),
    "decord": (decord, "decord"),
    "opencv": (opencv, "cv2"),
    "torchcodec": (torchcodec, "torchcodec"),
}


def installed() -> list[str]:
    return [name for name, (_, module) in READERS.items() if importlib.util.find_spec(module)]


def render(folder: Path) -> Iterator[Path]:
    """Videos with camera movement, moving things and noise, as their kinds are in the data sets."""
    for name, (encoder, options, height, width, num_frames, rate) in RENDERED.items():
        path = folder / name
        if not path.exists():
            chance = np.random.default_rng(0)
            scene = chance.integers(0, 256, (height // 8 + 40, width // 8 + 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            with av.open(str(path), "w") as output:
                stream = output.add_stream(encoder, rate=rate, options=dict(options))
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                if encoder == "mpeg4":
                    stream.bit_rate = 1_000_000
                for number in range(num_frames):
                    top, left = number // 2, int(100 + 90 * np.sin(number / 20))
                    picture = scene[top : top + height, left : left + width].copy()
                    at = (5 * number) % (width - 60)
                    picture[height // 3 : height // 3 + 60, at : at + 60] = (230, 60, number % 256)
                    picture[::7] ^= chance.integers(0, 16, picture[::7].shape, np.uint8)
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                output.mux(stream.encode())
        yield path


def two_hours(path: Path) -> Path:
    """A file of two hours, one minute 120 times, which is soon written: packets are copied, not encoded."""
    minute = path.with_name("minute.mp4")
    if path.exists():
        return path
    with av.open(str(minute), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"g": "50", "bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(25 * 60):
            picture = np.full((240, 320, 3), number % 256, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    with av.open(str(path), "w") as output:
        copied, shift = None, 0
        for _ in range(120):
            with av.open(str(minute)) as container:
                source = container.streams.video[0]
                copied = copied or output.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copied
                        output.mux(packet)
                shift += int(60 / source.time_base)
    return path


def four_k(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"bf": "3", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 3840, 2160, "yuv420p"
        scene = np.random.default_rng(0).integers(0, 256, (290, 500, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        for number in range(60):
            picture = np.ascontiguousarray(scene[number : number + 2160, number : number + 3840])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


def describe(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        return {
            "file": path.name,
            "codec": stream.codec_context.codec.canonical_name,
            "container": container.format.name.split(",")[0],
            "b_frames": bool(stream.codec_context.has_b_frames),
            "width_px": stream.width,
            "height_px": stream.height,
        }


class Peer:
    """A reader in a process of its own, where it finds memory, libraries and threads as it leaves them itself."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.decode", "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request: Any) -> Any:
        """The answer of ``serve``; raises what it says went wrong."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump(request, self.process.stdin)
            self.process.stdin.flush()
            kind, answer = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"its process has ended with status {self.process.wait()}") from None
        if kind == "error":
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def serve(name: str) -> None:
    """In a peer's process: the frames of a clip, or the seconds that reading it so many times takes, for each time."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    read = READERS[name][0]
    while True:
        try:
            path, indices, size, times = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if times:
                started = time.perf_counter()
                for _ in range(times):
                    read(path, indices, size)
                answer: tuple[str, Any] = "ok", (time.perf_counter() - started) / times
            else:
                answer = "ok", read(path, indices, size)
        except Exception as error:  # noqa: BLE001 - another project may raise anything
            answer = "error", f"{type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()


def measure(path: Path, peers: dict[str, Peer], rounds: int, least_seconds: float) -> list[dict[str, Any]]:
    """A row for each reader: its time relative to PyAV's, over rounds in which the readers take turns.

    There are at least ``rounds`` of them, and of short files as many more as fit into ``least_seconds``.
    """
    with VideoFile(path) as video:
        indices = segment_indices(video.num_frames, 8, rng=None)
        size = video.size_px
    if min(size) > 256:
        size = resize_rule("short_side", 256)(*size)
    clip = str(path), indices, size
    reference = pyav(*clip)
    names, seconds, wrong = list(peers), {}, {}
    for name in list(names):
        try:
            frames = peers[name].ask(*clip, 0)
        except RuntimeError as error:
            print(f"{path.name}: {name}: {error}", file=sys.stderr)
            names.remove(name)
            continue
        seconds[name] = []
        # Other readers convert and shrink otherwise; a wrong frame differs by far more than that.
        away = np.abs(frames.astype(np.int16) - reference).mean(axis=(1, 2, 3))
        others = np.abs(reference.astype(np.int16)[:, None] - reference[None]).mean(axis=(2, 3, 4))
        nearest = np.sort(others + 1e9 * np.eye(len(others)), axis=1)[:, 0]
        wrong[name] = int(((away > 8) & (away > nearest / 2)).sum())
    began, turn, chance = time.perf_counter(), 0, np.random.default_rng(0)
    while turn < rounds or time.perf_counter() - began < least_seconds:
        for name in chance.permutation(names).tolist():
            seconds[name].append(peers[name].ask(*clip, CLIPS_A_TURN))
        turn += 1
    base = np.array(seconds["PyAV in sequence"])
    return [
        {
            **describe(path),
            "reader": name,
            "rounds": turn,
            "ratio_min": round(min(seconds[name]) / float(base.min()), 3),
            "ratio_median": round(float(np.median(np.array(seconds[name]) / base)), 3),
            "wrong_frames": wrong[name],
        }
        for name in names
    ]


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that a process has held at any time."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def memory(name: str, small: str, path: str) -> float:
    """Megabytes that reading ``path`` takes beyond reading ``small``, in a fresh process (two for ours)."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.decode", "--memory-of", name, small, path],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def print_memory(name: str, small: str, path: str) -> None:
    def held() -> int:
        from ssan.video import reader

        own = reader._reader
        return peak_bytes() + (peak_bytes(own._process.pid) if own else 0)

    read = READERS[name][0]
    read(small, list(range(8)), (48, 64))
    base = held()
    with VideoFile(path) as video:
        indices = segment_indices(video.num_frames, 8, rng=None)
    before = held()  # listing packets here is not the reader's doing
    read(path, indices, (256, 455))
    print((held() - max(base, before)) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="folder of real videos to read as well")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ssan_decode")
    parser.add_argument("--rounds", type=int, default=5, help="the least number of rounds")
    parser.add_argument("--seconds", type=float, default=10.0, help="the least time for each file")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=list(READERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    if arguments.memory_of:
        print_memory(*arguments.memory_of)
        return
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    files = list(render(arguments.work))
    rendered = {path.name for path in files}
    large = next(path for path in files if "1080p" in path.name)
    if arguments.videos:
        files += sorted(path for path in arguments.videos.rglob("*") if path.suffix in SUFFIXES)
    rows: list[dict[str, Any]] = []
    peers = {name: Peer(name) for name in installed()}
    for path in files:
        try:
            with VideoFile(path) as video:
                if video.num_frames < 16 or not video.read([video.num_frames - 1]):
                    continue
        except SsanError as error:
            print(f"{path.name} is left out: {error}", file=sys.stderr)
            continue
        for row in measure(path, peers, arguments.rounds, arguments.seconds):
            if path.name not in rendered:
                row["file"] = path.relative_to(arguments.videos).as_posix()  # some share their last name
            row["rendered"] = path.name in rendered
            rows.append(row)
            print(json.dumps(row), flush=True)
    for peer in peers.values():
        peer.close()
    small = arguments.work / "small.mp4"
    with av.open(str(small), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), "rgb24")))
        output.mux(stream.encode())
    large_files = []
    for path in (two_hours(arguments.work / "two_hours.mp4"), four_k(arguments.work / "4k.mp4")):
        with VideoFile(str(path)) as video:
            indices, frames = segment_indices(video.num_frames, 8, rng=None), video.num_frames
        started = time.perf_counter()
        ours(str(path), indices, (256, 455))
        seconds = round(time.perf_counter() - started, 2)
        peak = round(memory("ssan", str(small), str(path)), 1)
        large_files.append(
            {"file": path.name, "num_frames": frames, "bytes": path.stat().st_size, "seconds": seconds, "peak_mb": peak}
        )
        print(json.dumps(large_files[-1]), flush=True)
    peaks = {name: round(memory(name, str(small), str(large)), 1) for name in installed()}
    for row in rows:
        row["peak_mb"] = peaks[row["reader"]] if row["file"] == large.name else None
    packages = {"av": "av", "decord": "decord", "opencv": "opencv-python-headless", "torchcodec": "torchcodec"}
    versions = {}
    for name, package in packages.items():
        try:
            versions[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    result = {
        "machine": machine(),
        "versions": versions,
        "rows": rows,
        "large": large_files,
    }
    write_json(RESULTS / "decode.json", {"schema": 1, **result})
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
