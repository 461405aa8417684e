"""Made-up videos: the layout is exact, the pixels repeat, and the tasks need what they claim to need."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from ssan.errors import UsageError
from ssan.synthetic.dataset import LEVELS, TEMPLATES, Level, class_names, class_of, encode, render, scene, split_counts
from ssan.synthetic.drawing import COLOURS

NUM_VIDEOS, SEED, SIZE_PX = 41, 7, 34
SPLITS = ("train", "validation", "test")
RELATION_LEVELS = [
    *LEVELS["relation"].values(),
    Level(num_distractors=3, num_kinds=5, match="shape", cue_distance=0.5),
    Level(num_distractors=3, num_kinds=2, match="texture", cue_framed=True, shake=0.03),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    render(folder, "order", NUM_VIDEOS, SEED, size_px=SIZE_PX)
    return folder


def _annotation(root: Path, name: str) -> list[dict]:
    return json.loads((root / f"something-something-v2-{name}.json").read_text(encoding="utf-8"))


def _decode(source: Path | bytes) -> np.ndarray:
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _answers(root: Path) -> dict[str, str]:
    with open(root / "test-answers.csv", encoding="utf-8", newline="") as handle:
        return {row[0]: row[1] for row in csv.reader(handle, delimiter=";")}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())


# ---------------------------------------------------------------------------------------------------- the layout


@pytest.mark.slow
def test_labels_number_the_classes_as_strings_from_zero(root: Path) -> None:
    labels = json.loads((root / "something-something-v2-labels.json").read_text(encoding="utf-8"))
    assert list(labels.values()) == [str(n) for n in range(12)]
    assert labels["Moving something from left to right"] == "0"
    assert not any("[" in name or "]" in name for name in labels)


@pytest.mark.slow
def test_every_row_has_the_fields_of_the_original_and_its_template_is_a_class(root: Path) -> None:
    names = class_names("order")
    for split in ("train", "validation"):
        for row in _annotation(root, split):
            assert list(row) == ["id", "label", "template", "placeholders"]
            assert row["template"].replace("[", "").replace("]", "") in names
            assert row["template"].count("[something]") == len(row["placeholders"]) >= 1
    assert all(list(row) == ["id"] for row in _annotation(root, "test"))


@pytest.mark.slow
def test_the_label_is_the_template_with_its_gaps_filled(root: Path) -> None:
    for row in _annotation(root, "train"):
        words = row["template"]
        for gap in row["placeholders"]:
            words = words.replace("[something]", gap, 1)
        assert row["label"] == words[0].lower() + words[1:]


@pytest.mark.slow
def test_captions_are_mostly_unique() -> None:
    captions = Counter(scene("order", None, SEED, index, size_px=32).label for index in range(300))
    assert sum(count == 1 for count in captions.values()) > 0.9 * 300


def test_the_splits_share_no_video_and_every_video_is_there_once(root: Path) -> None:
    ids = [row["id"] for split in SPLITS for row in _annotation(root, split)]
    assert len(ids) == len(set(ids)) == NUM_VIDEOS
    assert {path.name for path in (root / "20bn-something-something-v2").iterdir()} == {f"{id_}.webm" for id_ in ids}


def test_the_answers_name_the_class_of_every_test_video(root: Path) -> None:
    answers = _answers(root)
    assert list(answers) == [row["id"] for row in _annotation(root, "test")]
    names = class_names("order")
    assert all(answer == names[class_of("order", SEED, int(id_) - 1)] for id_, answer in answers.items())


@pytest.mark.parametrize("num_videos", [24, 41, 100])
def test_the_classes_of_a_split_differ_by_two_videos_at_most(num_videos: int) -> None:
    start = 0
    for count in split_counts(num_videos, (0.7, 0.15, 0.15)).values():
        seen = Counter(class_of("order", SEED, index) for index in range(start, start + count))
        # A split begins and ends anywhere in the runs of twelve: one video too many at either end.
        assert max(seen[c] for c in range(12)) - min(seen[c] for c in range(12)) <= 2
        start += count
    assert start == num_videos


def test_splits_are_shares_or_whole_numbers() -> None:
    assert split_counts(41, (0.7, 0.15, 0.15)) == {"train": 29, "validation": 6, "test": 6}
    assert split_counts(41, (30, 4, 7)) == {"train": 30, "validation": 4, "test": 7}
    assert split_counts(1, (1, 0, 0)) == {"train": 1, "validation": 0, "test": 0}
    with pytest.raises(UsageError, match="add up to 1, or numbers that add up to 41"):
        split_counts(41, (30, 4, 8))
    with pytest.raises(UsageError, match="three numbers"):
        split_counts(41, (0.5, 0.5))


@pytest.mark.slow
def test_videos_decode_to_the_frames_that_were_drawn(root: Path) -> None:
    lengths = set()
    for index in range(NUM_VIDEOS):
        path = root / "20bn-something-something-v2" / f"{index + 1}.webm"
        frames = scene("order", None, SEED, index, size_px=SIZE_PX).frames
        decoded = _decode(path)
        assert decoded.shape == frames.shape
        assert np.abs(decoded.astype(float) - frames).mean() < 9  # noise of 6 levels included
        lengths.add(len(frames))
    assert lengths <= set(range(16, 33))
    assert len(lengths) > 8


def test_videos_are_vp9_at_twelve_frames_a_second(root: Path) -> None:
    with av.open(str(root / "20bn-something-something-v2" / "1.webm")) as container:
        stream = container.streams.video[0]
        assert "vp9" in stream.codec_context.name
        assert stream.average_rate == 12


def test_how_the_set_was_made_is_recorded(root: Path) -> None:
    made = json.loads((root / "synthetic.json").read_text(encoding="utf-8"))
    assert (made["task"], made["level"], made["seed"], made["size_px"]) == ("order", "clear", SEED, SIZE_PX)
    assert made["num_videos"] == NUM_VIDEOS
    assert Level(**made["level_parameters"]) == LEVELS["order"]["clear"]


# ---------------------------------------------------------------------------------------------------- repeatability


@pytest.mark.slow
def test_the_same_arguments_give_the_same_files_with_any_number_of_workers(root: Path, tmp_path: Path) -> None:
    render(tmp_path, "order", NUM_VIDEOS, SEED, size_px=SIZE_PX, workers=3)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes(), path.name


def test_a_smaller_set_is_the_beginning_of_a_larger_one(root: Path, tmp_path: Path) -> None:
    render(tmp_path, "order", 13, SEED, size_px=SIZE_PX)
    for index in range(13):
        name = f"20bn-something-something-v2/{index + 1}.webm"
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


@pytest.mark.parametrize("task", TEMPLATES)
def test_another_seed_gives_another_picture(task: str) -> None:
    one, other = (scene(task, None, seed, 0, class_index=0, size_px=32).frames for seed in (1, 2))
    assert not _same(one, other)


def test_another_seed_gives_the_classes_in_another_order() -> None:
    assert len({tuple(class_of("order", seed, index) for index in range(12)) for seed in range(5)}) == 5


def test_an_interrupted_render_goes_on_and_redraws_nothing(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop_at_four(done: int, total: int) -> None:
        if done == 4:
            raise StopError

    with pytest.raises(StopError):
        render(tmp_path, "order", 9, SEED, size_px=SIZE_PX, on_progress=stop_at_four)
    assert not (tmp_path / "something-something-v2-labels.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.webm")}
    assert len(kept) == 4
    summary = render(tmp_path, "order", 9, SEED, size_px=SIZE_PX)
    assert (summary.num_kept, summary.num_rendered) == (4, 5)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert not list(tmp_path.rglob("*.part"))


def test_progress_counts_every_video_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render(tmp_path, "relation", 5, SEED, size_px=32, workers=2, on_progress=lambda *step: seen.append(step))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_a_folder_with_another_set_is_refused_and_says_what_differs(root: Path) -> None:
    with pytest.raises(UsageError, match="differs in seed;"):
        render(root, "order", NUM_VIDEOS, SEED + 1, size_px=SIZE_PX)


def test_a_folder_with_somebody_elses_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "20bn-something-something-v2").mkdir()
    with pytest.raises(UsageError, match="not made here"):
        render(tmp_path, "order", 3, SEED)


# ---------------------------------------------------------------------------------------------------- the order task


@pytest.mark.parametrize("pair", range(6))
def test_one_scene_rendered_for_both_classes_of_a_pair_is_its_own_exact_reversal(pair: int) -> None:
    for index in range(3):
        one, other = (
            scene("order", "cluttered", SEED, index, class_index=2 * pair + way, size_px=SIZE_PX) for way in (0, 1)
        )
        assert _same(one.frames, other.frames[::-1])
        assert not _same(one.frames, other.frames)
        assert one.placeholders == other.placeholders


def _centre(frame: np.ndarray, floor: np.ndarray) -> tuple[float, float, int]:
    """Mean x, mean y and number of the pixels that differ much from the floor."""
    y, x = np.nonzero(np.abs(frame.astype(int) - floor).max(axis=-1) > 60)
    return float(x.mean()), float(y.mean()), len(x)


QUIET = Level(noise=0, plain=True)  # an even floor, so that the things can be found


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("Moving something from left to right", lambda first, last: last[0] - first[0] > 15),
        ("Moving something from right to left", lambda first, last: last[0] - first[0] < -15),
        ("Moving something from top to bottom", lambda first, last: last[1] - first[1] > 15),
        ("Moving something from bottom to top", lambda first, last: last[1] - first[1] < -15),
        ("Moving something closer to the camera", lambda first, last: last[2] > 2 * first[2]),
        ("Moving something away from the camera", lambda first, last: 2 * last[2] < first[2]),
    ],
)
def test_things_go_where_the_class_says(name: str, measure) -> None:
    class_index = class_names("order").index(name)
    for index in range(8):
        frames = scene("order", QUIET, SEED, index, class_index=class_index, size_px=64).frames
        floor = np.median(frames.reshape(-1, 3), axis=0)
        assert measure(_centre(frames[0], floor), _centre(frames[-1], floor)), index


def _gap(frame: np.ndarray, floor: np.ndarray) -> float:
    """How far the pixels of things lie from their common centre."""
    y, x = np.nonzero(np.abs(frame.astype(int) - floor).max(axis=-1) > 60)
    return float(np.hypot(x - x.mean(), y - y.mean()).mean())


def test_things_put_together_end_closer_than_they_began() -> None:
    for index in range(8):
        frames = scene("order", QUIET, SEED, index, class_index=6, size_px=64).frames
        floor = np.median(frames.reshape(-1, 3), axis=0)
        assert _gap(frames[-1], floor) < 0.75 * _gap(frames[0], floor)


def test_a_thing_turned_clockwise_turns_from_right_to_down() -> None:
    """The angle of the farthest of its pixels, where a triangle has its corners, grows with y pointing down."""
    turned = []
    for index in range(40):
        drawn = scene("order", QUIET, SEED, index, class_index=8, size_px=64)
        if "triangle" not in drawn.placeholders[0] or any(word in drawn.label for word in ("dotted", "striped", "che")):
            continue
        floor = np.median(drawn.frames.reshape(-1, 3), axis=0)
        masks = [np.abs(frame.astype(int) - floor).max(axis=-1) > 60 for frame in drawn.frames]
        y, x = np.nonzero(np.any(masks, axis=0))
        cx, cy = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
        phases = []
        for mask in masks:
            y, x = np.nonzero(mask)
            # The third harmonic of the outline: its phase is three times the turn of a shape with three corners.
            z = (x - cx) + 1j * (y - cy)
            phases.append(np.angle((z**3).sum()))
        turned.append(np.unwrap(phases)[-1] - phases[0])
    assert len(turned) >= 2
    assert all(change > 1 for change in turned)


def test_a_covered_thing_is_seen_first_and_hardly_last() -> None:
    tried = 0
    for index in range(40):
        drawn = scene("order", QUIET, SEED, index, class_index=10, size_px=64)
        hidden, cover = (next(word for word in gap.split() if word in COLOURS) for gap in drawn.placeholders)
        if hidden == cover or hidden == "white":
            continue
        first, last = (np.abs(drawn.frames[[0, -1]].astype(int) - COLOURS[hidden]).max(axis=-1) < 8).sum(axis=(1, 2))
        assert last < 0.4 * first
        tried += 1
    assert tried > 20


def test_fewer_classes_are_whole_pairs_and_the_first_ones() -> None:
    assert class_names("order", 6) == class_names("order")[:6]
    assert {class_of("order", SEED, index, 6) for index in range(6)} == set(range(6))
    with pytest.raises(UsageError, match="an even number from 2 to 12"):
        class_names("order", 5)


# ---------------------------------------------------------------------------------------------------- the relation task


@pytest.mark.slow
@pytest.mark.parametrize("level", RELATION_LEVELS)
@pytest.mark.parametrize("pair", range(3))
def test_another_cue_alone_makes_it_the_other_class(pair: int, level: Level) -> None:
    """Movers, floor and noise are the same pixels for both classes: only a still spot, the cue, differs."""
    for index in range(3):
        one, other = (scene("relation", level, SEED, index, class_index=2 * pair + way, size_px=48) for way in (0, 1))
        assert one.placeholders != other.placeholders
        differs = (one.frames != other.frames).any(axis=-1)  # (t, h, w)
        assert differs.any(axis=(1, 2)).all()
        y, x = np.nonzero(differs.any(axis=0))
        reach = 2 * 48 * (level.radius * 1.6 + level.shake) + 2
        assert x.max() - x.min() <= reach
        assert y.max() - y.min() <= reach


@pytest.mark.slow
@pytest.mark.parametrize("level", RELATION_LEVELS)
@pytest.mark.parametrize("pair", range(3))
def test_the_same_cue_and_things_played_backwards_make_it_the_other_class(pair: int, level: Level) -> None:
    for index in range(3):
        one, other = (
            scene("relation", level, SEED, index, class_index=2 * pair + way, backward=bool(way), size_px=48)
            for way in (0, 1)
        )
        assert one.placeholders == other.placeholders
        assert _same(one.frames, other.frames[::-1])


def test_which_way_the_scene_is_played_does_not_follow_from_the_class() -> None:
    played = Counter()
    for index in range(60):
        options = {"class_index": 0, "size_px": 32}
        drawn = scene("relation", None, SEED, index, **options).frames
        played[_same(drawn, scene("relation", None, SEED, index, backward=False, **options).frames)] += 1
    assert min(played[True], played[False]) > 15


def test_the_mover_that_matches_the_cue_goes_the_way_of_the_class() -> None:
    """Measured in the pixels: the mean place of the cue's colour moves right in class 0, and left in class 1."""
    level = Level(num_distractors=1, plain=True, noise=0, cue_distance=1)
    red, blue = (222, 40, 40), (50, 95, 235)
    for index in range(20):
        for class_index, sign in ((0, 1), (1, -1)):
            drawn = scene("relation", level, SEED, index, class_index=class_index, size_px=64)
            colour, other = (red, blue) if " red " in drawn.placeholders[0] else (blue, red)
            for wanted, way in ((colour, sign), (other, -sign)):
                masks = np.abs(drawn.frames[[0, -1]].astype(int) - wanted).max(axis=-1) < 8
                first, last = (np.nonzero(mask)[1].mean() for mask in masks)
                assert way * (last - first) > 5


