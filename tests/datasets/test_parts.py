"""Parts of videos that a list counts in frames are those frames, whatever rate the video has."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from ssan.datasets import Sample, Samples, read
from ssan.datasets.audit import audit, write_list
from ssan.datasets.clips import part_of
from ssan.datasets.describe import describe
from ssan.datasets.samples import hash_list
from ssan.errors import AnnotationError, UsageError, VideoError
from ssan.features.extract import jobs_of
from ssan.video.clip import FramePart
from ssan.video.preprocess import Preprocess
from ssan.video.reader import open_video, read_clip


def _put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _refused(path: Path) -> AnnotationError:
    with pytest.raises(AnnotationError) as caught:
        read("csv", path, "all")
    return caught.value


@pytest.mark.parametrize("form", ["frames", "frames with times", "video"])
def test_an_offset_counts_frames_whatever_rate_the_video_has(tmp_path: Path, form: str) -> None:
    if form == "video":
        with av.open(tmp_path / "a.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(60):
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    else:
        names = [f"{number + 1:05d}.jpg" for number in range(60)]
        for number, name in enumerate(names):
            picture = simplejpeg.encode_jpeg(np.full((48, 64, 3), 4 * number, np.uint8))
            _put(tmp_path / "a" / name, picture)
        if form == "frames with times":
            times = {name: [number / 25, 1 / 25] for number, name in enumerate(names)}
            _put(tmp_path / "a" / ".times.json", json.dumps({"frames": times}))
    _put(tmp_path / "train.txt", "a 20 10 0\na 55 9 0\na 60 3 0\n")
    samples = read("mmaction2_list", tmp_path, "train", kind="rawframes_offset")
    assert [(s.start_frame, s.end_frame, s.seconds) for s in samples] == [
        (20, 30, (None, None)), (55, 64, (None, None)), (60, 63, (None, None)),
    ]  # fmt: skip
    with open_video(samples[0].path) as video:  # who knows of seconds alone is given the frames, or told
        assert [video.span(s.start_seconds, s.end_seconds) for s in samples[:2]] == [(20, 30), (55, 60)]
        with pytest.raises(UsageError, match="expected seconds alone, or frames"):
            video.span(samples[0].start_seconds, 2.0)
    with pytest.raises(TypeError):
        samples[0].end_seconds - samples[0].start_seconds
    inside, beyond, outside = samples
    clip = read_clip(inside.path, range, part=part_of(inside))
    assert clip.indices == tuple(range(10))
    assert [round(value / 4) for value in clip.frames.float().mean(dim=(1, 2, 3)).tolist()] == list(range(20, 30))
    assert read_clip(beyond.path, range, part=part_of(beyond)).indices == tuple(range(5))
    with pytest.raises(VideoError, match="begins with frame 60, and the video has frames 0 to 59"):
        read_clip(outside.path, range, part=part_of(outside))
    preprocess = Preprocess(num_frames=2, size_px=32, crop_px=32)
    windows = list(preprocess.windows(inside.path, window_seconds=1e3, stride_seconds=1e3, part=part_of(inside)))
    levels = [(clip.float().mean(dim=(1, 2, 3)) / 4).round().tolist() for _, clip in windows]
    assert levels == [[22, 27]]
    found = audit(samples, quiet=True)
    (finding,) = found.findings
    assert finding.rejected == {beyond.id, outside.id}
    assert [fault.sample.id for fault in found.unusable] == [outside.id]
    assert "ends with frame 63, the video has 60 frames" in finding.message


def test_a_list_of_ones_own_may_count_frames_too(tmp_path: Path) -> None:
    _put(tmp_path / "a.csv", "path,label,id,start_frame,end_frame\na.mp4,x,1,3,7\na.mp4,x,2,7,\na.mp4,x,3,,\n")
    samples = read("csv", tmp_path / "a.csv", "all")
    assert [part_of(sample) for sample in samples] == [FramePart(3, 7), FramePart(7), None]
    assert [sample.is_whole for sample in samples] == [False, False, True]
    found = describe(samples, look=0)
    assert (found["num_parts"], found["part_frames"]["median"], found["part_seconds"]) == (2, 4, None)
    for bounds, words in (
        ("7,7", "expected an end after the start"),
        ("1.5,2", "is no frame"),
        ("-1,2", "is no frame"),
    ):
        _put(tmp_path / "b.csv", f"path,label,start_frame,end_frame\na.mp4,x,{bounds}\n")
        error = _refused(tmp_path / "b.csv")
        assert (error.line, words in error.message) == (2, True)
    _put(tmp_path / "c.csv", "path,label,start_seconds,end_frame\na.mp4,x,1,4\n")
    assert "bounds in seconds and in frames" in _refused(tmp_path / "c.csv").message


def test_lists_differ_by_the_frames_of_their_parts_and_else_have_the_hash_they_had(tmp_path: Path) -> None:
    lists = [Samples([Sample("a", "a", "x", 0, start_frame=first, end_frame=9)], ["x"], "") for first in (None, 1, 2)]
    assert len({hash_list(samples) for samples in lists}) == 3
    assert hash_list(Samples([Sample("a", "a", "x", 0, 1.5, None)], ["x"], "")) == "ae9141d44316e6a1"


def test_parts_in_frames_survive_a_written_list_and_are_entries_of_their_own(tmp_path: Path) -> None:
    _put(tmp_path / "train.txt", "a 20 10 0\na 30 5 0\n")
    samples = read("mmaction2_list", tmp_path, "train", kind="rawframes_offset")
    assert write_list(tmp_path / "clean.csv", samples, str(tmp_path)) == []
    assert [(s.id, part_of(s)) for s in read("csv", tmp_path / "clean.csv", "all")] == [
        ("a_000020_000029", FramePart(20, 30)), ("a_000030_000034", FramePart(30, 35)),
    ]  # fmt: skip
    assert [(job.id, job.part) for job in jobs_of(samples)] == [
        ("a_000020_000029", FramePart(20, 30)), ("a_000030_000034", FramePart(30, 35)),
    ]  # fmt: skip
