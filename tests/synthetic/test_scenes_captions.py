"""Captioned videos in fours: every caption once, and near it one of the other direction and one of another object."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ssan.errors import UsageError
from ssan.synthetic.captions import name_of, render_captions, told, twins
from ssan.synthetic.scenes import TEMPLATES, scene

NUM = 20
OPPOSITE = dict(zip(TEMPLATES["order"][:6:2], TEMPLATES["order"][1:6:2], strict=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    render_captions(folder, NUM, 5, size_px=32, splits=(0.6, 0.2, 0.2))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_every_video_has_a_caption_of_its_own_and_a_file(root: Path) -> None:
    captions = rows(root / "captions.csv")
    assert len({row["caption"] for row in captions}) == len(captions) == NUM
    assert all((root / f"{row['video']}.webm").stat().st_size > 500 for row in captions)


def test_thousands_of_captions_all_differ() -> None:
    videos = told(1, 2000)
    assert len({(video.class_index, *sorted(video.looks.items())) for video in videos}) == 2000


def test_a_smaller_set_is_the_beginning_of_a_larger_one() -> None:
    assert told(3, 400)[:100] == told(3, 100)
    assert told(3, 100) != told(4, 100)


def test_whole_fours_go_to_each_split(root: Path) -> None:
    splits = [row["split"] for row in rows(root / "captions.csv")]
    assert splits == ["train"] * 12 + ["val"] * 4 + ["test"] * 4


def test_the_twin_in_direction_says_the_opposite_of_the_same_thing(root: Path) -> None:
    captions = {row["video"]: row["caption"] for row in rows(root / "captions.csv")}
    pairs = [(row["video"], row["other"]) for row in rows(root / "twins.csv") if row["kind"] == "direction"]
    assert len(pairs) == NUM
    ends = {one.rpartition("[something]")[2]: other.rpartition("[something]")[2] for one, other in OPPOSITE.items()}
    ends |= {other: one for one, other in ends.items()}
    for video, other in pairs:
        end = next(end for end in ends if captions[video].endswith(end))
        assert captions[other] == captions[video].removesuffix(end) + ends[end]


def test_the_twin_in_object_differs_by_one_word_which_is_a_colour_or_a_shape(root: Path) -> None:
    captions = {row["video"]: re.sub(r"\ban?\b", "a", row["caption"]) for row in rows(root / "captions.csv")}
    pairs = [(row["video"], row["other"]) for row in rows(root / "twins.csv") if row["kind"] == "object"]
    assert len(pairs) == NUM
    for video, other in pairs:
        one, two = captions[video].split(), captions[other].split()
        assert sum(a != b for a, b in zip(one, two, strict=True)) == 1


def test_twins_are_each_others() -> None:
    for index in range(NUM):
        for kind, other in twins(index).items():
            assert other != index
            assert other // 4 == index // 4
            assert twins(other)[kind] == index


def test_twins_are_drawn_each_for_itself_and_not_one_the_reverse_of_the_other() -> None:
    one, other = (
        scene("order", None, 5, n, num_classes=6, size_px=32, class_index=video.class_index, looks=video.looks)
        for n, video in enumerate(told(5, 2))
    )
    if len(one.frames) == len(other.frames):
        assert not np.array_equal(one.frames, other.frames[::-1])
    assert one.placeholders == other.placeholders


def test_looks_change_what_is_seen_and_not_where_it_goes() -> None:
    looks = {"floor": "grey", "floor_pattern": "", "shape": "ball", "texture": "plain", "size": ""}
    red, blue = (
        scene("order", None, 7, 2, num_classes=6, size_px=32, class_index=0, looks={**looks, "colour": colour})
        for colour in ("red", "blue")
    )
    assert red.label == "moving a red ball on a grey floor from left to right"
    assert red.frames.shape == blue.frames.shape
    seen = [
        np.abs(frames.astype(int)[..., channel] - frames.astype(int)[..., 1]).max(axis=0) > 60
        for frames, channel in ((red.frames, 0), (blue.frames, 2))
    ]
    assert (seen[0] == seen[1]).mean() > 0.95
    assert seen[0].any()


def test_rendering_again_keeps_what_is_there(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (root / "videos").iterdir()}
    summary = render_captions(root, NUM, 5, size_px=32, splits=(0.6, 0.2, 0.2))
    assert (summary.num_kept, summary.num_rendered) == (NUM, 0)
    assert before == {path: path.stat().st_mtime_ns for path in (root / "videos").iterdir()}
    assert json.loads((root / "synthetic.json").read_text())["task"] == "captions"


def test_a_number_that_is_not_made_of_fours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        render_captions(tmp_path, 10, 0)
    assert not list(tmp_path.iterdir())


def test_another_set_in_the_folder_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="differs in seed"):
        render_captions(root, NUM, 6, size_px=32)
    assert name_of(0) == "videos/1"
