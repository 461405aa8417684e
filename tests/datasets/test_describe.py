"""The description of a list of videos: counted by hand here, and made without opening what need not be opened."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg

from ssan.cli.main import status
from ssan.datasets import Sample, Samples, read
from ssan.datasets import describe as description
from ssan.datasets.describe import balance, describe, evenly, spread
from ssan.errors import VideoError

CLASSES = ["Pulling it from left to right", "Waiting", "Pulling it from right to left", "Turning left", "Never seen"]


def sample(number: int, label: int | None, **fields: Any) -> Sample:
    name = None if label is None else CLASSES[label]
    fields = {"exists": False, "num_frames": 10 * number, **fields}
    return Sample(str(number), f"videos/{number}.mp4", label=name, label_index=label, **fields)


@pytest.fixture
def samples() -> Samples:
    listed = [
        sample(1, 0, split="train", caption="two words"),
        sample(2, 0, split="train"),
        sample(3, 1, split="train", exists=True),
        sample(4, 0, split="val", start_seconds=1.5, end_seconds=4.0),
        sample(5, 2, split="val", end_seconds=0.75),
        sample(6, 3, split="val", start_seconds=2.0),
        sample(7, None, split="test", caption="one of three words", num_frames=None),
    ]
    again = Sample("7 again", listed[-1].path, exists=False, split="test", caption="x")
    return Samples([*listed, again], CLASSES, "list")


def write_frames(folder: Path, num: int, height: int, width: int) -> str:
    folder.mkdir(parents=True)
    for number in range(num):
        picture = np.full((height, width, 3), number, np.uint8)
        (folder / f"{number:03d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture))
    return str(folder)


def test_videos_samples_splits_and_what_is_missing_are_counted(samples: Samples) -> None:
    found = describe(samples, look=0)
    assert (found["num_videos"], found["num_samples"], found["num_missing"]) == (7, 8, 6)
    assert found["first_missing"] == [f"videos/{number}.mp4" for number in (1, 2, 4, 5, 6)]
    assert list(found["splits"].items()) == [
        ("train", {"num_videos": 3, "num_samples": 3, "num_missing": 2}),
        ("val", {"num_videos": 3, "num_samples": 3, "num_missing": 3}),
        ("test", {"num_videos": 1, "num_samples": 2, "num_missing": 1}),
    ]


def test_classes_are_counted_with_those_that_have_no_video(samples: Samples) -> None:
    found = describe(samples, look=0)
    assert (found["num_classes"], found["classes"]) == (5, CLASSES)
    assert found["class_counts"] == [3, 1, 1, 1, 0]
    assert found["num_unlabelled"] == 2
    assert found["balance"] == {
        "smallest": {"class": 4, "num": 0}, "largest": {"class": 0, "num": 3}, "median": 1, "ratio": None,
        "num_empty": 1,
    }  # fmt: skip


def test_mirrored_classes_are_named_and_those_without_a_partner(samples: Samples) -> None:
    found = describe(samples, look=0)
    assert found["flip_pairs"] == [[0, 2]]
    assert found["flip_pair_labels"] == [[CLASSES[0], CLASSES[2]]]
    assert found["directed_without_partner"] == [3]


def test_lengths_parts_and_captions_are_those_of_the_list(samples: Samples) -> None:
    found = describe(samples, look=0)
    assert found["num_frames_listed"] == {"num": 6, "smallest": 10, "median": 35, "largest": 60}
    assert (found["num_parts"], found["num_captions"]) == (3, 3)
    assert found["part_seconds"] == {"num": 2, "smallest": 0.75, "median": 1.625, "largest": 2.5}
    assert found["caption_words"] == {"num": 3, "smallest": 1, "median": 2, "largest": 4}


def test_balance_and_spread_of_nothing_are_nothing_and_a_ratio_is_of_largest_to_smallest() -> None:
    assert balance([]) is None
    assert spread([]) is None
    assert balance([7, 2, 2]) == {
        "smallest": {"class": 1, "num": 2}, "largest": {"class": 0, "num": 7}, "median": 2, "ratio": 3.5,
        "num_empty": 0,
    }  # fmt: skip


def test_those_looked_at_are_spread_evenly_over_the_list() -> None:
    letters = [*"abcdefghij"]
    assert evenly(letters, 3) == ["b", "f", "i"]
    assert evenly(letters, 1) == ["f"]
    assert evenly(letters, 10) == evenly(letters, 99) == letters
    assert evenly(letters, 0) == evenly([], 5) == []


def test_sizes_and_lengths_are_those_of_the_videos_opened(tmp_path: Path) -> None:
    paths = [write_frames(tmp_path / str(n), 3 + 2 * n, 11, 13 + 4 * (n == 2)) for n in range(4)]
    (tmp_path / "bad.mp4").write_text("no video")
    listed = [Sample(path, path) for path in (*paths, str(tmp_path / "bad.mp4"))]
    looked = describe(Samples([*listed, sample(1, 0)], CLASSES, "list"))["looked_at"]
    assert (looked["num_videos"], looked["num_folders"], looked["num_failed"]) == (5, 4, 1)
    assert looked["failed"][0]["code"] == "not_video"
    assert looked["num_frames"] == {"num": 4, "smallest": 3, "median": 6, "largest": 9}
    assert looked["duration_seconds"] == {"num": 4, "smallest": 0.25, "median": 0.5, "largest": 0.75}
    assert looked["frames_per_second"]["median"] == 12
    assert looked["sizes_px"] == [{"width": 13, "height": 11, "num": 3}, {"width": 17, "height": 11, "num": 1}]


def test_missing_videos_are_not_opened_and_none_are_where_none_are_wanted(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def refuse(path: str) -> None:
        opened.append(path)
        raise VideoError("it does not open; expected one that does", code="not_video", path=path)

    monkeypatch.setattr(description, "open_video", refuse)
    assert describe(samples, look=0)["looked_at"]["num_videos"] == 0
    assert opened == []
    assert describe(samples)["looked_at"]["num_failed"] == 1
    assert opened == ["videos/3.mp4"]


# -------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def ssan(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = status(["data", "describe", *map(str, arguments)])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Annotations alone: not one of the videos is there."""
    rows = [f"{number}.mp4,{CLASSES[number % 4]},{'val' if number % 5 == 0 else 'train'},9" for number in range(23)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split,num_frames", *rows]) + "\n")
    return tmp_path / "list.csv"


def test_the_answer_has_the_promised_fields_with_annotations_alone(
    ssan: Callable[..., tuple[int, str, str]], table: Path
) -> None:
    code, out, _ = ssan("--data", table, "--json")
    answer = json.loads(out)
    assert code == 0
    assert (answer["schema"], answer["format"], answer["num_videos"], answer["num_missing"]) == (1, "csv", 23, 23)
    assert answer["classes"] == sorted(CLASSES[:4])
    assert answer["flip_pairs"] == [[0, 1]]
    assert (answer["splits"]["val"]["num_videos"], answer["looked_at"]["num_videos"]) == (5, 0)
    code, out, _ = ssan("--data", table, "--split", "val")
    assert code == 0
    assert "videos      5, 5 missing" in out
    assert "0 <-> 1  Pulling it from left to right <-> Pulling it from right to left" in out
    assert "2 has a direction and no partner: Turning left" in out


def test_a_folder_of_videos_without_labels_is_described(
    ssan: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    with av.open(str(loose / "a.avi"), "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for shade in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), shade, np.uint8))))
        output.mux(stream.encode())
    code, out, _ = ssan("--data", loose)
    assert code == 0
    assert "size      48x32 (1) px" in out
    assert "frames    5 to 5, median 5 (1)" in out
    assert "mirrored" not in out
    code, out, err = ssan("--data", loose, "--plot", tmp_path / "p.png")
    assert (code, out) == (2, "")
    assert "--plot draws classes, and there are none" in err


def test_the_plot_is_a_picture_of_all_classes(ssan: Callable[..., tuple[int, str, str]], table: Path) -> None:
    picture = table.with_name("balance.png")
    code, _, _ = ssan("--data", table, "--plot", picture, "--quiet")
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(("num", "bars"), [(7, 7), (30, 30), (400, 30)])
def test_of_many_classes_the_largest_and_the_smallest_are_named_and_all_are_drawn(num: int, bars: int) -> None:
    from ssan.report.plots import balance_plot

    counts = [(37 * n) % num for n in range(num)]  # each number from 0 to num - 1 once
    figure = balance_plot([f"class {n}" for n in range(num)], counts)
    axes, *strip = figure.axes
    ordered = sorted(counts, reverse=True)
    shown = [int(bar.get_width()) for bar in axes.patches]
    assert shown == (ordered if num == bars else [*ordered[: bars // 2], *ordered[-bars // 2 :]])
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named[0] == f"class {counts.index(num - 1)}"
    assert named[-1] == f"class {counts.index(0)}"
    assert [len(one.patches) for one in strip] == ([num] if num > 30 else [])
    if num > 30:
        assert "370 classes between" in [text.get_text() for text in axes.texts]


@pytest.mark.slow
def test_describing_annotations_imports_nothing_heavy(table: Path) -> None:
    code = (
        "import sys; from ssan.cli.main import status; "
        f"status(['data', 'describe', '--data', {str(table)!r}]); "
        "print(sorted({'torch', 'lightning', 'av', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.shared
def test_the_real_videos_of_weizmann_are_described(shared: Path) -> None:
    found = describe(read("folder", shared / "dataset" / "weizmann", "all"), look=7)
    assert (found["num_videos"], found["num_missing"], found["num_classes"]) == (90, 0, 10)
    assert found["balance"]["ratio"] == 1
    assert found["looked_at"]["sizes_px"] == [{"width": 180, "height": 144, "num": 7}]
    assert found["looked_at"]["frames_per_second"]["median"] == 25
