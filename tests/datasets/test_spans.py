"""Spans made in Label Studio, CVAT, ELAN and VIA are the frames of the file that whoever made them saw."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from tests.encoded_videos import NUM_FRAMES, picture, render

from ssan.datasets import Sample, Samples, detect, read
from ssan.datasets.clips import part_of
from ssan.datasets.markup import MOST_DEPTH, MOST_LETTERS, elements
from ssan.datasets.media import spellings
from ssan.errors import CODES, AnnotationError, SsanError, UsageError
from ssan.video.clip import FramePart
from ssan.video.reader import open_video, read_clip

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "ssan-hypothesis")

# When the frames of an uneven video of `render` begin, in 24ths of a second after the first.
UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 9, NUM_FRAMES)).tolist()
TICKS = {"even.mp4": list(range(NUM_FRAMES)), "uneven.mp4": [tick - UNEVEN[0] for tick in UNEVEN]}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoded videos: 24 frames a second, and a variable rate."""
    folder = tmp_path_factory.mktemp("films")
    render(folder / "even.mp4", "h264_closed")
    render(folder / "uneven.mp4", "h264_pyramid", uneven=True)
    return folder


def shown_in(sample: Sample) -> list[int]:
    """The numbers of the pictures that are decoded for a sample, by what is in them."""
    clip = read_clip(sample.path, range, part=part_of(sample))
    known = np.stack([picture(number, 64, 64) for number in range(NUM_FRAMES)]).astype(np.int16)
    seen = clip.frames.permute(0, 2, 3, 1).numpy().astype(np.int16)
    return [int(np.abs(known - frame).mean(axis=(1, 2, 3)).argmin()) for frame in seen]


def within(film: str, start_ticks: float, stop_ticks: float) -> list[int]:
    """The frames of a video that begin in [start, stop), by looking at each; times are 24ths of a second."""
    return [number for number, tick in enumerate(TICKS[film]) if start_ticks - 1e-6 <= tick < stop_ticks - 1e-6]


def _put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        _put(folder / name, "x")
    return folder


def _bounds(samples: Samples) -> list[tuple[str, str | None, object, object]]:
    """Id, label and bounds; frames as the whole numbers that they are, seconds as floats."""
    return [
        (s.id, s.label, s.start_frame, s.end_frame)
        if s.start_frame is not None
        else (s.id, s.label, s.start_seconds, s.end_seconds)
        for s in samples
    ]


def _refused(call: Callable[[], object], kind: type[SsanError] = SsanError) -> SsanError:
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.code is None or error.code in CODES
    assert len(error.message.splitlines()) == 1
    assert len(error.message) < 2000
    return error


# --------------------------------------------------------------------------------------------------- Label Studio


def ranges(key: str, label: str | list[str], *bounds: tuple[int, int], control: str = "tl") -> dict[str, Any]:
    labels = [label] if isinstance(label, str) else label
    return {
        "id": key, "from_name": control, "to_name": "video", "type": "timelinelabels", "origin": "manual",
        "value": {"ranges": [{"start": a, "end": b} for a, b in bounds], "timelinelabels": labels},
    }  # fmt: skip


def task(video: str, *results: dict[str, Any], number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "file_upload": None, "data": {"video": video, **more},
        "annotations": [{"id": 9, "completed_by": 1, "was_cancelled": False, "result": list(results)}],
        "predictions": [{"result": [ranges("guess", "wrong", (1, 2))]}],
    }  # fmt: skip


