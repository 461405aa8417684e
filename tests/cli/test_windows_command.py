"""``ssan predict --windows``: lines, table and page of the same answers."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos of 3 and 1.5 seconds, one of which has an odd name, and a file that is none."""
    rng = np.random.default_rng(0)
    for name, num_frames in (("<b>&first", 36), ("second", 18)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(num_frames):
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "in" / name / f"{number:05d}.jpg")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"not a video")
    return tmp_path / "in"


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_lines_table_and_page_say_the_same(ssan: Any, untrained: Path, videos: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "labels.csv", tmp_path / "labels.html"
    outputs = ["--csv", table, "--page", page]
    got = ssan("predict", untrained, videos, "--windows", 1, "--json", "--workers", 0, "--top", 2, *outputs)
    assert got.code == 1  # one could not be labelled
    lines = got.lines
    first, broken, second = (str(videos / name) for name in ("<b>&first", "broken.mp4", "second"))
    assert [(line["path"], line.get("start_seconds"), line.get("end_seconds")) for line in lines] == [
        (first, 0, 1), (first, 1, 2), (first, 2, 3), (broken, None, None), (second, 0, 1), (second, 1, 1.5)
    ]  # fmt: skip
    good = [line for line in lines if line["ok"]]
    assert all(set(line) == {"path", "ok", "start_seconds", "end_seconds", "num_frames", "top"} for line in good)
    assert [line["num_frames"] for line in good] == [12, 12, 12, 12, 6]
    for line, row in zip(lines, rows_of(table), strict=True):
        best = line["top"][0] if line["ok"] else {"label": "", "score": ""}
        assert row == {
            "path": line["path"], "start_seconds": str(line.get("start_seconds", "")),
            "end_seconds": str(line.get("end_seconds", "")), "label": best["label"], "score": str(best["score"]),
        }  # fmt: skip
    text = page.read_text()
    assert text.count('class="strip"') == 2
    assert "&lt;b&gt;&amp;first" in text
    assert "<b>&first" not in text
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)|url\(|https?://", text)
    assert "1 video could not be shown" in text
    assert re.search(r"3 videos, 0\.0 MB, windows of 1 s every 1 s", got.err)
    assert re.search(r"3 videos in [\d.]+ s: [\d.]+ videos a second, [\d.]+ windows a second", got.err)
    quiet = ssan("predict", untrained, videos / "second", "--windows", 1, "--step", 0.5, "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    assert [re.sub(r" s: .*", "", line) for line in quiet.out.splitlines()] == [
        f"{second}, {span}" for span in ("0 to 1", "0.5 to 1.5")
    ]


def test_whole_videos_have_a_table_and_a_page_too(ssan: Any, untrained: Path, videos: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "labels.csv", tmp_path / "labels.html"
    got = ssan("predict", untrained, videos, "--json", "--workers", 0, "--csv", table, "--page", page, "--strips", 1)
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows_of(table)] == [
        ("0.0", "3.0"), ("", ""), ("0.0", "1.5")
    ]  # fmt: skip
    assert [row["label"] for row in rows_of(table)] == [
        line["top"][0]["label"] if line["ok"] else "" for line in got.lines
    ]
    assert page.read_text().count('class="strip"') == 1  # as many as asked for


@pytest.mark.slow
def test_mistakes_are_told_before_the_work(ssan: Any, untrained: Path, videos: Path, tmp_path: Path) -> None:
    for words, told in (
        (["--step", 1], "give --windows"),
        (["--windows", 0], "windows is 0"),
        (["--windows", "nan"], "windows is nan"),
        (["--windows", 1, "--step", -1], "step is -1"),
        (["--csv", tmp_path / "x.txt"], "must end in .csv"),
        (["--page", tmp_path / "x.csv"], "must end in .html"),
    ):
        answer = ssan("predict", untrained, videos, *words)
        assert (answer.code, told in answer.err, answer.out) == (2, True, ""), answer.err
    # Of a command that ends half-way nothing is left, and what was there stays.
    (tmp_path / "old.csv").write_text("old")
    assert ssan("predict", tmp_path / "absent", videos, "--csv", tmp_path / "old.csv").code == 2
    assert (tmp_path / "old.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "old.csv"]
