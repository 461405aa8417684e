"""Decoding in a process apart: the same frames, and a file that brings the decoder down brings down nothing else."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from ssan.errors import UsageError, VideoError
from ssan.video import reader
from ssan.video.reader import open_video, read_clip

POSIX = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm that ends a process")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("reader") / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            picture = np.full((48, 64, 3), 12 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return str(path)


def of_this_process() -> reader._Reader:
    assert reader._reader is not None
    return reader._reader


@pytest.mark.parametrize("resize", [None, lambda height, width: (height // 2, width + 3)])
def test_a_clip_is_the_same_from_the_process_apart_and_from_this_one(video: str, resize: reader.Resize | None) -> None:
    apart, here = (read_clip(video, lambda n: [n - 1, 0, 0, 7], resize=resize, apart=way) for way in (True, False))
    assert torch.equal(apart.frames, here.frames)
    assert apart.frames.is_contiguous(memory_format=torch.channels_last)
    for name in ("indices", "times_seconds", "durations_seconds", "num_frames", "num_promised", "duration_seconds"):
        assert getattr(apart, name) == getattr(here, name), name
    assert apart.path == here.path == video


def test_clips_stay_as_they_were_when_others_are_read_however_many_there_are(video: str) -> None:
    clips = [read_clip(video, lambda n, number=number: [number, 19]) for number in range(2 * reader.NUM_PLACES)]
    expected = [read_clip(video, lambda n, number=number: [number, 19], apart=False) for number in range(len(clips))]
    for clip, same in zip(clips, expected, strict=True):
        assert torch.equal(clip.frames, same.frames)


def test_a_part_of_a_clip_stays_as_it_was_when_the_rest_is_gone(video: str) -> None:
    view = read_clip(video, lambda n: [3, 11]).frames[1, :, 5:9].permute(1, 2, 0)
    before = view.clone()
    for number in range(2 * reader.NUM_PLACES):
        read_clip(video, lambda n, number=number: [number, 17])
    assert torch.equal(view, before)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_a_place_is_used_again_when_its_clip_is_gone(video: str) -> None:
    read_clip(video, lambda n: [0])
    places = of_this_process().places
    assert places is not None
    gc.collect()
    free = set(places._free)
    clips = [read_clip(video, lambda n, number=number: [number]) for number in range(len(free))]
    assert places.choose() == 0
    kept = clips.pop()
    del clips
    assert len(places._free) == len(free) - 1
    del kept
    assert set(places._free) == free


def _look_at(
    frames: torch.Tensor, told: "multiprocessing.Queue[object]", answers: "multiprocessing.Queue[object]"
) -> None:
    told.get(timeout=60)
    answers.put(frames.float().mean((1, 2, 3)).tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_keeps_its_clips_as_they_were(video: str) -> None:
    """The pixels are in memory that both see: the parent must not use a place again that the child has too."""
    clip = read_clip(video, lambda n: [3, 11])
    expected = clip.frames.float().mean((1, 2, 3)).tolist()
    context = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[object] = context.Queue()
    answers: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=_look_at, args=(clip.frames, told, answers), daemon=True)
    process.start()
    # A started process holds on to its arguments.
    del clip
    process._args = ()  # type: ignore[attr-defined]
    gc.collect()
    for number in range(2 * reader.NUM_PLACES):
        read_clip(video, lambda n, number=number: [number, 17])
    told.put("look")
    assert answers.get(timeout=60) == expected
    process.join(60)
    of_this_process().stop()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
@pytest.mark.parametrize("room", ["enough", "too small for a clip", "none"])
def test_pixels_come_through_shared_memory_or_where_it_has_no_room_through_a_pipe(
    video: str, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    if room == "too small for a clip":
        monkeypatch.setattr(reader, "PLACE_BYTES", 1 << 14)  # one picture takes 9,216
    if room == "none":
        monkeypatch.delattr(os, "memfd_create")
    through_the_pipe = 0
    for numbers in ([4], [3, 19], [0]):
        apart, here = (read_clip(video, lambda n, numbers=numbers: numbers, apart=way) for way in (True, False))
        assert torch.equal(apart.frames, here.frames)
        places = of_this_process().places
        through_the_pipe += places is None or not places._lent
        del apart
    assert through_the_pipe == {"enough": 0, "too small for a clip": 1, "none": 3}[room]
    of_this_process().stop()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows what a file in memory takes up")
def test_little_of_the_shared_memory_stays_taken_up(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    monkeypatch.setattr(reader, "KEPT_BYTES", 1 << 16)
    for numbers in ([0] * 17, [1, 2, 3]):
        apart, here = (
            read_clip(video, lambda n, numbers=numbers: numbers, resize=lambda *_: (331, 127), apart=way)
            for way in (True, False)
        )
        assert torch.equal(apart.frames, here.frames)
        del apart
        assert _taken_up_bytes(of_this_process()._process.pid) <= 1 << 16
    of_this_process().stop()


def _taken_up_bytes(pid: int) -> int:
    (file, *_) = (file for file in Path(f"/proc/{pid}/fd").iterdir() if "memfd:ssan" in os.readlink(file))
    return file.stat().st_blocks * 512


def test_the_process_apart_asks_for_a_size_only_where_the_announced_one_is_not_that_of_the_pictures(
    video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = tmp_path / "turned.mp4"
    with av.open(video) as source, av.open(str(turned), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    sent: list[object] = []
    send = reader._Reader._send
    monkeypatch.setattr(reader._Reader, "_send", lambda self, message: (sent.append(message), send(self, message))[1])
    sizes: list[tuple[int, int]] = []

    def wider(height: int, width: int) -> tuple[int, int]:
        sizes.append((height, width))
        return height, width + 7

    assert read_clip(video, lambda n: [3], resize=wider).frames.shape == (1, 3, 48, 71)
    assert (len(sent), sizes) == (2, [(48, 64)])
    assert read_clip(turned, lambda n: [3], resize=wider).frames.shape == (1, 3, 64, 55)
    assert (len(sent), sizes[1:]) == (5, [(48, 64), (64, 48)])


def test_what_is_asked_wrongly_is_said_as_from_this_process(video: str) -> None:
    with open_video(video) as one, pytest.raises(UsageError, match="expected at least one"):
        one.read([])
    with open_video(video) as one:
        with pytest.raises(VideoError, match="frames 0 to 19") as caught:
            one.read([20])
        assert caught.value.path == video
        assert one.num_frames == 20
        assert one.size_px == (48, 64)


def test_one_process_serves_many_videos_at_a_time(video: str) -> None:
    with open_video(video) as one, open_video(video) as other:
        pid = of_this_process()._process.pid
        assert torch.equal(one.read([3]).frames, other.read([3]).frames)
    read_clip(video, lambda n: [0])
    assert of_this_process()._process.pid == pid != os.getpid()


@POSIX
def test_reading_that_takes_too_long_is_stopped_and_the_next_video_is_read(video: str) -> None:
    read_clip(video, lambda n: [0])
    with pytest.raises(VideoError, match=r"more than 0\.001 seconds") as caught:
        read_clip(video, lambda n: list(range(n)) * 200, limit_seconds=0.001)
    assert (caught.value.code, caught.value.path) == ("decode_error", video)
    assert read_clip(video, lambda n: [5]).indices == (5,)


@POSIX
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_decoder_that_crashes_is_an_error_that_names_the_video(video: str, number: signal.Signals) -> None:
    with open_video(video) as one, open_video(video) as other:
        process = of_this_process()._process
        os.kill(process.pid, signal.SIGSTOP)

        def crash() -> None:
            time.sleep(0.1)
            os.kill(process.pid, number)
            os.kill(process.pid, signal.SIGCONT)

        thread = threading.Thread(target=crash)
        thread.start()
        with pytest.raises(VideoError, match=f"crashed on it \\({number.name}\\)") as caught:
            one.read([0])
        thread.join()
        assert (caught.value.code, caught.value.path) == ("decode_error", video)
        with pytest.raises(VideoError, match="crashed on another"):
            other.read([0])
    assert read_clip(video, lambda n: [5]).indices == (5,)


@POSIX
def test_a_video_that_asks_for_too_much_memory_is_refused(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LIMIT_BYTES", 1 << 30)
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    with pytest.raises(VideoError, match=r"more memory than a video may have \(1 GB\)") as caught:
        read_clip(video, lambda n: [0] * 100, resize=lambda *_: (2000, 2000))
    assert (caught.value.code, caught.value.path) == ("decode_error", video)
    assert read_clip(video, lambda n: [5]).indices == (5,)
    of_this_process().stop()


def test_a_mistake_in_the_callers_own_function_does_not_mix_up_the_answers(video: str) -> None:
    def broken(height: int, width: int) -> tuple[int, int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_clip(video, lambda n: [0], resize=broken)
    assert read_clip(video, lambda n: [5]).indices == (5,)


def _read_in_fork(video: str, expected: torch.Tensor, answers: "multiprocessing.Queue[object]") -> None:
    same = torch.equal(read_clip(video, lambda n: [5]).frames, expected)
    answers.put((same, of_this_process()._process.pid))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_reader_of_its_own(video: str) -> None:
    expected = read_clip(video, lambda n: [5]).frames
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=_read_in_fork, args=(video, expected, answers), daemon=True)
    process.start()
    same, pid = answers.get(timeout=60)  # type: ignore[misc]
    process.join(60)
    assert process.exitcode == 0
    assert same
    assert pid != of_this_process()._process.pid
    assert torch.equal(read_clip(video, lambda n: [5]).frames, expected)


def test_a_relative_path_follows_this_process_where_it_goes(
    video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_clip(video, lambda n: [0])
    (tmp_path / "b.mp4").write_bytes(Path(video).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert read_clip("b.mp4", lambda n: [0]).path == "b.mp4"


@POSIX
def test_the_process_apart_ends_when_the_one_that_reads_is_killed(video: str) -> None:
    script = (
        "import sys, time; from ssan.video import reader\n"
        "reader.open_video(sys.argv[1]); print(reader._reader._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, video], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.kill(pid, 0)
        process.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() if Path("/proc").exists() else _lives(pid):
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break  # ended; whoever adopted it has not looked yet
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_decoder_asks_for_large_pages_beside_what_the_user_asks_of_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    starting, given = subprocess.Popen, []

    def noting(*arguments: Any, **options: Any) -> Any:
        given.append(options["env"]["GLIBC_TUNABLES"])
        return starting(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", noting)
    for users in (None, "glibc.malloc.tcache_count=5"):
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        if users:
            monkeypatch.setenv("GLIBC_TUNABLES", users)
        reader._Reader().stop()
    assert given == ["glibc.malloc.hugetlb=1", "glibc.malloc.tcache_count=5:glibc.malloc.hugetlb=1"]
