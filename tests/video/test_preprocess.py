"""Crops, mirror images and normalisation: pixels that say where they came from, and labels from the real lists."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ssan.errors import UsageError
from ssan.video.mirror import flip_pairs
from ssan.video.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Box,
    center_box,
    crop_views,
    multi_scale_box,
    normalise,
    random_box,
    resize_frames,
    resize_rule,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
LABELS = SHARED / "annotations" / "sthv2_official" / "something-something-v2-labels.json"

DIRECTED = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
]
PLAIN = ["Turning something upside down", "Putting something upright on the table", "Holding something"]
ADVERB = "Plugging something into something but pulling it right out as you remove your hand"


def where(num_frames: int, height: int, width: int) -> torch.Tensor:
    """Frames whose channels are the row, the column and the frame number, in channels-last memory."""
    frames = torch.empty(num_frames, height, width, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(height)[:, None]
    frames[..., 1] = torch.arange(width)
    frames[..., 2] = torch.arange(num_frames)[:, None, None]
    return frames.permute(0, 3, 1, 2)


def corner(frames: torch.Tensor) -> tuple[int, int]:
    """Row and column, in the original, of the top left pixel."""
    return int(frames[0, 0, 0, 0]), int(frames[0, 1, 0, 0])


class FirstOf:
    """A source of chance that hands out what it was given, in order."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def integers(self, bound: int) -> int:
        value = int(self.values.pop(0))
        assert 0 <= value < bound
        return value

    def random(self) -> float:
        return self.values.pop(0)


# --- sizes


def test_the_short_side_rule_keeps_the_aspect_ratio_and_rounds_halves_up() -> None:
    rule = resize_rule("short_side", 256)
    assert rule(240, 427) == (256, 455)  # 455.47
    assert rule(427, 240) == (455, 256)
    assert rule(1080, 1920) == (256, 455)  # 455.11
    assert rule(100, 100) == (256, 256)
    assert resize_rule("short_side", 3)(2, 3) == (3, 5)  # 4.5


def test_the_square_rule_makes_a_square_and_both_rules_travel_to_workers() -> None:
    for mode, expected in (("square", (224, 224)), ("short_side", (224, 448))):
        assert pickle.loads(pickle.dumps(resize_rule(mode, 224)))(10, 20) == expected


def test_an_unknown_rule_is_named_with_its_neighbour() -> None:
    with pytest.raises(UsageError, match="'short_side'"):
        resize_rule("shortside", 256)
    with pytest.raises(UsageError, match="0 pixels"):
        resize_rule("square", 0)


def test_resizing_averages_what_it_shrinks_and_rounds() -> None:
    frames = torch.tensor([[0, 0, 255, 255], [0, 0, 255, 255]], dtype=torch.uint8).expand(2, 3, 2, 4)
    small = resize_frames(frames, 1, 2)
    assert small.dtype == torch.uint8
    # Bilinear, twice as wide when halving: weights 3 3 1 of 7 around each half, 255 / 7 = 36.4.
    assert small.tolist() == [[[[36, 219]]] * 3] * 2
    assert resize_frames(frames, 2, 4) is frames


# --- crops


def test_a_multi_scale_crop_has_sides_at_most_one_scale_apart_at_thirteen_points() -> None:
    rng = np.random.default_rng(0)
    boxes = {multi_scale_box(256, 340, 224, rng) for _ in range(3000)}
    # 256 * (1, .875, .75, .66) = 256, 224, 192, 168
    sides = {(box.height, box.width) for box in boxes}
    assert sides == {
        (256, 256), (256, 224), (224, 256), (224, 224), (224, 192),
        (192, 224), (192, 192), (192, 168), (168, 192), (168, 168),
    }  # fmt: skip
    corners = sorted((box.top, box.left) for box in boxes if (box.height, box.width) == (192, 224))
    assert corners == [  # room 64 down and 116 across, in steps of 16 and 29
        (0, 0), (0, 58), (0, 116), (16, 29), (16, 87), (32, 0), (32, 58), (32, 116), (48, 29), (48, 87),
        (64, 0), (64, 58), (64, 116),
    ]  # fmt: skip


def test_a_side_within_two_pixels_of_the_crop_is_the_crop() -> None:
    # 258 * .875 = 225; the fourth pair is that side twice, the last point is the bottom right.
    assert multi_scale_box(258, 340, 224, FirstOf(3, 12)) == Box(32, 116, 224, 224)  # room 34 // 4 * 4 and 116
    assert multi_scale_box(258, 340, 221, FirstOf(3, 0)) == Box(0, 0, 225, 225)


def test_a_multi_scale_crop_never_leaves_the_picture() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((222, 222), (222, 400), (226, 223), (5, 3), (100, 176)):
        for _ in range(200):
            box = multi_scale_box(height, width, 224, rng)
            assert box.top >= 0 <= box.left
            assert box.top + box.height <= height
            assert box.left + box.width <= width


