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

from ssan import processes
from ssan.errors import UsageError, VideoError
from ssan.video import decoder_connection, decoder_process, reader
from ssan.video.clip import Resize
from ssan.video.decoder_connection import Connection, NotAnAnswerError, Pipes, SharedSlots, packed
from ssan.video.reader import open_video, read_clip

POSIX = pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="this system has no alarm that ends a process")


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


def slots_of_this_process() -> SharedSlots | None:
    return of_this_process()._connection.slots


@pytest.mark.parametrize("resize", [None, Resize("exact", 24, 67), Resize("short_side", 36), Resize("square", 50)])
def test_a_clip_is_the_same_from_the_process_apart_and_from_this_one(video: str, resize: Resize | None) -> None:
    apart, here = (read_clip(video, lambda n: [n - 1, 0, 0, 7], resize=resize, apart=way) for way in (True, False))
    assert torch.equal(apart.frames, here.frames)
    assert apart.frames.is_contiguous(memory_format=torch.channels_last)
    for name in ("indices", "times_seconds", "durations_seconds", "num_frames", "num_promised", "duration_seconds"):
        assert getattr(apart, name) == getattr(here, name), name
    assert apart.path == here.path == video


def test_clips_stay_as_they_were_when_others_are_read_however_many_there_are(video: str) -> None:
    clips = [
        read_clip(video, lambda n, number=number: [number, 19]) for number in range(2 * decoder_connection.NUM_SLOTS)
    ]
    expected = [read_clip(video, lambda n, number=number: [number, 19], apart=False) for number in range(len(clips))]
    for clip, same in zip(clips, expected, strict=True):
        assert torch.equal(clip.frames, same.frames)


def test_a_part_of_a_clip_stays_as_it_was_when_the_rest_is_gone(video: str) -> None:
    view = read_clip(video, lambda n: [3, 11]).frames[1, :, 5:9].permute(1, 2, 0)
    before = view.clone()
    for number in range(2 * decoder_connection.NUM_SLOTS):
        read_clip(video, lambda n, number=number: [number, 17])
    assert torch.equal(view, before)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_a_slot_is_used_again_when_its_clip_is_gone(video: str) -> None:
    read_clip(video, lambda n: [0])
    slots = slots_of_this_process()
    assert slots is not None
    gc.collect()
    free = set(slots._free)
    clips = [read_clip(video, lambda n, number=number: [number]) for number in range(len(free))]
    assert slots.choose() == 0
    kept = clips.pop()
    del clips
    assert len(slots._free) == len(free) - 1
    del kept
    assert set(slots._free) == free


def _look_at(
    frames: torch.Tensor, told: "multiprocessing.Queue[object]", answers: "multiprocessing.Queue[object]"
) -> None:
    told.get(timeout=60)
    answers.put(frames.float().mean((1, 2, 3)).tolist())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_keeps_its_clips_as_they_were(video: str) -> None:
    """The pixels are in memory that both see: the parent must not use a slot again that the child has too."""
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
    for number in range(2 * decoder_connection.NUM_SLOTS):
        read_clip(video, lambda n, number=number: [number, 17])
    told.put("look")
    assert answers.get(timeout=60) == expected
    process.join(60)
    of_this_process().stop()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
