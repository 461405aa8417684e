"""From a video to the clip a network sees: repeatable in training, complete in testing, and errors that travel."""

import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader

import ssan.video.reader
from ssan.datasets import Sample, Samples, read
from ssan.datasets.clips import (
    Item,
    Preprocess,
    TestClips,
    TrainingClips,
    collate,
    collate_one_view,
    collate_with_errors,
)
from ssan.errors import VideoError
from ssan.training.batches import Batches, BatchPlan, Draw
from ssan.video.mirror import FlipMap, flip_pairs
from ssan.video.preprocess import Augmentation

HEIGHT, WIDTH, LENGTH, NUM_FRAMES = 36, 52, 30, 5
SMALL = Preprocess(num_frames=NUM_FRAMES, size_px=40, crop_px=32)
WIDE = Preprocess(num_frames=NUM_FRAMES, resize="short_side", size_px=40, crop_px=32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos: a file and a folder of frames that grow brighter from frame to frame, and a file that is none."""
    root = tmp_path_factory.mktemp("clips")
    (root / "frames").mkdir()
    across = np.linspace(0, 90, WIDTH, dtype=np.uint8)[None, :, None]
    down = np.linspace(0, 40, HEIGHT, dtype=np.uint8)[:, None, None]
    with av.open(str(root / "file.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 2_000_000
        for number in range(LENGTH):
            picture = np.repeat(across + down + np.uint8(4 * number), 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            (root / "frames" / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=95))
        container.mux(stream.encode())
    (root / "broken.mp4").write_text("this is no video")
    return root


@pytest.fixture
def samples(root: Path) -> Samples:
    names = ["from left to right", "from right to left", "up"]
    return Samples(
        [
            Sample("file", str(root / "file.mp4"), names[0], 0),
            Sample("frames", str(root / "frames"), names[1], 1),
            Sample("broken", str(root / "broken.mp4"), names[2], 2),
            Sample("unlabelled", str(root / "file.mp4")),
        ],
        names,
        str(root),
    )


def _training(samples: Samples, *, seed: int = 0, preprocess: Preprocess = SMALL, **augment: object) -> TrainingClips:
    augmentation = Augmentation(**{"crop_px": preprocess.crop_px, **augment})  # type: ignore[arg-type]
    return TrainingClips(samples, preprocess, augmentation, seed)


def _clip(item: Item) -> torch.Tensor:
    assert not isinstance(item, VideoError)
    return item[0]


def _same(one: Item, other: Item) -> bool:
    assert not isinstance(one, VideoError)
    assert not isinstance(other, VideoError)
    return torch.equal(one[0], other[0]) and one[1] == other[1]


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("index", [0, 1])
def test_a_training_clip_is_bytes_of_the_size_of_the_crop(samples: Samples, index: int) -> None:
    item = _training(samples)[0, index]
    assert not isinstance(item, VideoError)
    assert (item[0].shape, item[0].dtype, item[1]) == ((NUM_FRAMES, 3, 32, 32), torch.uint8, index)


def test_a_clip_depends_on_seed_epoch_and_index_and_on_nothing_else(samples: Samples) -> None:
    first = _training(samples)[3, 1]
    torch.manual_seed(99)
    np.random.seed(99)
    later = _training(samples)
    _ = [later[0, 0], later[3, 0], later[4, 1]]  # whatever was drawn before
    assert _same(later[3, 1], first)
    assert not _same(later[4, 1], first)
    assert not _same(_training(samples, seed=1)[3, 1], first)


def test_two_videos_alike_are_augmented_apart(samples: Samples) -> None:
    twice = samples.kept([samples[0], Sample("again", samples[0].path, samples[0].label, 0)])
    clips = _training(twice)
    assert not _same(clips[0, 0], clips[0, 1])


@pytest.mark.slow
def test_a_clip_is_the_same_in_another_process(samples: Samples) -> None:
    clips = _training(samples.kept(samples[:2]), flip="swap", flip_pairs=flip_pairs(samples.classes))
    batches = Batches(clips, BatchPlan(2, 2, seed=5, shuffle=True), workers=1, collate=collate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        epochs = [list(batches) for _ in range(2)]
    for epoch, [(frames, labels)] in enumerate(epochs):
        (order,) = _plan_of(epoch)
        assert [draw.epoch for draw in order] == [epoch] * 2
        for draw, clip, label in zip(order, frames, labels, strict=True):
            assert _same(clips[draw], (clip, int(label)))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_whatever_the_number_of_workers(samples: Samples, workers: int) -> None:
    many = samples.kept(
        Sample(f"{number}", samples[number % 2].path, samples[number % 2].label, number % 2) for number in range(7)
    )
    clips = _training(many, crop="random", flip="swap", flip_pairs=flip_pairs(samples.classes))
    batches = Batches(clips, BatchPlan(7, 3, seed=5, shuffle=True), workers=workers, collate=collate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        epochs = [list(batches) for _ in range(2)]
    for epoch, got in enumerate(epochs):
        order = np.random.default_rng([5, epoch]).permutation(7)
        expected = [clips[epoch, int(item)] for item in order]
        assert torch.equal(torch.cat([frames for frames, _ in got]), torch.stack([_clip(item) for item in expected]))
        assert torch.cat([labels for _, labels in got]).tolist() == [item[1] for item in expected]  # type: ignore[index]


def test_a_batch_with_a_broken_video_has_the_others_and_its_error(samples: Samples) -> None:
    clips = _training(samples.kept(samples[:3]))
    first, error, last = clips.__getitems__([(0, 0), (0, 2), (0, 1)])
    assert isinstance(error, VideoError)
    assert error.path == samples[2].path
    assert _same(first, clips[0, 0])
    assert _same(last, clips[0, 1])


# ---------------------------------------------------------------------------------------------------- parts of videos


@pytest.mark.slow
@pytest.mark.parametrize("name", ["file.mp4", "frames"])
@pytest.mark.parametrize("sampling", ["segment", "dense"])
def test_of_a_part_of_a_video_only_frames_of_the_part_are_read(root: Path, name: str, sampling: str) -> None:
    rate = 10 if name == "file.mp4" else 12
    preprocess = Preprocess(num_frames=NUM_FRAMES, sampling=sampling, stride=1, size_px=40, crop_px=32)  # type: ignore[arg-type]
    part = (7 / rate, 14 / rate)
    clips = [preprocess.training_clip(str(root / name), np.random.default_rng(seed), part) for seed in range(40)]
    assert {round(time * rate) for clip in clips for time in clip.times_seconds} == set(range(7, 14))
    assert {index for clip in clips for index in clip.indices} == set(range(7))
    _, clip = preprocess.test_views(str(root / name), 3, part=part)
    assert {round(time * rate) for time in clip.times_seconds} <= set(range(7, 14))
    assert (clip.num_frames, len(clip.indices)) == (7, 3 * NUM_FRAMES)


@pytest.mark.parametrize("name", ["file.mp4", "frames"])
def test_the_parts_of_a_sample_reach_training_and_testing(samples: Samples, root: Path, name: str) -> None:
    rate = 10 if name == "file.mp4" else 12
    first, last = (
        Sample(f"{n}", str(root / name), "up", 2, start_seconds=a, end_seconds=b)
        for n, (a, b) in enumerate([(None, 10 / rate), (20 / rate, None)])
    )
    parts = samples.kept([first, last])
    dark, bright = (_clip(_training(parts, crop="center")[0, index]).float().mean() for index in (0, 1))
    assert bright - dark > 4 * 12  # frames grow by 4, and at least 11 lie between the parts
    dark, bright = (_clip(TestClips(parts, SMALL)[0, index]).float().mean() for index in (0, 1))
    assert bright - dark > 4 * 12


def test_a_part_after_the_end_is_an_error_that_names_both(samples: Samples, root: Path) -> None:
    late = Sample("late", str(root / "file.mp4"), "up", 2, start_seconds=3.0, end_seconds=4.0)
    error = _training(samples.kept([late]))[0, 0]
    assert isinstance(error, VideoError)
    assert error.code == "too_few_frames"
    assert "begins at 3 s, and the video lasts 3 s" in error.message


def _plan_of(epoch: int) -> BatchPlan:
    plan = BatchPlan(2, 2, seed=5, shuffle=True)
    plan.epoch = epoch
    return plan


def test_the_frames_are_drawn_anew_each_epoch(samples: Samples) -> None:
    clips = _training(samples, crop="center", preprocess=Preprocess(num_frames=NUM_FRAMES, size_px=32, crop_px=32))
    # One crop and no mirror: what differs is the frames. Brightness says which.
    means = {tuple(_clip(clips[epoch, 1]).float().mean((1, 2, 3)).round().tolist()) for epoch in range(6)}
    assert len(means) == 6
    assert all(list(bright) == sorted(bright) for bright in means)


def test_mirrored_clips_have_the_label_of_the_partner(samples: Samples) -> None:
    preprocess = Preprocess(num_frames=NUM_FRAMES, size_px=32, crop_px=32)
    options = {"crop": "center", "preprocess": preprocess, "flip_pairs": flip_pairs(samples.classes)}
    plain, swapped = _training(samples, **options), _training(samples, flip="swap", **options)  # type: ignore[arg-type]
    seen = set()
    for epoch in range(16):
        for index in (0, 1):
            clip, item = _clip(plain[epoch, index]), swapped[epoch, index]
            assert not isinstance(item, VideoError)
            mirrored = torch.equal(item[0], clip.flip(-1))
            assert mirrored != torch.equal(item[0], clip)
            assert item[1] == (1 - index if mirrored else index)
            seen.add((index, mirrored))
    assert len(seen) == 4


def test_a_class_without_partner_keeps_its_label_when_mirrored(samples: Samples) -> None:
    one = samples.kept([Sample("file", samples[0].path, "up", 2)])
    clips = _training(one, flip="swap", flip_pairs=FlipMap({0: 1, 1: 0}, frozenset([0, 1])))
    assert {clips[epoch, 0][1] for epoch in range(8)} == {2}  # type: ignore[index]


# ---------------------------------------------------------------------------------------------------------- testing


@pytest.mark.parametrize("preprocess", [SMALL, WIDE], ids=["square", "short side"])
@pytest.mark.parametrize(("num_views", "num_crops"), [(1, 1), (2, 1), (1, 3), (3, 3), (2, 10)])
def test_views_and_crops_are_one_axis(root: Path, preprocess: Preprocess, num_views: int, num_crops: int) -> None:
    views, clip = preprocess.test_views(str(root / "file.mp4"), num_views, num_crops)  # type: ignore[arg-type]
    assert (views.shape, views.dtype) == ((num_views * num_crops, NUM_FRAMES, 3, 32, 32), torch.uint8)
    assert (clip.num_frames, len(clip.indices)) == (LENGTH, num_views * NUM_FRAMES)


@pytest.mark.parametrize("sampling", ["segment", "dense"])
@pytest.mark.parametrize("name", ["file.mp4", "frames"])
def test_views_differ_from_one_another(root: Path, name: str, sampling: str) -> None:
    preprocess = Preprocess(num_frames=NUM_FRAMES, sampling=sampling, stride=4, size_px=40, crop_px=32)  # type: ignore[arg-type]
    views, clip = preprocess.test_views(str(root / name), 4)
    assert len({tuple(clip.indices[v * NUM_FRAMES : (v + 1) * NUM_FRAMES]) for v in range(4)}) == 4
    assert not any(torch.equal(views[a], views[b]) for a in range(4) for b in range(a))


def test_the_crops_of_a_view_stand_together(root: Path) -> None:
    both, _ = WIDE.test_views(str(root / "file.mp4"), 2, 3)
    clips, _ = WIDE.test_views(str(root / "file.mp4"), 2, 1)
    # Of three crops along the longer side the middle one is the centre.
    assert torch.equal(both[1], clips[0])
    assert torch.equal(both[4], clips[1])
    assert not any(torch.equal(both[a], both[b]) for a in range(6) for b in range(a))


def test_the_last_five_of_ten_crops_are_mirror_images(root: Path) -> None:
    views, _ = WIDE.test_views(str(root / "file.mp4"), 1, 10)
    assert torch.equal(views[5:], views[:5].flip(-1))


def test_one_view_is_the_middle_of_each_part_and_of_the_picture(root: Path) -> None:
    views, clip = SMALL.test_views(str(root / "frames"))
    assert clip.indices == (3, 9, 15, 21, 27)
    assert torch.equal(views[0], clip.frames[..., 4:36, 4:36])


def test_short_side_keeps_the_aspect_ratio_and_square_does_not(root: Path) -> None:
    assert SMALL.test_views(str(root / "file.mp4"))[1].frames.shape[-2:] == (40, 40)
    assert WIDE.test_views(str(root / "file.mp4"))[1].frames.shape[-2:] == (40, 58)


def test_a_video_is_opened_once_for_all_its_views(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, original = [], ssan.video.reader.open_video

    def counted(path: str, **options: object) -> ssan.video.reader.Video:
        opened.append(path)
        return original(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ssan.video.reader, "open_video", counted)
    SMALL.test_views(str(root / "file.mp4"), 10, 3)
    assert opened == [str(root / "file.mp4")]


def test_a_test_clip_is_its_views_and_its_class(samples: Samples) -> None:
    clips = TestClips(samples, SMALL, num_views=2, num_crops=3)
    assert len(clips) == 4
    for index in (0, 1):
        item = clips[7, index]
        assert not isinstance(item, VideoError)
        assert torch.equal(item[0], SMALL.test_views(samples[index].path, 2, 3)[0])
        assert item[1] == index


def test_a_test_clip_is_the_same_in_every_epoch(samples: Samples) -> None:
    clips = TestClips(samples, SMALL)
    assert _same(clips[0, 0], clips[1, 0])


def test_a_video_without_label_has_class_minus_one(samples: Samples) -> None:
    assert TestClips(samples, SMALL)[0, 3][1] == -1  # type: ignore[index]


def test_preprocessing_says_all_its_fields() -> None:
    assert Preprocess(**WIDE.as_dict()) == WIDE
    assert Preprocess() == Preprocess(8, "segment", 8, "square", 256, 224)


def test_a_rendered_video_gives_a_clip(order_set: Path) -> None:
    val = read("auto", order_set, "val")
    frames, labels = collate_one_view([TestClips(val, SMALL)[0, index] for index in range(3)])
    assert frames.shape == (3, NUM_FRAMES, 3, 32, 32)
    assert labels.tolist() == [sample.label_index for sample in val[:3]]


# ------------------------------------------------------------------------------------------------- errors and batches


def test_a_broken_video_is_an_item_and_not_an_exception(samples: Samples) -> None:
    for clips in (_training(samples), TestClips(samples, SMALL)):
        item = clips[0, 2]
        assert isinstance(item, VideoError)
        assert (item.code, item.path) == ("not_video", samples[2].path)


def test_a_video_that_is_gone_is_an_item_too(samples: Samples, root: Path, tmp_path: Path) -> None:
    path = shutil.copy(root / "file.mp4", tmp_path)
    clips = TestClips(samples.kept([Sample("a", str(path), "up", 2)]), SMALL)
    assert not isinstance(clips[0, 0], VideoError)
    Path(path).unlink()
    item = clips[0, 0]
    assert isinstance(item, VideoError)
    assert (item.code, item.path) == ("missing", path)


def test_collating_raises_the_error_of_the_video(samples: Samples) -> None:
    clips = _training(samples)
    with pytest.raises(VideoError) as caught:
        collate([clips[0, 0], clips[0, 2], clips[0, 1]])
    assert (caught.value.code, caught.value.path) == ("not_video", samples[2].path)


@pytest.mark.slow
def test_the_error_of_a_video_comes_whole_out_of_another_process(samples: Samples) -> None:
    items = DataLoader(_training(samples), batch_sampler=[[Draw(0, 0), Draw(0, 2)]], num_workers=1, collate_fn=_as_list)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        ((good, bad),) = items
    with pytest.raises(VideoError) as caught:
        collate([good, bad])
    assert type(caught.value) is VideoError
    assert caught.value.as_dict() == _training(samples)[0, 2].as_dict()  # type: ignore[union-attr]
    assert (caught.value.code, caught.value.path) == ("not_video", samples[2].path)


def _as_list(items: list[Item]) -> list[Item]:
    return items


def test_collating_stacks_clips_and_classes_in_order(samples: Samples) -> None:
    clips = _training(samples)
    frames, labels = collate([clips[0, 1], clips[0, 0]])
    assert torch.equal(frames, torch.stack([_clip(clips[0, 1]), _clip(clips[0, 0])]))
    assert (labels.dtype, labels.tolist()) == (torch.int64, [1, 0])


def test_collating_one_view_drops_the_axis_of_views(samples: Samples) -> None:
    items = [TestClips(samples, SMALL)[0, index] for index in (0, 1)]
    frames, labels = collate_one_view(items)
    assert frames.shape == (2, NUM_FRAMES, 3, 32, 32)
    assert torch.equal(frames[1], _clip(items[1])[0])
    assert labels.tolist() == [0, 1]


def test_collating_with_errors_keeps_the_good_and_names_the_bad_in_their_turn(samples: Samples) -> None:
    clips = TestClips(samples, SMALL, num_views=2)
    views, errors = collate_with_errors([clips[0, index] for index in (2, 0, 2, 1)])
    assert views is not None
    assert torch.equal(views, torch.stack([_clip(clips[0, 0]), _clip(clips[0, 1])]))
    assert [None if error is None else error.code for error in errors] == ["not_video", None, "not_video", None]


def test_a_batch_of_nothing_but_errors_has_no_views(samples: Samples) -> None:
    views, errors = collate_with_errors([TestClips(samples, SMALL)[0, 2]])
    assert views is None
    assert len(errors) == 1