def test_random_and_center_boxes() -> None:
    assert random_box(10, 12, 8, FirstOf(2, 4)) == Box(2, 4, 8, 8)
    drawn = {random_box(5, 4, 3, np.random.default_rng(seed))[:2] for seed in range(100)}
    assert drawn == {(top, left) for top in range(3) for left in range(2)}
    assert center_box(11, 20, 8) == Box(1, 6, 8, 8)
    with pytest.raises(UsageError, match="does not fit"):
        center_box(7, 20, 8)
    with pytest.raises(UsageError, match="does not fit"):
        random_box(20, 7, 8, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [(11, 20, [(1, 0), (1, 6), (1, 12)]), (20, 11, [(0, 1), (6, 1), (12, 1)])],
    ids=["landscape", "portrait"],
)
def test_three_crops_move_along_the_longer_side(height: int, width: int, corners: list[tuple[int, int]]) -> None:
    views = crop_views(where(2, height, width), 8, 3)
    assert views.shape == (3, 2, 3, 8, 8)
    assert [corner(view) for view in views] == corners
    assert views[:, 1, 2].unique().tolist() == [1]  # the second frame of every view is the second frame


def test_one_crop_is_the_middle() -> None:
    frames = where(2, 11, 20)
    assert torch.equal(crop_views(frames, 8, 1), frames[None, :, :, 1:9, 6:14])


def test_ten_crops_are_the_corners_and_the_middle_and_their_mirror_images() -> None:
    views = crop_views(where(2, 11, 20), 8, 10)
    assert views.shape == (10, 2, 3, 8, 8)
    assert [corner(view) for view in views[:5]] == [(0, 0), (0, 12), (3, 0), (3, 12), (1, 6)]
    assert torch.equal(views[5:], views[:5].flip(-1))
    assert corner(views[5]) == (0, 7)


def test_another_number_of_crops_is_refused() -> None:
    with pytest.raises(UsageError, match="expected 1, 3 or 10"):
        crop_views(where(1, 8, 8), 8, 5)


# --- mirror images


def test_labels_pair_when_swapping_whole_words_gives_another_label() -> None:
    flips = flip_pairs([*PLAIN, *DIRECTED, ADVERB])
    assert flips.pairs == [(3, 4), (5, 6)]
    assert flips.partner == {3: 4, 4: 3, 5: 6, 6: 5}
    assert flips.directed == {3, 4, 5, 6}


def test_the_labels_of_jester_pair() -> None:
    labels = ["Swiping Left", "Swiping Right", "Swiping Down", "Sliding Two Fingers Left", "Sliding Two Fingers Right"]
    labels += ["Turning Hand Clockwise", "Turning Hand Counterclockwise", "Rolling Hand Forward", "No gesture"]
    assert flip_pairs(labels).pairs == [(0, 1), (3, 4), (5, 6)]


@pytest.mark.parametrize("other", ["counterclockwise", "counter-clockwise", "Anticlockwise", "anti clockwise"])
def test_every_spelling_of_the_other_sense_of_turning_pairs(other: str) -> None:
    assert flip_pairs(["turn clockwise", f"turn {other}"]).pairs == [(0, 1)]


def test_names_of_folders_join_words_with_dashes() -> None:
    assert flip_pairs(["swipe_left", "swipe_right", "left-hand", "Right-Hand", "bright", "upright"]).pairs == [
        (0, 1),
        (2, 3),
    ]


def test_a_direction_without_a_partner_is_directed_and_pairs_with_nothing() -> None:
    flips = flip_pairs(["Turning left", "Walking", "Moving from left to right", "stop, right now", "outright theft"])
    assert flips.partner == {}
    assert flips.directed == {0, 2}


def test_every_pair_is_mutual_even_when_a_label_stands_twice() -> None:
    flips = flip_pairs(["left", "Left", "right"])
    assert all(flips.partner[b] == a for a, b in flips.partner.items())
    assert flips.directed == {0, 1, 2}


def apply_often(augmentation: Augmentation, label: int) -> list[tuple[bool, int]]:
    """(was it mirrored, which label came out) for 400 clips."""
    frames, rng = where(2, 8, 8), np.random.default_rng(0)
    results = [augmentation.apply(frames, label, rng) for _ in range(400)]
    assert all(torch.equal(out, frames) or torch.equal(out, frames.flip(-1)) for out, _ in results)
    return [(bool(out[0, 1, 0, 0] == 7), label) for out, label in results]


FLIPS = flip_pairs([*PLAIN, *DIRECTED, "Turning left"])