def test_ranges_of_label_studio_are_times_by_its_own_rate_first_and_last_frame_included(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    # Frame 1 at 25 a second is [0, 0.04) s; 26 to 50 is the second from 1 to 2.
    _put(tmp_path / "e.json", [task("a.mp4", ranges("r", "run", (26, 50)), ranges("j", "jump", (1, 1)))])
    samples = read("label_studio", tmp_path / "e.json", "all", rate="25")
    assert _bounds(samples) == [("a#j", "jump", 0.0, 0.04), ("a#r", "run", 1.0, 2.0)]
    assert samples.classes == ["jump", "run"]
    assert samples.notes == [
        "between the spans of a video, 1 stretches (0.960 s in all) have no label and are in no sample, nor is what "
        "comes before the first span and after the last"
    ]
    assert _bounds(read("label_studio", tmp_path / "e.json", "all", rate="24"))[1][2:] == (25 / 24, 50 / 24)
    assert _bounds(read("label_studio", tmp_path / "e.json", "all", rate="file")) == [
        ("a#j", "jump", 0, 1), ("a#r", "run", 25, 50),
    ]  # fmt: skip
    counted_from_0 = read("label_studio", tmp_path / "e.json", "all", rate="file", first_frame="0")
    assert _bounds(counted_from_0) == [("a#j", "jump", 1, 2), ("a#r", "run", 26, 51)]


def test_the_rate_of_label_studio_is_said_by_its_tasks_or_must_be_told(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    _put(tmp_path / "e.json", [task("a.mp4", ranges("r", "run", (11, 20)), fps="10")])
    samples = read("label_studio", tmp_path / "e.json", "all")
    assert _bounds(samples) == [("a#r", "run", 1.0, 2.0)]
    assert samples.notes == ["1 ranges are counted at 10 frames a second, as their tasks say (fps)"]
    assert _bounds(read("label_studio", tmp_path / "e.json", "all", rate="20"))[0][2:] == (0.5, 1.0)
    for fps in (None, "", "x", 0, -5, "1e999", [25], 10**400):
        _put(tmp_path / "f.json", [task("a.mp4", ranges("r", "run", (11, 20)), fps=fps)])
        error = _refused(lambda: read("label_studio", tmp_path / "f.json", "all"), UsageError)
        assert "--reader rate=24" in error.message
    for word in ("0", "-1", "nan", "fast", "1e9"):
        _refused(lambda word=word: read("label_studio", tmp_path / "e.json", "all", rate=word), UsageError)


@pytest.mark.slow
@pytest.mark.parametrize("film", TICKS)
@pytest.mark.parametrize(("rate", "first", "last"), [(24, 6, 20), (25, 1, 17), (30, 13, 40), (12, 5, 9)])
def test_frames_of_label_studio_decode_as_the_frames_shown_at_these_times(
    films: Path, tmp_path: Path, film: str, rate: int, first: int, last: int
) -> None:
    _put(tmp_path / "e.json", [task(f"/data/upload/3/0a1b2c3d-{film}", ranges("r", "run", (first, last)))])
    (sample,) = read("label_studio", tmp_path / "e.json", "all", videos=str(films), rate=str(rate))
    assert sample.path == str(films / film)
    expected = within(film, (first - 1) * 24 / rate, last * 24 / rate)
    assert len(expected) > 1
    assert shown_in(sample) == expected


@pytest.mark.slow
def test_a_rate_that_is_the_files_own_makes_frames_of_ranges(films: Path, tmp_path: Path) -> None:
    _put(tmp_path / "e.json", [task(film, ranges("r", "run", (6, 9))) for film in TICKS])
    samples = read("label_studio", tmp_path / "e.json", "all", videos=str(films), rate="file")
    assert [part_of(sample) for sample in samples] == [FramePart(5, 9), FramePart(5, 9)]
    assert [shown_in(sample) for sample in samples] == [[5, 6, 7, 8], [5, 6, 7, 8]]


def test_seconds_of_label_studio_and_labels_of_whole_videos(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4", "b.mp4")
    sound = {
        "id": "s", "from_name": "words", "to_name": "audio", "type": "labels", "original_length": 8.5,
        "value": {"start": 1.25, "end": 2.5, "channel": 0, "labels": ["clap"]},
    }  # fmt: skip
    box = {"id": "v", "from_name": "words", "type": "videorectangle", "value": {"sequence": [], "labels": ["man"]}}
    choice = {"id": "c", "from_name": "kind", "to_name": "video", "type": "choices", "value": {"choices": ["indoors"]}}
    relation = {"type": "relation", "from_id": "s", "to_id": "v", "direction": "right"}
    _put(tmp_path / "e.json", [task("a.mp4", sound, box, relation, choice), task("b.mp4", choice, number=2)])
    error = _refused(lambda: read("label_studio", tmp_path / "e.json", "all"), UsageError)
    assert "2 controls have labels of spans: kind (2), words (1); say which" in error.message
    words = read("label_studio", tmp_path / "e.json", "all", control="words")
    assert _bounds(words) == [("a#s", "clap", 1.25, 2.5)]
    assert words.notes == ["1 tasks have nothing from 'words'"]
    kinds = read("label_studio", tmp_path / "e.json", "all", control="kind")
    assert [(s.id, s.label, s.is_whole) for s in kinds] == [("a", "indoors", True), ("b", "indoors", True)]


def test_the_small_export_of_label_studio_is_read_too(tmp_path: Path) -> None:
    _touch(tmp_path, "a b.mp4")
    row = {
        "video": "/data/local-files/?d=films%2Fa%20b.mp4", "id": 4, "annotator": 1, "annotation_id": 2,
        "tl": [{"ranges": [{"start": 1, "end": 10}, {"start": 21, "end": 30}], "timelinelabels": ["run", "fast"]}],
    }  # fmt: skip
    path = _put(tmp_path / "e.json", [row])
    assert detect(str(path)) == "label_studio"
    assert _bounds(read("label_studio", path, "all", rate="10")) == [
        ("a b#4-0", "run", 0.0, 1.0), ("a b#4-0.2", "fast", 0.0, 1.0),
        ("a b#4-0.3", "run", 2.0, 3.0), ("a b#4-0.4", "fast", 2.0, 3.0),
    ]  # fmt: skip
    _put(path, [row, {**row, "annotator": 2}])
    assert "annotator=ID" in _refused(lambda: read("label_studio", path, "all", rate="10"), UsageError).message
    assert len(read("label_studio", path, "all", rate="10", annotator="2")) == 4


def test_of_several_annotators_of_a_task_one_must_be_named_and_skipped_work_does_not_count(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    one = task("a.mp4", ranges("r", "run", (1, 5)))
    one["annotations"] += [
        {"completed_by": {"id": 8, "email": "ann@x.org"}, "result": [ranges("s", "sit", (1, 5))]},
        {"completed_by": 3, "was_cancelled": True, "result": [ranges("t", "lie", (1, 5))]},
    ]
    path = _put(tmp_path / "e.json", [one])
    assert "several annotations" in _refused(lambda: read("label_studio", path, "all", rate="5"), UsageError).message
    for who, label in (("1", "run"), ("8", "sit"), ("ann@x.org", "sit")):
        assert [s.label for s in read("label_studio", path, "all", rate="5", annotator=who)] == [label]


@pytest.mark.parametrize("bounds", [(0, 4), (5, 3), (1.5, 4), ("1", 4), (None, 4), (1, 10**12), (True, 4), (1, 1e300)])
def test_ranges_that_are_none_are_refused(tmp_path: Path, bounds: tuple[Any, Any]) -> None:
    path = _put(tmp_path / "e.json", [task("a.mp4", ranges("r", "run", bounds))])
    assert "task 1: " in _refused(lambda: read("label_studio", path, "all", rate="25"), AnnotationError).message


# ----------------------------------------------------------------------------------------------------------- CVAT


def cvat(*body: str, start: int = 0, stop: int = 46, step: int | None = None, source: str = "even.mp4") -> str:
    filtered = "" if step is None else f"<frame_filter>step={step}</frame_filter>"
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><id>5</id>'
        f"<name>t</name><size>47</size><mode>interpolation</mode><start_frame>{start}</start_frame>"
        f"<stop_frame>{stop}</stop_frame>{filtered}<labels><label><name>walk</name></label></labels>"
        "<original_size><width>64</width><height>64</height></original_size>"
        f"<source>{source}</source></task><dumped>2024</dumped></meta>\n{''.join(body)}</annotations>\n"
    )


def track(key: int, label: str, *shapes: tuple[int, int], values: dict[int, str] | None = None, more: str = "") -> str:
    """A track of boxes: (frame, outside) each, and the values that an attribute has from a frame on."""
    boxes = []
    for frame, outside in shapes:
        said = f'<attribute name="mood">{values[frame]}</attribute>' if values and frame in values else ""
        boxes.append(
            f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="1.0" ytl="1.0" xbr="9.0" '
            f'ybr="9.0" z_order="0">{said}</box>'
        )
    return f'<track id="{key}" label="{label}" source="manual"{more}>{"".join(boxes)}</track>\n'


def test_a_track_of_cvat_is_there_until_it_is_outside(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    path = _put(tmp_path / "annotations.xml", cvat(
        track(0, "walk", (3, 0), (4, 0), (9, 1), (12, 0), (13, 1)), track(1, "sit", (40, 0), (45, 0), (46, 0)),
        track(2, "sit", (20, 0), (21, 0)), track(3, "gone", (8, 1)),
    ))  # fmt: skip
    assert detect(str(path)) == "cvat"
    samples = read("cvat", path, "all")
    # Gone from frame 9 on; the last frame of the task is shown whole; where no more is said, the last one is the last.
    assert _bounds(samples) == [
        ("even#0", "walk", 3, 9), ("even#0.2", "walk", 12, 13), ("even#2", "sit", 20, 22), ("even#1", "sit", 40, 47),
    ]  # fmt: skip
    assert samples.classes == ["sit", "walk"]


@pytest.mark.parametrize("film", TICKS)
def test_a_task_of_cvat_that_begins_later_and_has_every_third_frame(films: Path, tmp_path: Path, film: str) -> None:
    # Frames 10, 13, ... 34 were looked at. That of 13 stands for 13 to 15; nothing after 34 was seen.
    body = track(0, "walk", (13, 0), (16, 0), (22, 1)), track(1, "sit", (31, 0), (34, 0)), track(2, "run", (25, 0))
    path = _put(tmp_path / "a.xml", cvat(*body, start=10, stop=34, step=3, source=film))
    samples = read("cvat", path, "all", videos=str(films))
    assert [(s.label, s.start_frame, s.end_frame) for s in samples] == [
        ("walk", 13, 22), ("run", 25, 28), ("sit", 31, 35),
    ]  # fmt: skip
    assert [shown_in(sample) for sample in samples] == [
        list(range(13, 22)), list(range(25, 28)), list(range(31, 35)),
    ]  # fmt: skip


def test_frames_of_cvat_that_are_none_of_the_task_are_refused_or_counted_from_its_first(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    path = _put(tmp_path / "a.xml", cvat(track(0, "walk", (1, 0), (4, 1)), start=10, stop=34, step=3))
    error = _refused(lambda: read("cvat", path, "all"), AnnotationError)
    assert error.line == 5
    assert "frame 1 is none of its task, which has every 3. frame from 10 to 34" in error.message
    assert _bounds(read("cvat", path, "all", frames="task")) == [("even#0", "walk", 13, 22)]
    for frames in (((11, 0), (12, 0)), ((10, 0), (40, 0)), ((13, 0), (13, 1)), ((16, 0), (13, 1))):
        _put(path, cvat(track(0, "walk", *frames), start=10, stop=34, step=3))
        _refused(lambda: read("cvat", path, "all"), AnnotationError)


def test_an_attribute_of_cvat_splits_a_track_where_its_value_changes(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    shapes = ((0, 0), (5, 0), (6, 0), (9, 0), (20, 1))
    path = _put(tmp_path / "a.xml", cvat(track(0, "man", *shapes, values={0: "calm", 5: "calm", 6: "angry"})))
    samples = read("cvat", path, "all", attribute="mood")
    assert _bounds(samples) == [("even#0", "calm", 0, 6), ("even#0.2", "angry", 6, 20)]
    error = _refused(lambda: read("cvat", path, "all", attribute="age"), AnnotationError)
    assert "1 span without a label left out, such as that at frame 0 of even" in error.message


def test_tags_of_frames_that_follow_each_other_are_one_span(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    images = [
        f'<image id="{number}" name="frame_{number:06d}" width="64" height="64">'
        f'<tag label="{label}" source="manual"></tag></image>\n'
        for number, label in ((4, "walk"), (6, "walk"), (8, "walk"), (10, "sit"), (12, "walk"))
    ]
    extra = '<image id="14" name="frame_000014"><box label="man" xtl="1" ytl="1" xbr="2" ybr="2"></box></image>'
    samples = read("cvat", _put(tmp_path / "a.xml", cvat(*images, extra, start=4, stop=12, step=2)), "all")
    assert _bounds(samples) == [
        ("even#frame-4", "walk", 4, 10), ("even#frame-10", "sit", 10, 12), ("even#frame-12", "walk", 12, 13),
    ]  # fmt: skip
    assert samples.notes == ["1 shapes in single frames are no spans, and are left out"]


def test_a_project_of_cvat_has_videos_by_its_tasks_and_skeletons_are_outside_with_all_points(tmp_path: Path) -> None:
    _touch(tmp_path, "x/one.mp4", "x/two.mp4")
    tasks = "".join(
        f"<task><id>{key}</id><name>n</name><start_frame>0</start_frame><stop_frame>9</stop_frame>"
        f"<frame_filter></frame_filter><source>{source}</source></task>"
        for key, source in ((7, "one.mp4"), (8, "two.mp4"))
    )
    points = '<points label="{0}" outside="{1}"></points>'
    bones = "".join(
        f'<skeleton frame="{frame}" keyframe="1">{points.format("1", a)}{points.format("2", b)}</skeleton>'
        for frame, a, b in ((2, 0, 0), (3, 1, 0), (4, 1, 1))
    )
    body = (
        track(0, "walk", (1, 0), (3, 1), more=' task_id="8"') + f'<track id="1" label="sit" task_id="7">{bones}</track>'
    )
    meta = f"<meta><project><id>1</id><name>p</name><tasks>{tasks}</tasks></project></meta>"
    path = _put(tmp_path / "a.xml", f"<annotations><version>1.1</version>{meta}{body}</annotations>")
    assert _bounds(read("cvat", path, "all")) == [("x/two#0", "walk", 1, 3), ("x/one#1", "sit", 2, 4)]
    _put(path, path.read_text().replace('task_id="8"', 'task_id="9"'))
    assert "which <meta> does not name" in _refused(lambda: read("cvat", path, "all"), AnnotationError).message
    _put(path, cvat(track(0, "walk", (1, 0))).replace("<source>even.mp4</source>", ""))
    assert "names no video (<source>)" in _refused(lambda: read("cvat", path, "all"), UsageError).message


# ----------------------------------------------------------------------------------------------------------- ELAN


def eaf(
    slots: list[int | None], *tiers: str, media: str = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/f/even.mp4" '
    'MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./even.mp4"/>',
) -> str:  # fmt: skip
    times = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="ts{number}"{"" if value is None else f""" TIME_VALUE="{value}" """}/>'
        for number, value in enumerate(slots, start=1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT AUTHOR="" FORMAT="3.0" VERSION="3.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        f'<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">{media}<PROPERTY NAME="x">1</PROPERTY></HEADER>\n'
        f"<TIME_ORDER>{times}</TIME_ORDER>\n{''.join(tiers)}</ANNOTATION_DOCUMENT>\n"
    )


def tier(name: str, *annotations: tuple[str, int, int, str]) -> str:
    return f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="{name}">' + "".join(
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{key}" TIME_SLOT_REF1="ts{a}" TIME_SLOT_REF2="ts{b}">'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>\n"
        for key, a, b, value in annotations
    ) + "</TIER>\n"  # fmt: skip


def referring(name: str, *annotations: tuple[str, str, str]) -> str:
    return f'<TIER LINGUISTIC_TYPE_REF="a" PARENT_REF="p" TIER_ID="{name}">' + "".join(
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{key}" ANNOTATION_REF="{refers}">'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>\n"
        for key, refers, value in annotations
    ) + "</TIER>\n"  # fmt: skip


def test_elan_counts_milliseconds_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    slots: list[int | None] = [500, 1250, 1250, 1500, 1400, 2000, 2500, 3000]
    notes = (
        ("a1", 1, 2, " wave\n once "),
        ("a2", 3, 4, "sit"),
        ("a3", 2, 3, "sit"),
        ("a4", 5, 6, "sit"),
        ("a5", 7, 8, ""),
    )
    path = _put(tmp_path / "a.eaf", eaf(slots, tier("acts", *notes), tier("empty")))
    assert detect(str(path)) == detect(str(tmp_path)) == "elan"
    samples = read("elan", path, "all")
    assert _bounds(samples) == [
        ("even#a1", "wave once", 0.5, 1.25), ("even#a2", "sit", 1.25, 1.5), ("even#a4", "sit", 1.4, 2.0),
    ]  # fmt: skip
    assert samples.notes == [
        "1 span without a label left out, such as that at 2.5 s of even",
        "1 span of no length left out, such as that at 1.25 s of even",
        "1 of the spans overlap an earlier one of the same video, such as 'even#a4': what they share is in several "
        "samples",
    ]
    assert read("elan", tmp_path, "all") == samples


@pytest.mark.slow
@pytest.mark.parametrize("film", TICKS)
@pytest.mark.parametrize("origin", [0, 250, -500])
def test_the_clock_of_elan_begins_time_origin_into_the_file(
    films: Path, tmp_path: Path, film: str, origin: int
) -> None:
    media = (
        f'<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/{film}" MIME_TYPE="video/mp4" TIME_ORIGIN="{origin}"/>'
        '<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/a.wav" MIME_TYPE="audio/x-wav"/>'
    )
    notes = ("a1", 1, 2, "walk"), ("a2", 2, 3, "sit"), ("a3", 4, 1, "gone")
    path = _put(tmp_path / "a.eaf", eaf([250, 1000, 1750, 0], tier("acts", *notes), media=media))
    samples = read("elan", path, "all", videos=str(films))
    by_label = {sample.label: sample for sample in samples}
    starts = {0: (0.25, 1.0, 1.75), 250: (0.5, 1.25, 2.0), -500: (0.0, 0.5, 1.25)}[origin]
    assert [by_label["walk"].seconds, by_label["sit"].seconds] == [starts[:2], starts[1:]]
    for label, begin in (("walk", 250), ("sit", 1000)):
        expected = within(film, max(begin + origin, 0) * 24 / 1000, (begin + 750 + origin) * 24 / 1000)
        assert expected
        assert shown_in(by_label[label]) == expected
    cut = "annotations begin before the video does (TIME_ORIGIN), and are cut off there"
    assert [note for note in samples.notes if cut in note] == ([f"2 {cut}"] if origin < 0 else [])
    assert ("gone" in by_label) == (origin >= 0)


def test_annotations_of_elan_that_refer_to_others_have_their_spans(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    body = (
        tier("words", ("a1", 1, 2, "one"), ("a2", 2, 3, "two")),
        referring("kind", ("b1", "a1", "noun"), ("b2", "a2", "verb")),
        referring("deeper", ("c1", "b2", "x"), ("c2", "c3", "y"), ("c3", "c2", "y"), ("c4", "zz", "y")),
        referring("parts", ("d1", "a1", "left"), ("d2", "a1", "right"), ("d3", "a2", "whole")),
    )
    path = _put(tmp_path / "a.eaf", eaf([0, 1000, 3000], *body))
    error = _refused(lambda: read("elan", path, "all"), UsageError)
    assert "4 tiers have annotations: deeper (4), parts (3), words (2), kind (2); say which" in error.message
    assert _bounds(read("elan", path, "all", tier="kind")) == [("even#b1", "noun", 0, 1), ("even#b2", "verb", 1, 3)]
    deeper = read("elan", path, "all", tier="deeper")
    assert _bounds(deeper) == [("even#c1", "x", 1, 3)]
    assert deeper.notes == ["3 annotations have no time, and are left out"]
    assert _bounds(read("elan", path, "all", tier="parts")) == [("even#d3", "whole", 1, 3)]
    assert "no tier is called 'Kind'" in _refused(lambda: read("elan", path, "all", tier="Kind")).message


def test_slots_of_elan_without_a_time_divide_the_span_evenly(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    slots: list[int | None] = [0, None, None, 900, None, 2000]
    notes = ("a1", 1, 2, "x"), ("a2", 2, 3, "y"), ("a3", 3, 4, "z"), ("a4", 4, 5, "lost")
    samples = read("elan", _put(tmp_path / "a.eaf", eaf(slots, tier("t", *notes))), "all")
    assert _bounds(samples) == [
        ("even#a1", "x", 0.0, 0.3), ("even#a2", "y", 0.3, 0.6), ("even#a3", "z", 0.6, 0.9),
    ]  # fmt: skip
    assert samples.notes == ["1 annotations have no time, and are left out"]


def test_of_several_videos_of_elan_one_is_named_with_its_own_origin(tmp_path: Path) -> None:
    _touch(tmp_path, "left.mp4", "right.mp4")
    media = (
        '<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/left.mp4" MIME_TYPE="video/mp4"/>'
        '<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/right.mp4" MIME_TYPE="video/mp4" TIME_ORIGIN="1500"/>'
    )
    path = _put(tmp_path / "a.eaf", eaf([0, 1000], tier("t", ("a1", 1, 2, "x")), media=media))
    assert "2 videos: left.mp4, right.mp4" in _refused(lambda: read("elan", path, "all"), UsageError).message
    for word in ("2", "right"):
        assert _bounds(read("elan", path, "all", media=word)) == [("right#a1", "x", 1.5, 2.5)]
    for word in ("3", "mp4", "0", "up"):
        _refused(lambda word=word: read("elan", path, "all", media=word), UsageError)
    _put(path, eaf([0, 1000], tier("t", ("a1", 1, 2, "x")), media=""))
    assert "link the video in ELAN" in _refused(lambda: read("elan", path, "all"), UsageError).message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('TIME_VALUE="1000"', 'TIME_VALUE="1.5"', "expected whole milliseconds"),
        ('TIME_VALUE="1000"', f'TIME_VALUE="{"9" * 400}"', "expected whole milliseconds"),
        ('TIME_SLOT_REF2="ts2"', 'TIME_SLOT_REF2="ts9"', "names the time slot 'ts9', which is not there"),
        ('TIME_SLOT_REF2="ts2"', "", "has no TIME_SLOT_REF2"),
        ('TIME_SLOT_ID="ts2"', 'TIME_SLOT_ID="ts1"', "stands twice"),
        ('TIME_VALUE="1000"', 'TIME_VALUE="20"', "the span ends at 0.02 s and starts at 0.1 s"),
        ('TIME_UNITS="milliseconds"', 'TIME_UNITS="PAL-frames"', "expected milliseconds"),
        ("</HEADER>", "", "not well-formed XML"),
        ("ANNOTATION_DOCUMENT", "ANNOTATIONS", "expected <ANNOTATION_DOCUMENT>"),
    ],
)
def test_an_elan_file_that_is_damaged_is_refused_by_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = eaf([100, 1000], tier("t", ("a1", 1, 2, "x")))
    assert old in text
    path = _put(tmp_path / "a.eaf", text.replace(old, new))
    error = _refused(lambda: read("elan", path, "all"), AnnotationError)
    assert words in error.message
    assert error.line is not None


# ------------------------------------------------------------------------------------------------------------ VIA


def via(metadata: dict[str, Any], **more: Any) -> dict[str, Any]:
    def kind(name: str, anchor: str, type: int, **options: str) -> dict[str, Any]:
        return {
            "aname": name,
            "anchor_id": anchor,
            "type": type,
            "desc": "",
            "options": options,
            "default_option_id": "",
        }

    project = {
        "project": {"pid": "__VIA_PROJECT_ID__", "rev": "1", "pname": "p", "vid_list": ["1"]},
        "config": {"file": {"loc_prefix": {"1": ""}}},
        "attribute": {
            "1": kind("Activity", "FILE1_Z2_XY0", 4, a="break egg", b="pour"), "2": kind("Who", "FILE1_Z2_XY0", 1),
            "3": kind("Box", "FILE1_Z1_XY1", 1), "4": kind("Place", "FILE1_Z0_XY0", 3, k="kitchen"),
            "5": kind("Hands", "FILE1_Z2_XY0", 2, l="left", r="right"),
        },
        "file": {"1": {"fid": "1", "fname": "even.mp4", "type": 4, "loc": 1, "src": "blob:x"}},
        "view": {"1": {"fid_list": ["1"]}},
        "metadata": metadata,
    }  # fmt: skip
    return {**project, **more}


def segment(start: Any, stop: Any, vid: str = "1", **values: Any) -> dict[str, Any]:
    return {"vid": vid, "flg": 0, "z": [start, stop], "xy": [], "av": {key[1:]: value for key, value in values.items()}}


@pytest.mark.slow
def test_segments_of_via_are_seconds_with_a_text_or_options(films: Path, tmp_path: Path) -> None:
    metadata = {
        "1_a": segment(0.5, 1.25, _1="a"), "1_b": segment(1.25, 1.25, _1="b"), "1_c": segment(1.5, 1.75, _1=""),
        "1_d": segment(1.5, 1.9, _1="b"),
        "1_e": {"vid": "1", "flg": 0, "z": [0.4], "xy": [2, 1, 1, 5, 5], "av": {"3": "x"}},
        "1_f": {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"4": "k"}},
    }  # fmt: skip
    path = _put(tmp_path / "p.json", via(metadata))
    assert detect(str(path)) == "via"
    samples = read("via", path, "all", videos=str(films))
    assert _bounds(samples) == [("even#1_a", "break egg", 0.5, 1.25), ("even#1_d", "pour", 1.5, 1.9)]
    assert [shown_in(sample) for sample in samples] == [within("even.mp4", 12, 30), within("even.mp4", 36, 45.6)]
    assert samples.notes[:3] == [
        "1 regions of a picture or moments of a video are no segments, and are left out",
        "1 span without a label left out, such as that at 1.5 s of even",
        "1 span of no length left out, such as that at 1.25 s of even",
    ]
    (whole,) = read("via", path, "all", videos=str(films), attribute="Place")
    assert (whole.id, whole.label, whole.is_whole) == ("even", "kitchen", True)


def test_of_several_attributes_of_via_one_is_named_and_checkboxes_give_several_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "even.mp4")
    path = _put(tmp_path / "p.json", via({"m": segment(0, 2, _1="a", _2="  the  cook ", _5="l,r")}))
    error = _refused(lambda: read("via", path, "all"), UsageError)
    assert "3 attributes of segments have values: Activity (1), Who (1), Hands (1); say which" in error.message
    assert [s.label for s in read("via", path, "all", attribute="Who")] == ["the cook"]
    assert _bounds(read("via", path, "all", attribute="5")) == [("even#m", "left", 0, 2), ("even#m.2", "right", 0, 2)]
    for attribute in ("Box", "nothing"):
        _refused(lambda attribute=attribute: read("via", path, "all", attribute=attribute), AnnotationError)


@pytest.mark.parametrize(
    "metadata",
    [
        segment(-1, 2, _1="a"), segment(2, 1, _1="a"), segment("0", 1, _1="a"), segment(0, None, _1="a"),
        segment(0, 10**400, _1="a"), segment(0, 1e12, _1="a"), segment(0, 1, vid="7", _1="a"),
        segment(0, 1, _1="no option"), segment(0, 1, _1=["a"]), segment(True, 2, _1="a"),
    ],
)  # fmt: skip
def test_a_segment_of_via_that_is_none_is_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    path = _put(tmp_path / "p.json", via({"m": metadata}))
    assert "metadata 'm': " in _refused(lambda: read("via", path, "all"), AnnotationError).message


# ------------------------------------------------------------------------------------------ where the videos are


@pytest.mark.slow
def test_videos_are_found_by_their_names_and_by_folders_where_names_do_not_tell(tmp_path: Path) -> None:
    films = _touch(tmp_path / "films", "one/a.mp4", "two/a.mp4", "two/b.webm", "my_clip1.mp4", "1a2b3c4d-c.mp4")

    def found(video: str, upload: str | None = None) -> str:
        row = {**task(video, ranges("r", "x", (1, 2))), "file_upload": upload}
        path = _put(tmp_path / "e.json", [row])
        (sample,) = read("label_studio", path, "all", videos=str(films), rate="25")
        return f"{Path(sample.path).relative_to(films)}{'' if sample.exists else ' (missing)'}"

    assert found("s3://bucket/two/a.mp4") == "two/a.mp4"
    assert found("/data/local-files/?d=more/one/a.mp4") == "one/a.mp4"
    assert found("C:\\films\\two\\a.mp4") == "two/a.mp4"
    assert found("https://x.org/y/b.mp4?sig=1") == "two/b.webm"
    assert found("/data/upload/1/0a1b2c3d-b.mp4", "0a1b2c3d-b.mp4") == "two/b.webm"
    assert found("/data/upload/1/1a2b3c4d-c.mp4") == "1a2b3c4d-c.mp4"
    assert found("/data/upload/1/1a2b3c4d-my_clip1.mp4") == "my_clip1.mp4"
    assert found("z.mp4") == "z.mp4 (missing)"
    assert found("/data/upload/1/0a1b2c3d-z.mp4") == "z.mp4 (missing)"
    for name in ("a.mp4", "/other/a.mp4"):
        assert "can be any of 2 videos" in _refused(lambda name=name: found(name), AnnotationError).message
    assert found("../../etc/passwd.mp4") == "passwd.mp4 (missing)"
    assert found("../..%2fpasswd.mp4") == "..%2fpasswd.mp4 (missing)"
    _refused(lambda: found("a/..\0.mp4"), AnnotationError)


def test_an_upload_is_found_under_the_name_it_had_before_a_server_changed_it(tmp_path: Path) -> None:
    films = _touch(tmp_path / "films", "my clip (1).mp4")
    path = _put(tmp_path / "e.json", [task("/data/upload/1/1a2b3c4d-my_clip_1.mp4", ranges("r", "x", (1, 2)))])
    (sample,) = read("label_studio", path, "all", videos=str(films), rate="25")
    assert (sample.path, sample.exists) == (str(films / "my clip (1).mp4"), True)
    _put(path, [task("films/my_clip_1.mp4", ranges("r", "x", (1, 2)))])  # no upload
    (sample,) = read("label_studio", path, "all", videos=str(films), rate="25")
    assert (sample.path, sample.exists) == (str(films / "my_clip_1.mp4"), False)


def test_addresses_of_all_kinds_are_paths() -> None:
    assert spellings("file:///a%20b/c.mp4")[0] == "/a b/c.mp4"
    assert spellings("http://[bad/c.mp4") == ["http://[bad/c.mp4"]
    assert spellings("50%25.mp4") == ["50%25.mp4", "50%.mp4"]


def test_splits_keep_the_spans_of_a_video_together_and_must_be_asked_for_by_a_rule(tmp_path: Path) -> None:
    names = [f"{who}_{number}.mp4" for who in ("ann", "bob") for number in (1, 2)]
    _touch(tmp_path, *names)
    _put(tmp_path / "e.json", [
        task(name, ranges("r", "x", (1, 2)), ranges("s", "y", (3, 4)), number=number)
        for number, name in enumerate(names)
    ])  # fmt: skip
    path = tmp_path / "e.json"
    assert "--val-groups" in _refused(lambda: read("label_studio", path, "train", rate="9"), UsageError).message
    for options in ({"val_groups": "^([a-z]+)_=bob"}, {"fold": "1/2", "groups": "^([a-z]+)_"}):
        train, val = (read("label_studio", path, split, rate="9", **options) for split in ("train", "val"))
        assert len(train) == len(val) == 4
        assert {s.path for s in train}.isdisjoint(s.path for s in val)
        assert train.classes == val.classes == ["x", "y"]
    _put(tmp_path / "splits.csv", "path,split\nann_1.mp4,test\n")
    chosen = read("label_studio", path, "test", rate="9", splits=str(tmp_path / "splits.csv"))
    assert [s.id for s in chosen] == ["ann_1#r", "ann_1#s"]


# ------------------------------------------------------------------------------------------------- command line


@pytest.mark.slow
def test_spans_become_a_list_that_gives_the_same_frames(films: Path, tmp_path: Path, ssan: Any) -> None:
    notes = ("a1", 1, 2, "walk"), ("a2", 2, 3, "sit")
    _put(tmp_path / "a.eaf", eaf([250, 1000, 1750], tier("t", *notes)))
    _put(tmp_path / "c.xml", cvat(track(0, "walk", (3, 0), (9, 1)), track(1, "sit", (20, 0), (25, 1))))
    for path in (tmp_path / "a.eaf", tmp_path / "c.xml"):
        table = path.with_suffix(".csv")
        answer = ssan("data", "list", path, "--videos", films, "--csv", table, "--json")
        assert answer.code == 0
        assert f"{table}: 2 of 2; read it with --data {films} --annotations {table} --format csv" in answer.err
        again = ssan("data", "list", "--data", films, "--annotations", table, "--format", "csv", "--json")
        assert again.lines == [{**line, "split": None} for line in answer.lines]
        (ours, theirs) = (read("auto", path, "all", videos=str(films)), read("csv", table, "all", videos=str(films)))
        assert [shown_in(sample) for sample in ours] == [shown_in(sample) for sample in theirs]
    answer = ssan("data", "describe", tmp_path / "c.xml", "--videos", films, "--json")
    assert (answer.code, answer.json["format"], answer.json["num_parts"]) == (0, "cvat", 2)
    assert answer.json["num_videos"] == 1
    assert any("have no label and are in no sample" in warning for warning in answer.json["warnings"])


def test_a_span_after_the_end_of_its_video_is_told_by_the_check(films: Path, tmp_path: Path, ssan: Any) -> None:
    with open_video(films / "even.mp4") as video:
        assert video.duration_seconds == pytest.approx(47 / 24)
    notes = ("a1", 1, 2, "walk"), ("a2", 3, 4, "sit")
    _put(tmp_path / "a.eaf", eaf([1500, 2500, 2000, 3000], tier("t", *notes)))
    answer = ssan("data", "check", tmp_path / "a.eaf", "--videos", films, "--json", "--memory", tmp_path / "m.sqlite")
    assert answer.code == 1
    (file,) = answer.json["files"]
    assert "the part 'even#a2' begins at 2 s, the video ends at 1.96 s" in file["message"]
    (inside, _) = read("elan", tmp_path / "a.eaf", "all", videos=str(films))
    assert shown_in(inside) == list(range(36, 47))


@pytest.mark.parametrize("columns", ["start,end", "start_seconds,end_time", "Start,Stop"])
def test_bounds_of_a_list_that_do_not_say_their_unit_are_refused_and_not_passed_over(
    tmp_path: Path, columns: str
) -> None:
    path = _put(tmp_path / "a.csv", f"path,label,{columns}\na.mp4,x,1,2\n")
    error = _refused(lambda: read("csv", path, "all"), AnnotationError)
    assert error.line == 1
    assert "does not say whether it is seconds or frames; name the bounds" in error.message


def test_captions_are_no_list_of_spans(tmp_path: Path, ssan: Any) -> None:
    _put(tmp_path / "captions.csv", "video,caption\na,a man walks\n")
    answer = ssan("data", "list", tmp_path / "captions.csv", "--csv", tmp_path / "out.csv")
    assert (answer.code, (tmp_path / "out.csv").exists()) == (2, False)
    assert "--csv writes lists of labelled videos" in answer.err


# ------------------------------------------------------------------------------------------------- hostile files


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LAUGHS + "]><annotations>&i;</annotations>", "declares a document type"),
        ('<!DOCTYPE x SYSTEM "http://x.org/x.dtd"><annotations/>', "declares a document type"),
        ('<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotations>&f;</annotations>', "document type"),
        ("<annotations>&f;</annotations>", "not well-formed XML (undefined entity)"),
        ("<annotations>" * (MOST_DEPTH + 1), f"nested {MOST_DEPTH} deep"),
        ("<annotations><a>" + "x" * (MOST_LETTERS + 1), f"more than {MOST_LETTERS:,} letters"),
        ("<annotations><a></annotations>", "not well-formed XML (mismatched tag)"),
        ('<?xml version="1.0" encoding="rot13"?><annotations/>', "XML"),
        ('<?xml version="1.0" encoding="nothing"?><annotations/>', "XML"),
        ("<annotations>\0</annotations>", "not well-formed"),
        ("", "not well-formed XML (no element found)"),
    ],
)
def test_xml_that_would_grow_or_read_other_files_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = _put(tmp_path / "a.xml", content)
    assert words in _refused(lambda: list(elements(path, "annotations", "x")), AnnotationError).message
    assert words in _refused(lambda: read("cvat", path, "all"), AnnotationError).message


def test_xml_is_read_with_the_lines_and_the_text_of_its_elements(tmp_path: Path) -> None:
    path = _put(tmp_path / "a.xml", '\ufeff<r>\n<a x="1">b <c/>\n d &amp;&#233;</a></r>')
    found = [(one.names, one.attributes, one.line, one.text) for one in elements(path, "r", "x")]
    assert found == [
        (("r",), {}, 1, None), (("r", "a"), {"x": "1"}, 2, None), (("r", "a", "c"), {}, 2, None),
        (("r", "a", "c"), {}, 2, ""), (("r", "a"), {"x": "1"}, 2, "b \n d &\u00e9"), (("r",), {}, 1, ""),
    ]  # fmt: skip


WHOLE: dict[str, tuple[str, Any]] = {
    "label_studio": ("e.json", [task("even.mp4", ranges("r", "run", (2, 5)), ranges("s", "sit", (7, 9)), fps=25)]),
    "via": ("p.json", via({"m": segment(0.5, 1, _1="a"), "n": segment(1, 2, _1="b")})),
    "cvat": ("c.xml", cvat(track(0, "walk", (3, 0), (9, 1)), track(1, "sit", (20, 0), (25, 1)))),
    "elan": ("a.eaf", eaf([0, 900, 1800], tier("t", ("a1", 1, 2, "x"), ("a2", 2, 3, "y")))),
}
ODD = [
    None,
    True,
    -1,
    0,
    3,
    2.5,
    float("inf"),
    10**400,
    "",
    "x",
    "9" * 5000,
    "\ud800",
    "a\nb",
    [],
    {},
    [[]],
    [{}],
    {"a": 1},
]


def check_refusal(error: SsanError) -> None:
    assert len(error.message.splitlines()) == 1
    assert len(error.message) < 2000


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, one in inner for found in _places(one, (*place, key)))]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["label_studio", "via"])
def test_any_value_anywhere_in_a_json_file_is_read_or_refused(tmp_path: Path, format: str) -> None:
    name, whole = WHOLE[format]
    path = tmp_path / name
    assert len(read(format, _put(path, whole), "all")) == 2
    for number, place in enumerate(_places(whole)):
        for odd in ODD[number % 6 :: 6]:
            content = copy.deepcopy(whole)
            if place:
                inner = content
                for key in place[:-1]:
                    inner = inner[key]
                inner[place[-1]] = odd
            path.write_text(json.dumps(content if place else odd), encoding="utf-8")
            try:
                assert len(read(format, path, "all")) >= 1
            except SsanError as error:
                check_refusal(error)


@pytest.mark.parametrize("format", ["cvat", "elan"])
@given(data=st.data())
@settings(
    max_examples=70, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_any_damage_to_an_xml_file_is_read_or_refused(tmp_path: Path, format: str, data: st.DataObject) -> None:
    name, whole = WHOLE[format]
    start = data.draw(st.integers(0, len(whole)))
    stop = min(len(whole), start + data.draw(st.integers(0, 30)))
    between = data.draw(
        st.sampled_from(["", "<a>", "</a>", '"', "9" * 400, "-1", "\0", "&x;", "<!DOCTYPE y>", "\ud83c", "é"])
    )
    (tmp_path / name).write_bytes((whole[:start] + between + whole[stop:]).encode("utf-8", "surrogatepass"))
    try:
        assert len(read(format, tmp_path / name, "all")) >= 1
    except SsanError as error:
        check_refusal(error)


@pytest.mark.parametrize("format", WHOLE)
def test_nothing_to_read_is_said(tmp_path: Path, format: str) -> None:
    error = _refused(lambda: read(format, tmp_path, "all"), UsageError)
    assert error.code == "missing"
    assert _refused(lambda: read(format, tmp_path / "nowhere", "all"), UsageError).code == "missing"