@pytest.mark.parametrize("room", ["enough", "too small for a clip", "none"])
def test_pixels_come_through_shared_memory_or_where_it_has_no_room_through_a_pipe(
    video: str, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    if room == "too small for a clip":
        monkeypatch.setattr(decoder_connection, "SLOT_BYTES", 1 << 14)  # one picture takes 9,216
    if room == "none":
        monkeypatch.delattr(os, "memfd_create")
    through_the_pipe = 0
    for numbers in ([4], [3, 19], [0]):
        apart, here = (read_clip(video, lambda n, numbers=numbers: numbers, apart=way) for way in (True, False))
        assert torch.equal(apart.frames, here.frames)
        slots = slots_of_this_process()
        through_the_pipe += slots is None or not slots._lent
        del apart
    assert through_the_pipe == {"enough": 0, "too small for a clip": 1, "none": 3}[room]
    of_this_process().stop()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows what a file in memory takes up")
def test_little_of_the_shared_memory_stays_taken_up(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    monkeypatch.setattr(decoder_connection, "KEPT_BYTES", 1 << 16)
    for numbers in ([0] * 17, [1, 2, 3]):
        apart, here = (
            read_clip(video, lambda n, numbers=numbers: numbers, resize=Resize("exact", 331, 127), apart=way)
            for way in (True, False)
        )
        assert torch.equal(apart.frames, here.frames)
        del apart
        assert _taken_up_bytes(of_this_process()._process.pid) <= 1 << 16
    of_this_process().stop()


def _taken_up_bytes(pid: int) -> int:
    (file, *_) = (file for file in Path(f"/proc/{pid}/fd").iterdir() if "memfd:ssan" in os.readlink(file))
    return file.stat().st_blocks * 512


def test_a_turned_picture_is_resized_by_its_upright_size_which_nobody_is_asked_for(
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
    sent: list[bytes] = []
    send = Pipes.send
    monkeypatch.setattr(Pipes, "send", lambda self, message: (sent.append(message), send(self, message))[1])
    shrunk = Resize("shrink", 12, multiple=5)
    assert read_clip(video, lambda n: [3], resize=shrunk).frames.shape == (1, 3, 10, 15)
    assert read_clip(turned, lambda n: [3], resize=shrunk).frames.shape == (1, 3, 15, 10)
    assert len(sent) == 4


def test_what_is_no_resize_is_refused_and_the_next_answer_is_to_the_next_question(video: str) -> None:
    with pytest.raises(UsageError, match="resize is a function; expected a Resize"):
        read_clip(video, lambda n: [0], resize=lambda height, width: (height, width))  # type: ignore[arg-type]
    assert read_clip(video, lambda n: [5]).indices == (5,)


def test_what_is_asked_wrongly_is_said_as_from_this_process(video: str) -> None:
    with open_video(video) as one, pytest.raises(UsageError, match="expected at least one"):
        one.read([])
    with open_video(video) as one:
        with pytest.raises(VideoError, match="frames 0 to 19") as caught:
            one.read([20])
        assert caught.value.path == video
        assert one.num_frames == 20
        assert one.size_px == (48, 64)


def test_the_server_imports_neither_what_asks_it_nor_torch() -> None:
    code = "import sys; from ssan.video import decoder_server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "ssan.video.decode" in loaded
    assert not {"ssan.video.reader", "ssan.video.decoder_process", "ssan.video.preprocess", "torch"} & set(loaded)


def test_one_process_serves_many_videos_at_a_time(video: str) -> None:
    with open_video(video) as one, open_video(video) as other:
        pid = of_this_process()._process.pid
        assert torch.equal(one.read([3]).frames, other.read([3]).frames)
    read_clip(video, lambda n: [0])
    assert of_this_process()._process.pid == pid != os.getpid()


@POSIX
def test_reading_that_takes_too_long_is_stopped_and_the_next_video_is_read(
    video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CLOCK_FACTOR", 1e6)
    read_clip(video, lambda n: [0])
    with pytest.raises(VideoError, match=r"more than 0\.001 seconds of processor time.*SSAN_DECODE_SECONDS") as caught:
        read_clip(video, lambda n: list(range(n)) * 200, limit_seconds=0.001)
    assert (caught.value.code, caught.value.path) == ("decode_error", video)
    assert read_clip(video, lambda n: [5]).indices == (5,)


def test_the_limit_of_time_can_be_set_from_outside_and_has_to_be_one(
    video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSAN_DECODE_SECONDS", "77.5")
    assert reader.limit_of(None) == 77.5
    assert reader.limit_of(3) == 3
    for wrong in ("soon", "-1", "0", "nan", "1e400"):
        monkeypatch.setenv("SSAN_DECODE_SECONDS", wrong)
        with pytest.raises(UsageError, match=f"SSAN_DECODE_SECONDS is {wrong}; expected seconds"):
            open_video(video)


def stopped_for(process: "subprocess.Popen[bytes]", seconds: float, *then: signal.Signals) -> threading.Thread:
    """Stop a process, and after a while send it these signals."""
    os.kill(process.pid, signal.SIGSTOP)

    def go_on() -> None:
        time.sleep(seconds)
        for number in then:
            os.kill(process.pid, number)

    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


@pytest.mark.slow
@POSIX
def test_the_limit_counts_the_work_and_not_the_clock(video: str) -> None:
    read_clip(video, lambda n: [0])
    pid = of_this_process()._process.pid
    thread = stopped_for(of_this_process()._process, 1.0, signal.SIGCONT)
    assert read_clip(video, lambda n: [5], limit_seconds=0.7).indices == (5,)
    thread.join()
    assert of_this_process()._process.pid == pid


@pytest.mark.slow
@POSIX
def test_a_process_that_stands_still_is_not_waited_for_without_end(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CLOCK_FACTOR", 0.001)
    with open_video(video) as one:
        process = of_this_process()._process
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(VideoError, match=r"more than 0\.12 seconds by the clock") as caught:
            one.read([0])
        assert (caught.value.code, caught.value.path) == ("decode_error", video)
        assert process.poll() is not None
    monkeypatch.undo()
    assert read_clip(video, lambda n: [5]).indices == (5,)


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_decoder_that_is_ended_once_in_the_middle_of_its_work_blames_no_video(
    video: str, number: signal.Signals
) -> None:
    expected = read_clip(video, lambda n: [3, 11]).frames
    with open_video(video) as one, open_video(video) as other:
        assert torch.equal(other.read([3, 11]).frames, expected)
        thread = stopped_for(of_this_process()._process, 0.1, number, signal.SIGCONT)
        assert torch.equal(one.read([3, 11]).frames, expected)
        thread.join()
        assert torch.equal(other.read([3, 11]).frames, expected)
        assert other.size_px == (48, 64)


@pytest.mark.slow
@POSIX
def test_a_decoder_that_was_killed_while_it_waited_blames_no_video(video: str) -> None:
    with open_video(video) as one:
        process = of_this_process()._process
        process.kill()
        process.wait()
        assert one.read([3]).indices == (3,)
    of_this_process().kill()
    assert read_clip(video, lambda n: [5]).indices == (5,)


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGSEGV, r"the decoder crashed on it \(SIGSEGV\), and so did the next one; expected a whole video"),
        (signal.SIGKILL, r"ended from outside \(SIGKILL\), perhaps because memory ran out, and so .* fewer --workers"),
    ],
)
def test_a_file_on_which_two_decoders_end_is_an_error_that_names_it_and_what_happened(
    video: str, number: signal.Signals, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, ended = Connection._receive, []

    def and_end(self: Connection, slot: int, request: Any) -> Any:
        answer = receive(self, slot, request)
        if request[0] == "pictures":
            process = of_this_process()._process
            ended.append(process.pid)
            os.kill(process.pid, number)
            process.wait()
            raise EOFError
        return answer

    monkeypatch.setattr(Connection, "_receive", and_end)
    with pytest.raises(VideoError, match=said) as caught:
        read_clip(video, lambda n: [0])
    assert (caught.value.code, caught.value.path) == ("decode_error", video)
    assert len(set(ended)) == 2
    monkeypatch.undo()
    assert read_clip(video, lambda n: [5]).indices == (5,)


@pytest.mark.slow
@POSIX
def test_a_stream_goes_on_where_it_was_when_its_decoder_is_killed(video: str) -> None:
    size = Resize("square", 1100)  # four frames a clip
    with open_video(video) as one:
        expected = list(one.stream(resize=size))
        assert len(expected) > 3
        seen = []
        for clip in one.stream(resize=size):
            seen.append(clip)
            if len(seen) == 2:
                of_this_process().kill()
    assert [clip.indices for clip in seen] == [clip.indices for clip in expected]
    assert all(torch.equal(clip.frames, same.frames) for clip, same in zip(seen, expected, strict=True))


@pytest.mark.slow
def test_two_streams_of_one_video_do_not_mix(video: str) -> None:
    size = Resize("square", 1100)
    with open_video(video) as one:
        pairs = list(zip(one.stream(resize=size), one.stream(resize=size), strict=True))
        assert [clip.indices for clip, _ in pairs] == [clip.indices for _, clip in pairs]
        assert sum(len(clip.indices) for clip, _ in pairs) == 20
        for clip, other in pairs:
            assert torch.equal(clip.frames, other.frames)
        assert one.read([3]).indices == (3,)


# What a decoder that was taken over might say, instead of an answer.
LIES = {
    "no JSON": b"\x05\0\0\0hello",
    "a pickle": b"\x10\0\0\0\x80\x04\x95\x05\0\0\0\0\0\0\0\x8c\x01a\x94.",
    "a message without end": b"\xff\xff\xff\xff",
    "another form": packed({"kind": "ok"}),
    "an unknown kind": packed(["run", "os.system", None]),
    "no pixels": packed(["ok", [None, [0.0], [0.1]], None]),
    "pixels of no size": packed(["ok", [None, [0.0], [0.1]], [1, 0, 64, 3]]),
    "pixels without end": packed(["ok", [None, [0.0], [0.1]], [1, 1 << 20, 1 << 20, 3]]),
    "pixels of another number": packed(["ok", [None, [0.0] * 2, [0.1] * 2], [2, 4, 4, 3]]) + bytes(96),
    "times that are none": packed(["ok", [None, ["a"], [0.1]], [1, 4, 4, 3]]) + bytes(48),
    "an unknown error": packed(["error", {"kind": "SystemExit", "message": "x"}, None]),
    "an unknown code": packed(
        ["error", {"kind": "VideoError", "message": "x", "code": "y", "path": None, "line": 1}, 0]
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_decoder_says_is_looked_at_before_it_is_used(lie: str) -> None:
    told, to = os.pipe()
    os.write(to, LIES[lie])
    os.close(to)
    asking = Connection(told, told, None)
    with pytest.raises((NotAnAnswerError, EOFError)):
        asking._receive(0, ["pictures", 1, [0], None])
    os.close(told)


@pytest.mark.slow
@POSIX
def test_a_decoder_that_says_something_else_than_it_was_asked_is_ended_and_the_video_named(
    video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_video(video) as one:
        monkeypatch.setattr(Pipes, "take", lambda self, count: LIES["another form"][:4] if count == 4 else b"[1, 2]")
        with pytest.raises(VideoError, match="answered something else than was asked, and so did the next") as caught:
            one.read([0])
        assert (caught.value.code, caught.value.path) == ("decode_error", video)
    monkeypatch.undo()
    assert read_clip(video, lambda n: [5]).indices == (5,)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux shows the limits of a process")
def test_the_process_apart_may_write_no_file_and_is_the_first_to_go_where_memory_runs_out(video: str) -> None:
    read_clip(video, lambda n: [0])
    process = Path(f"/proc/{of_this_process()._process.pid}")
    limits = {line[:26].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()}
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert int((process / "oom_score_adj").read_text()) >= 900


def test_readers_that_are_many_have_less_memory_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_machine_bytes", lambda: 32 << 30)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for number, share in ((1, 4), (2, 4), (4, 4), (8, 2), (16, 1), (64, 1)):
        monkeypatch.setattr(processes, "_sharers", number)
        assert processes.memory_share(4 << 30, 1 << 30) == share << 30
    monkeypatch.setattr(processes, "_sharers", 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert processes.memory_share(4 << 30, 1 << 30) == 2 << 30
    monkeypatch.setattr(processes, "_machine_bytes", lambda: None)
    assert processes.memory_share(4 << 30, 1 << 30) == 4 << 30


@pytest.mark.slow
@POSIX
def test_a_video_that_asks_for_too_much_memory_is_refused(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "LIMIT_BYTES", 1 << 30)
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    with pytest.raises(VideoError, match=r"more memory than a video may have \(1 GB\)") as caught:
        read_clip(video, lambda n: [0] * 100, resize=Resize("square", 2000))
    assert (caught.value.code, caught.value.path) == ("decode_error", video)
    assert read_clip(video, lambda n: [5]).indices == (5,)
    of_this_process().stop()


def _read_in_fork(video: str, expected: torch.Tensor, answers: "multiprocessing.Queue[object]") -> None:
    same = torch.equal(read_clip(video, lambda n: [5]).frames, expected)
    answers.put((same, of_this_process()._process.pid))


@pytest.mark.slow
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


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    "how", ["killed", "terminated", "killed while the other is stopped", "killed while it decodes"]
)
def test_the_process_apart_ends_with_the_one_that_reads(video: str, how: str) -> None:
    script = (
        "import sys, threading, time; from ssan.video import reader\n"
        "video = reader.open_video(sys.argv[1]); print(reader._reader._process.pid, flush=True)\n"
        "if sys.argv[2] == 'killed while it decodes': video.read(list(range(20)) * 100_000)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, video, how], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.kill(pid, 0)
        if "stopped" in how:
            os.kill(pid, signal.SIGSTOP)
        if "decodes" in how:
            time.sleep(0.3)
        process.send_signal(signal.SIGTERM if how == "terminated" else signal.SIGKILL)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() if Path("/proc").exists() else _lives(pid):
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break  # ended; whoever adopted it has not looked yet
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_reader_lasts_longer_than_the_thread_in_which_it_was_started(video: str) -> None:
    """To the kernel it is the thread that is a process's parent, and ends with it."""
    read_clip(video, lambda n: [0])
    of_this_process().stop()
    thread = threading.Thread(target=read_clip, args=(video, lambda n: [0]))
    thread.start()
    thread.join()
    process = of_this_process()._process
    time.sleep(0.2)
    assert process.poll() is None
    read_clip(video, lambda n: [0])
    assert of_this_process()._process is process


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
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