@pytest.mark.slow
@pytest.mark.parametrize(("common", "fewest", "most"), [(0.0, 30, 70), (1.0, 160, 160)])
def test_the_common_share_of_clips_draws_from_the_first_two_kinds(common: float, fewest: int, most: int) -> None:
    level = Level(num_distractors=1, num_kinds=6, common=common, noise=0)
    cues = Counter(
        word
        for index in range(160)
        for word in scene("relation", level, SEED, index, size_px=32).placeholders[0].split()
        if word in COLOURS
    )
    assert fewest <= cues["red"] + cues["blue"] <= most
    assert set(cues) == set(list(COLOURS)[: 2 if common else 6])


def test_distance_parts_the_cue_from_the_movers() -> None:
    """How far the pixels of the cue, those that change with the class, lie from the middle of the picture."""
    far = []
    for distance in (0.0, 1.0):
        level = Level(num_distractors=1, plain=True, cue_distance=distance)
        one, other = (scene("relation", level, SEED, 3, class_index=way, size_px=64).frames for way in (0, 1))
        y, x = np.nonzero((one != other).any(axis=(0, 3)))
        far.append(sorted([abs(x.mean() - 32), abs(y.mean() - 32)]))
    (_, near_at_most), (far_at_least, _) = far
    assert near_at_most < 4 < 16 < far_at_least