@pytest.mark.parametrize("label", range(8))
def test_swap_mirrors_half_of_the_clips_and_swaps_the_label_with_them(label: int) -> None:
    results = apply_often(Augmentation("center", 8, "swap", FLIPS), label)
    partner = {3: 4, 4: 3, 5: 6, 6: 5}.get(label, label)
    if label == 7:
        assert set(results) == {(False, 7)}
    else:
        assert set(results) == {(False, label), (True, partner)}
        assert 160 < sum(mirrored for mirrored, _ in results) < 240


@pytest.mark.parametrize("label", range(8))
def test_skip_directed_mirrors_only_clips_without_a_direction(label: int) -> None:
    results = apply_often(Augmentation("center", 8, "skip_directed", FLIPS), label)
    assert set(results) == ({(False, label), (True, label)} if label < 3 else {(False, label)})


def test_off_mirrors_nothing() -> None:
    assert set(apply_often(Augmentation("center", 8, "off", FLIPS), 0)) == {(False, 0)}


# --- a whole augmentation


@pytest.mark.parametrize("crop", ["multi_scale", "random", "center"])
def test_all_frames_of_a_clip_are_cut_alike_and_to_size(crop: str) -> None:
    augmentation = Augmentation(crop, 16, "swap", FLIPS)
    rng = np.random.default_rng(0)
    for _ in range(50):
        frames, _ = augmentation.apply(where(3, 24, 40), 0, rng)
        assert frames.shape == (3, 3, 16, 16)
        assert frames.dtype == torch.uint8
        assert torch.equal(frames[0, :2], frames[1, :2])
        assert torch.equal(frames[0, :2], frames[2, :2])
        assert frames[:, 2].amax((1, 2)).tolist() == [0, 1, 2]


def test_an_augmentation_depends_on_its_generator_alone_and_travels_to_workers() -> None:
    augmentation = Augmentation("multi_scale", 16, "swap", FLIPS)
    copy = pickle.loads(pickle.dumps(augmentation))
    first, again, other = (
        augment.apply(where(3, 24, 40), 3, np.random.default_rng(seed))[0]
        for augment, seed in ((augmentation, 1), (copy, 1), (augmentation, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_multi_scale_crop_is_cut_before_it_is_resized() -> None:
    # Scale .66 of 24 is 15, 16 - 15 < 3, so it is 16: the last pair, at the last point, unresized and unmirrored.
    frames, _ = Augmentation("multi_scale", 16, "swap").apply(where(1, 24, 40), 0, FirstOf(9, 12, 0.7))
    assert torch.equal(frames, where(1, 24, 40)[..., 8:24, 24:40])
    frames, _ = Augmentation("multi_scale", 16, "swap").apply(where(1, 24, 40), 0, FirstOf(0, 0, 0.2))
    assert torch.equal(frames, resize_frames(where(1, 24, 40)[..., 0:24, 0:24], 16, 16).flip(-1))


def test_misspelt_choices_are_named() -> None:
    with pytest.raises(UsageError, match="'multi_scale'"):
        Augmentation(crop="multiscale")
    with pytest.raises(UsageError, match="'swap'"):
        Augmentation(flip="swop")


# --- numbers


def test_normalising_by_hand() -> None:
    frames = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1).expand(2, 5, 3, 7, 11)
    out = normalise(frames)
    assert (out.shape, out.dtype) == (frames.shape, torch.float32)
    expected = [(value - mean) / std for value, mean, std in zip((0, 1, 0.2), IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert out[1, 4, :, 6, 10].tolist() == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx([-2.117904, 2.428571, -0.915556], abs=1e-6)


def test_normalising_keeps_the_input_the_memory_layout_and_rounds_once() -> None:
    frames = where(2, 4, 5)
    before = frames.clone()
    out = normalise(frames, dtype=torch.bfloat16)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, normalise(frames).to(torch.bfloat16))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(frames, before)
    assert torch.allclose(normalise(frames, (0, 0, 0), (1, 1, 1)), frames / 255)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real annotations is not there")
def test_the_real_labels_of_something_something_v2_have_exactly_three_pairs() -> None:
    index_of = {label: int(index) for label, index in json.loads(LABELS.read_text()).items()}
    flips = flip_pairs(sorted(index_of, key=index_of.__getitem__))
    assert len(index_of) == 174
    assert flips.pairs == [(86, 87), (93, 94), (166, 167)]
    assert flips.directed == {86, 87, 93, 94, 166, 167}


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real annotations is not there")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("jester", [(0, 1), (6, 7), (14, 15)]), ("sthv1", [(2, 4), (30, 41), (52, 66)]), ("kinetics_label_map_k400", [])],
)
def test_real_label_maps_pair_as_they_should(name: str, expected: list[tuple[int, int]]) -> None:
    path = next((SHARED / "annotations" / "mmaction2_label_maps").glob(f"{name}*.txt"))
    flips = flip_pairs(path.read_text().splitlines())
    assert flips.pairs == expected
    assert flips.directed == {index for pair in expected for index in pair}
