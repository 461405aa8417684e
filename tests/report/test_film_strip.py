"""Film strips: frames of a video side by side, at most so many, and none of what is gone."""

import base64
import re
from pathlib import Path

import simplejpeg

from coloured_clips import write_clip
from ssan.report.film_strip import MOST_SHAPE, NUM_FRAMES, SIDE_PX, FilmStrips, film_strip
from ssan.report.journal_runs import read_runs
from ssan.video.clip import FramePart


def size_of(strip: str) -> tuple[int, int]:
    (data,) = re.findall(r"base64,([^\"]+)", strip)
    height, width, _, _ = simplejpeg.decode_jpeg_header(base64.b64decode(data))
    return height, width


def test_a_strip_has_a_frame_of_each_part_of_the_video(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", (200, 20, 20), 1.0, 0, num_frames=20)
    assert size_of(film_strip(str(tmp_path / "clip")) or "") == (SIDE_PX, NUM_FRAMES * SIDE_PX)
    assert size_of(film_strip(str(tmp_path / "clip"), FramePart(2, 5)) or "") == (SIDE_PX, 3 * SIDE_PX)


def test_a_long_picture_is_shown_by_its_middle(tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "clip").mkdir()
    wide = np.full((16, 160, 3), 90, np.uint8)
    (tmp_path / "clip" / "0.jpg").write_bytes(simplejpeg.encode_jpeg(wide))
    assert size_of(film_strip(str(tmp_path / "clip")) or "") == (SIDE_PX, MOST_SHAPE * SIDE_PX)


def test_what_is_gone_is_counted_and_there_are_no_more_than_were_asked_for(tmp_path: Path) -> None:
    for name in "abc":
        write_clip(tmp_path / name, (200, 20, 20), 1.0, 0)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    strips = FilmStrips(4)
    assert strips.of(str(tmp_path / "a"))
    assert strips.of(str(tmp_path / "a")) == strips.of(str(tmp_path / "a"))
    assert strips.of(str(tmp_path / "broken.mp4")) == ""
    assert strips.of(str(tmp_path / "never")) == ""
    assert strips.of(str(tmp_path / "b"))
    assert strips.of(str(tmp_path / "c")) == "", "four were looked at already"
    assert strips.num_made == 2
    assert strips.gone == [str(tmp_path / "broken.mp4"), str(tmp_path / "never")]


def test_a_journal_that_names_no_wrong_answers_as_they_are_expected_has_none(tmp_path: Path) -> None:
    import json

    odd = [None, 3, "x", {}, {"path": 7, "predicted": "a"}, {"path": "v.mp4", "predicted": "a", "score": "high"}]
    odd += [{"path": "w.mp4", "predicted": "a", "start_frame": -4, "end_seconds": 2.0}] * 500
    events = [{"event": "start", "time": 1.0}, {"event": "evaluated", "split": "val", "wrong": odd, "num_wrong": 1e300}]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (run,) = read_runs([str(tmp_path)])
    (evaluation,) = run.evaluations
    assert len(evaluation.wrong) == 95
    first, second = evaluation.wrong[:2]
    assert (first.path, first.score, first.part) == ("v.mp4", None, None)
    assert second.part == FramePart(0, None)
    assert evaluation.num_wrong is None