# ---------------------------------------------------------------------------------------------------- colours


def test_colours_survive_the_encoder() -> None:
    """Things ten pixels wide, in 4:2:0: the decoded colour of every thing is nearest to the colour it was drawn in."""
    names, values = list(COLOURS), np.array(list(COLOURS.values()), float)
    frames = np.full((8, 48, 48, 3), 88, np.uint8)
    for place in range(9):
        y, x = 3 + 16 * (place // 3), 3 + 16 * (place % 3)
        frames[:, y : y + 10, x : x + 10] = values[place]
    decoded = _decode(encode(frames)).astype(float)
    for place in range(9):
        y, x = 3 + 16 * (place // 3), 3 + 16 * (place % 3)
        seen = decoded[:, y + 2 : y + 8, x + 2 : x + 8].mean(axis=(0, 1, 2))
        assert names[int(np.abs(values - seen).sum(axis=1).argmin())] == names[place]
        assert np.abs(values[place] - seen).max() < 25


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ordr"}, "unknown synthetic task 'ordr'. Did you mean 'order'?"),
        ({"level": "cleer"}, "unknown level of task 'order' 'cleer'. Did you mean 'clear'?"),
        ({"task": "relation", "level": "cue_nere"}, "Did you mean 'cue_near'?"),
        ({"task": "relation", "level": Level(num_distractors=2)}, "needs an odd number"),
        ({"task": "relation", "level": Level(num_distractors=1, match="color")}, "Did you mean 'colour'?"),
        ({"task": "relation", "level": Level(num_distractors=1, num_kinds=99)}, "needs 2 to 9"),
        ({"task": "relation", "level": Level(num_distractors=1, cue_distance=1.5)}, "cue_distance 1.5; expected"),
        ({"num_classes": 14}, "an even number from 2 to 12"),
        ({"num_videos": 0}, "num_videos is 0"),
        ({"size_px": 63}, "size_px is 63; expected an even number from 32 to 256"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict, message: str
) -> None:
    arguments = {"task": "order", "num_videos": 4, "seed": 0, **change}
    with pytest.raises(UsageError) as caught:
        render(tmp_path / "new", **arguments)
    assert message in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="class 12 of task 'order'"):
        scene("order", None, 0, 0, class_index=12)
