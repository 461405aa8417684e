"""The page of labelled videos: stretches of one label, what is kept, what is shown of it."""

from typing import Any

import pytest

from ssan.report import labels_page as module
from ssan.report.film_strip import FilmStrips
from ssan.report.labels_page import NONE, LabelledVideos, Stretch, clock, write_labels_page


def line(path: str, start: float, end: float, label: str | None, score: float = 0.5, **more: Any) -> dict[str, Any]:
    bounds = {"path": path, "start_seconds": start, "end_seconds": end}
    if label is None:
        return {**bounds, "ok": False, "error": {"message": "a fault"}}
    return {**bounds, "ok": True, "num_frames": 8, "top": [{"label": label, "index": 0, "score": score}], **more}


def test_windows_of_one_label_that_follow_each_other_are_one_stretch() -> None:
    found = LabelledVideos()
    for number, one in enumerate([
        line("x", 0, 2, "a", 0.5), line("x", 1, 3, "a", 0.75), line("x", 2, 4, "b"), line("x", 3, 5, None),
        line("x", 4, 6, "b", none=True), line("x", 8, 10, "b"), line("x", 12, 14, "b"),
    ]):  # fmt: skip
        found.add(one, begins=number == 0)
    (video,) = found.videos
    assert video.stretches == [
        Stretch("a", 0, 3, 2, 2, 1.25), Stretch("b", 2, 4, 3, 1, 0.5), Stretch(None, 3, 5, 4),
        Stretch(NONE, 4, 6, 6, 1, 0.5), Stretch("b", 8, 10, 10, 1, 0.5), Stretch("b", 12, 14, 14, 1, 0.5),
    ]  # fmt: skip
    assert (found.num_videos, found.num_windows, found.num_failed, video.num_failed) == (1, 7, 1, 1)
    assert found.labels == {"a": 2, "b": 3, NONE: 1}
    # From left to right all 14 s: a 2, b 1, unread 1, none 2, a gap of 2, b 2, a gap of 2, b 2.
    track = module._track(video, {"a": 200, "b": 337})
    assert [(part["label"], round(float(part["percent"]) * 0.14, 3)) for part in track] == [
        ("a", 2), ("b", 1), ("", 1), (NONE, 2), ("", 2), ("b", 2), ("", 2), ("b", 2)
    ]  # fmt: skip


def test_no_more_is_kept_than_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(module, "MOST_VIDEOS", 2)
    monkeypatch.setattr(module, "MOST_STRETCHES", 3)
    found = LabelledVideos()
    for path in ("one", "two", "three"):
        for start in range(10):
            found.add(line(path, start, start + 1, "ab"[start % 2]), begins=start == 0)
    assert [(video.path, len(video.stretches), video.num_left_out) for video in found.videos] == [
        ("one", 3, 7), ("two", 3, 7)
    ]  # fmt: skip
    assert (found.num_videos, found.num_windows, found.labels) == (3, 30, {"a": 15, "b": 15})
    out = tmp_path / "page.html"
    write_labels_page(str(out), found, network="net", windows="windows of 1 s", strips=FilmStrips(5))
    assert "The first 2 of 3 videos" in out.read_text()
    assert out.read_text().count("And 7 more") == 2


def test_moments_are_told_as_people_tell_them() -> None:
    assert [clock(seconds) for seconds in (0, 8.25, 59.96, 71, 3725.5)] == [
        "0:00.0", "0:08.3", "1:00.0", "1:11.0", "1:02:05.5"
    ]  # fmt: skip
