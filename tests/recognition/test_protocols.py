"""Protocols of evaluation: crops at places worked by hand, views against loops, memory, splits without labels."""

import json
import math
import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import simplejpeg
import torch
from torch import Tensor, nn

import ssan.cli.evaluate
import ssan.recipe
from ssan.cli.main import app, status
from ssan.datasets import Sample, Samples, read
from ssan.errors import UsageError
from ssan.models.classifier import Classifier
from ssan.recipe import make_recipe
from ssan.recognition import evaluate as evaluation
from ssan.recognition.evaluate import Protocol, evaluate, score
from ssan.recognition.score_file import read_scores
from ssan.training.batches import Batches
from ssan.video.preprocess import Preprocess, resize_rule, three_boxes
from ssan.video.reader import read_clip
from ssan.weights.classifier_file import build_from, preprocess_of, save_labeller
from ssan.weights.labeller import Labeller
from ssan.weights.model_file import write_model_file

LENGTH, NUM_FRAMES, SIDE, NUM_CLASSES = 23, 3, 7, 5
FULL_RESOLUTION = {"resize": "short_side", "size_px": SIDE, "crop_px": SIDE}


# ------------------------------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize(
    ("height", "width", "size_px", "crop_px", "corners"),
    [
        (240, 427, 256, 256, [(0, 0), (0, 99), (0, 199)]),  # 427 * 256 / 240 = 455.5 -> 455; 199 to spare
        (427, 240, 256, 256, [(0, 0), (99, 0), (199, 0)]),
        (240, 240, 256, 256, [(0, 0), (0, 0), (0, 0)]),  # a square has no longer side: three times the whole
        (240, 240, 256, 224, [(16, 0), (16, 16), (16, 32)]),  # smaller crops of a square move along its width
        (240, 320, 256, 224, [(16, 0), (16, 58), (16, 117)]),  # 341 wide
    ],
    ids=["landscape", "portrait", "square", "square, smaller", "4:3, smaller"],
)
def test_three_crops_stand_at_the_ends_and_in_the_middle_of_the_longer_side(
    height: int, width: int, size_px: int, crop_px: int, corners: list[tuple[int, int]]
) -> None:
    used = Protocol(crops=3, resize="short_side", size_px=size_px, crop_px=crop_px).preprocess(Preprocess())
    boxes = three_boxes(*resize_rule(used.resize, used.size_px)(height, width), used.crop_px)
    assert [(box.top, box.left) for box in boxes] == corners
    assert {(box.height, box.width) for box in boxes} == {(crop_px, crop_px)}


def test_a_protocol_changes_what_it_says_and_nothing_else() -> None:
    own = Preprocess(num_frames=13, sampling="dense", stride=3, resize="square", size_px=37, crop_px=29)
    assert Protocol(views=10, crops=3).preprocess(own) == own
    used = Protocol(2, 3, "probabilities", resize="short_side", crop_px=37)
    assert used.preprocess(own) == Preprocess(13, "dense", 3, "short_side", 37, 37)
    assert used.as_dict(own, "validation") == {
        "split": "val", "num_frames": 13, "sampling": "dense", "stride": 3, "views": 2, "crops": 3,
        "resize": "short_side", "size_px": 37, "crop_px": 37, "average": "probabilities",
    }  # fmt: skip


def test_a_protocol_may_have_other_frames_and_names_their_rate() -> None:
    own = Preprocess(64, "dense", 1, "short_side", 256, 224, frames_per_second=25.0)
    assert Protocol(num_frames=250).preprocess(own) == Preprocess(250, "dense", 1, "short_side", 256, 224, 25.0)
    used = Protocol(num_frames=250).as_dict(own, "val")
    assert (used["num_frames"], used["stride"], used["frames_per_second"]) == (250, 1, 25.0)
    assert "frames_per_second" not in Protocol().as_dict(Preprocess(sampling="dense"), "val")


def test_crops_that_do_not_fit_or_do_not_differ_are_refused() -> None:
    own = Preprocess(size_px=37, crop_px=29)
    with pytest.raises(UsageError) as caught:
        Protocol(crop_px=41).preprocess(own)
    assert str(caught.value) == (
        "crops of 41 px do not fit into pictures resized to 37 px; lower --crop-px, or give --size-px 41 or more"
    )
    for crops in (3, 10):
        with pytest.raises(UsageError) as caught:
            Protocol(crops=cast(Any, crops), crop_px=37).preprocess(own)
        assert str(caught.value) == (
            f"the {crops} crops of 37 px would all be cut from one place, as --resize square makes every picture 37 px "
            "high and wide; use --resize short_side, or lower --crop-px"
        )
    assert Protocol(crop_px=37).preprocess(own).crop_px == 37


def test_sides_have_the_bound_of_a_recipe() -> None:
    assert ssan.cli.evaluate.MAX_PX == ssan.recipe.MAX_PX
    assert ssan.cli.evaluate.MAX_FRAMES == ssan.recipe.MAX_FRAMES


# ------------------------------------------------------------------------------------- views, against a twin in loops


class Weighing(nn.Module):
    """Scores that are sums of pixels, each with a weight of its own: they know every frame, place and colour."""

    def __init__(self, num_frames: int = NUM_FRAMES, side: int = SIDE) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(NUM_CLASSES, num_frames, 3, side, side)) / (255 * math.sqrt(num_frames) * side)
        self.weights = nn.Parameter(torch.from_numpy(weights))
        self.clips_at_a_time: list[int] = []

    def forward(self, clips: Tensor) -> Tensor:
        self.clips_at_a_time.append(len(clips))
        return torch.einsum("btchw,ktchw->bk", clips.double(), self.weights)


def labeller(sampling: str = "segment", num_frames: int = NUM_FRAMES, side: int = SIDE) -> Labeller:
    preprocess = Preprocess(num_frames, cast(Any, sampling), 2, "short_side", SIDE, side)
    model = cast(Classifier, Weighing(num_frames, side))
    return Labeller(model, [f"class {n}" for n in range(NUM_CLASSES)], preprocess, make_recipe({}), {}, "")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Folders of noise, so small that no resizing is needed: landscape, portrait, square, and two more landscapes."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    listed = []
    for name, (height, width) in {"wide": (7, 13), "tall": (17, 7), "square": (7, 7), "a": (7, 9), "b": (7, 9)}.items():
        (root / name).mkdir()
        for number in range(LENGTH):
            picture = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
            (root / name / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture))
        label = len(listed) % NUM_CLASSES
        listed.append(Sample(name, str(root / name), f"class {label}", label))
    return Samples(listed, [f"class {n}" for n in range(NUM_CLASSES)], str(root))


def twin(model: Weighing, path: str, views: int, crops: int, sampling: str, average: str) -> list[float]:
    """A video's scores in loops, from all its frames: which frames, which crop, which score, and then the mean."""
    frames = read_clip(path, lambda n: list(range(n))).frames.numpy().astype(np.float64)
    weights = model.weights.detach().numpy()
    _, _, height, width = frames.shape
    side = weights.shape[-1]
    room_down, room_right = height - side, width - side
    if crops == 1:
        places = [(room_down // 2, room_right // 2, False)]
    elif crops == 3 and height > width:
        places = [(top, room_right // 2, False) for top in (0, room_down // 2, room_down)]
    elif crops == 3:
        places = [(room_down // 2, left, False) for left in (0, room_right // 2, room_right)]
    else:
        five = [(0, 0), (0, room_right), (room_down, 0), (room_down, room_right), (room_down // 2, room_right // 2)]
        places = [(top, left, mirrored) for mirrored in (False, True) for top, left in five]
    rows = []
    for view in range(views):
        if sampling == "segment":
            points = [(i + Fraction(2 * view + 1, 2 * views)) * Fraction(LENGTH, NUM_FRAMES) for i in range(NUM_FRAMES)]
            numbers = [math.floor(point) for point in points]
        else:  # starts 0 to 18 of windows of three frames, two apart
            first = 18 // 2 if views == 1 else math.floor(Fraction(18 * view, views - 1))
            numbers = [first, first + 2, first + 4]
        for top, left, mirrored in places:
            logits = [0.0] * NUM_CLASSES
            for k in range(NUM_CLASSES):
                for i, number in enumerate(numbers):
                    crop = frames[number, :, top : top + side, left : left + side]
                    logits[k] += float((weights[k, i] * (crop[:, :, ::-1] if mirrored else crop)).sum())
            rows.append(logits)
    if average == "logits":
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    shares = [[math.exp(logit) / sum(map(math.exp, logits)) for logit in logits] for logits in rows]
    return [math.log(sum(column) / len(rows)) for column in zip(*shares, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize(
    ("views", "crops", "side", "sampling"),
    [
        (1, 1, 5, "segment"),
        (2, 1, 5, "segment"),
        (1, 3, SIDE, "segment"),
        (2, 3, SIDE, "segment"),
        (1, 10, 5, "segment"),
        (1, 1, 5, "dense"),
        (10, 3, SIDE, "dense"),
    ],
)
def test_scores_are_those_of_loops_over_views_crops_and_frames(
    views: int, crops: int, side: int, sampling: str, average: str, samples: Samples
) -> None:
    model = labeller(sampling, side=side)
    result = score(model, samples, Protocol(views, cast(Any, crops), cast(Any, average)), batch=11, quiet=True)
    for sample, row in zip(samples, result.scores["as_sampled"], strict=True):
        expected = twin(cast(Weighing, model.model), sample.path, views, crops, sampling, average)
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-12)


def test_full_resolution_may_be_asked_for_at_evaluation(samples: Samples) -> None:
    """A model whose own crop is smaller sees the whole shorter side, as one made for that does."""
    larger = labeller()
    smaller = Labeller(
        larger.model, larger.classes, Preprocess(NUM_FRAMES, resize="square", size_px=6, crop_px=5), larger.recipe, {},
        "",
    )  # fmt: skip
    asked = score(smaller, samples, Protocol(2, 3, **cast(Any, FULL_RESOLUTION)), quiet=True)
    own = score(larger, samples, Protocol(2, 3), quiet=True)
    assert np.array_equal(asked.scores["as_sampled"], own.scores["as_sampled"])


def test_a_square_video_has_the_score_of_one_crop_at_full_resolution(samples: Samples) -> None:
    one, three = (score(labeller(), samples, Protocol(1, crops), quiet=True) for crops in (1, 3))  # type: ignore[arg-type]
    for sample, a, b in zip(samples, one.scores["as_sampled"], three.scores["as_sampled"], strict=True):
        assert np.allclose(a, b, rtol=1e-12) == (sample.id == "square")


def test_two_views_of_a_video_of_23_frames_see_frames_worked_by_hand(samples: Samples) -> None:
    # Parts of 7.67 frames: their quarters 1.9 9.6 17.3, three quarters 5.8 13.4 21.1.
    _, clip = labeller().preprocess.test_views(samples[0].path, 2)
    assert clip.indices == (1, 9, 17, 5, 13, 21)


def test_a_mean_of_probabilities_too_small_for_a_number_has_a_logarithm(samples: Samples) -> None:
    model = labeller()
    with torch.no_grad():
        cast(Weighing, model.model).weights.mul_(50_000)
    rows = score(model, samples, Protocol(2, 1, "probabilities"), quiet=True).scores["as_sampled"]
    assert np.isfinite(rows).all()
    assert rows.min() < -1000


# ------------------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    ("views", "crops", "batch", "videos", "at_a_time"),
    [
        (1, 1, 3, 3, 3),
        (2, 3, 13, 2, 12),  # 2 videos of 6 clips are 12
        (10, 3, 16, 1, 16),  # a video's 30 clips stay together in the loader, and go 16 and 14 through the network
        (10, 10, 7, 1, 7),
    ],
)
def test_clips_are_bounded_whatever_the_number_of_views(
    views: int, crops: int, batch: int, videos: int, at_a_time: int, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    class Watched(Batches):
        def __iter__(self) -> Any:
            for clips, outcomes in super().__iter__():
                held.append(tuple(clips.shape[:2]))
                yield clips, outcomes

    monkeypatch.setattr(evaluation, "Batches", Watched)
    model = labeller(side=5)
    result = score(model, samples, Protocol(views, cast(Any, crops)), batch=batch, probe=True, quiet=True)
    assert max(shape[0] for shape in held) == videos
    assert all(number * clips <= max(batch, views * crops) for number, clips in held)
    assert sum(number for number, _ in held) == len(result.samples) == 5
    assert max(cast(Weighing, model.model).clips_at_a_time) == at_a_time


# ------------------------------------------------------------------------------------------- on the command line


@pytest.fixture(scope="module")
def model(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained TSN of four classes on disk."""
    path = tmp_path_factory.mktemp("protocols") / "model.safetensors"
    torch.manual_seed(7)
    recipe = make_recipe({"model": "tsn_tiny", "num_frames": 3, "size_px": 32, "crop_px": 29})
    save_labeller(path, build_from(recipe, 4), read("sthv2", order_set, "all").classes, recipe, {})
    return path


@pytest.fixture
def unlabelled(order_set: Path, tmp_path: Path) -> Path:
    """The rendered set as its test split is for everybody: without answers."""
    shutil.copytree(order_set, tmp_path / "data")
    (tmp_path / "data" / "test-answers.csv").unlink()
    return tmp_path / "data"


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    code = status([str(argument) for argument in ("eval", *arguments, "--workers", 0, "--device", "cpu")])
    said = capfd.readouterr()
    return code, said.out, said.err


@pytest.mark.slow
def test_the_answer_names_the_protocol_as_used(
    model: Path, order_set: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scores = tmp_path / "s.npz"
    common = [model, "--data", order_set, "--split", "val", "--resize", "short_side", "--size-px", 37, "--crop-px", 37]
    code, out, _ = run(capfd, *common, "--views", 2, "--crops", 3, "--scores", scores, "--json")
    used = json.loads(out)["protocol"]
    assert code == 0
    assert used == {
        "split": "val", "num_frames": 3, "sampling": "segment", "views": 2, "crops": 3, "resize": "short_side",
        "size_px": 37, "crop_px": 37, "average": "logits",
    }  # fmt: skip
    assert read_scores(scores).protocol == used
    code, out, _ = run(capfd, *common)
    assert "3 frames, 1 views x 1 crops of 37 px, resize short_side 37, logits averaged" in out
    code, out, _ = run(capfd, *common, "--num-frames", 5, "--json")
    assert (code, json.loads(out)["protocol"]["num_frames"]) == (0, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--crop-px", "33"],
            "crops of 33 px do not fit into pictures resized to 32 px; lower --crop-px, or give --size-px 33 or more",
        ),
        (["--crops", "3", "--crop-px", "32"], "the 3 crops of 32 px would all be cut from one place"),
        (["--crops", "5"], "--crops is 5; expected 1, 3 or 10"),
        (["--size-px", "0"], "Invalid value for '--size-px'"),
        (["--views", "1001"], "Invalid value for '--views'"),
        (["--num-frames", "0"], "Invalid value for '--num-frames'"),
        (["--resize", "shortside"], "Invalid value for '--resize'"),
        (["--scores", "scores.csv"], "scores.csv: a score file's name ends in .npz; name it so"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_protocol_that_cannot_be_carried_out_is_refused_before_any_video_is_read(
    arguments: list[str],
    message: str,
    model: Path,
    order_set: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "TestClips", None)
    code, out, err = run(capfd, model, "--data", order_set, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"ssan: {message}")


@pytest.mark.slow
def test_a_split_without_labels_gives_scores_and_no_accuracy(
    model: Path, order_set: Path, unlabelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scores, known = tmp_path / "s.npz", tmp_path / "known.npz"
    common = [model, "--data", unlabelled, "--split", "test", "--probe", "--scores", scores]
    code, out, _ = run(capfd, *common, "--json")
    assert code == 0
    answer = json.loads(out)
    assert [answer[key] for key in ("top1", "top5", "mean_class_accuracy", "interval95")] == [None] * 4
    assert answer["probe"] == {"reversed_top1": None, "shuffled_top1": None, "reversed_same_prediction": 1.0}
    assert [(row["num"], row["top1"]) for row in answer["per_class"]] == [(0, None)] * 4
    written = read_scores(scores)
    assert (len(written.ids), set(written.labels.tolist())) == (answer["num_scored"], {-1})
    assert run(capfd, model, "--data", order_set, "--split", "test", "--scores", known, "--json")[0] == 0
    assert np.array_equal(read_scores(known).scores, written.scores)
    assert read_scores(known).labels.min() >= 0

    code, out, _ = run(capfd, *common)
    assert (code, out.splitlines()[0]) == (0, "no labels, so no accuracy")
    assert out.splitlines()[1].startswith(f"{len(written.ids)} videos of test scored, 0 missing, 0 failed; 3 frames")
    assert out.splitlines()[2] == "1.0000 of the answers stay the same reversed"


def test_a_split_without_labels_is_refused_where_nothing_keeps_the_scores(
    model: Path, unlabelled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    num = len(read("sthv2", unlabelled, "test"))
    code, out, err = run(capfd, model, "--data", unlabelled, "--split", "test")
    assert (code, out) == (2, "")
    assert err == (
        f"ssan: {unlabelled}/something-something-v2-: {num} of {num} videos have no label, so nothing can be measured; "
        "--scores FILE.npz keeps their scores, `ssan predict` labels them\n"
    )


def test_a_split_with_some_labels_is_refused(
    model: Path, unlabelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, num = read("sthv2", unlabelled, "all"), len(read("sthv2", unlabelled, "test"))
    code, out, err = run(capfd, model, "--data", unlabelled, "--split", "all", "--scores", tmp_path / "s.npz")
    assert (code, out) == (2, "")
    assert err.endswith(
        f": {num} of {len(whole)} videos have no label, so nothing can be measured; expected labels for all or for "
        "none: evaluate a split at a time\n"
    )
    assert not (tmp_path / "s.npz").exists()


def test_scores_without_labels_are_not_compared(
    model: Path, unlabelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "s.npz"
    run(capfd, model, "--data", unlabelled, "--split", "test", "--scores", scores)
    num = len(read_scores(scores).ids)
    assert status(["compare", str(scores), str(scores)]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err) == (
        "",
        f"ssan: {scores}: {num} of {num} videos have no label, so no answer to them is right or wrong; compare scores "
        "of a split that has labels\n",
    )


def test_a_model_file_of_another_architecture_is_refused(
    order_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tensors of one network under the recipe of another."""
    classes, path = read("sthv2", order_set, "all").classes, tmp_path / "model.safetensors"
    recipe = make_recipe({"model": "tsn_r18", "num_frames": 3, "size_px": 32, "crop_px": 29})
    metadata = {
        "recipe": recipe.model_dump(), "classes": classes, "preprocess": preprocess_of(recipe).as_dict(), "protocol": {}
    }  # fmt: skip
    tiny = build_from(make_recipe({"model": "tsn_tiny", "num_frames": 3, "size_px": 32, "crop_px": 29}), 4)
    write_model_file(path, tiny.state_dict(), metadata)
    code, out, err = run(capfd, path, "--data", order_set)
    assert (code, out) == (2, "")
    assert err == (
        f"ssan: {path}: its tensors do not fit its recipe (tsn_r18): 'backbone.conv1.weight' is "
        "torch.Size([16, 3, 7, 7]), expected torch.Size([64, 3, 7, 7]); copy the file again\n"
    )


def test_a_model_of_other_classes_is_refused(
    model: Path, order_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(order_set, tmp_path / "data")
    labels = tmp_path / "data" / "something-something-v2-labels.json"
    own = json.loads(labels.read_text())
    labels.write_text(json.dumps({**own, "Waving": str(len(own))}))
    code, out, err = run(capfd, model, "--data", tmp_path / "data")
    assert (code, out) == (2, "")
    assert err == (
        f"ssan: {tmp_path}/data/something-something-v2-: the model's 4 classes are not the data's 5: only the model "
        "has none, only the data have ['Waving']. Evaluate a model on the classes it was trained for\n"
    )


def test_the_probe_of_a_split_without_labels_needs_none(samples: Samples, tmp_path: Path) -> None:
    nameless = samples.kept([Sample(sample.id, sample.path) for sample in samples])
    answer = evaluate(
        labeller(), nameless, Protocol(), split="test", probe=True, scores_file=tmp_path / "s.npz", quiet=True
    )
    assert answer["probe"]["reversed_top1"] is None
    assert 0 <= answer["probe"]["reversed_same_prediction"] <= 1


def test_the_page_names_commands_and_options_that_there_are() -> None:
    import typer

    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands = re.findall(r"^(?:    |\$ )ssan ([a-z].*)$", page, flags=re.MULTILINE)
    assert len(commands) > 4
    for command in commands:
        verb, *words = shlex.split(command)
        known = {flag for parameter in verbs[verb].params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, command
    options = {
        flag for verb in ("eval", "predict", "ensemble", "submission") for p in verbs[verb].params for flag in p.opts
    }
    assert set(re.findall(r"(?<=`)--[a-z-]+", page)) <= options
    rows = re.findall(r"^\| [a-z ,]+ \| `(--[^|]+)` \|", page, flags=re.MULTILINE)
    assert {"--views 2", "--crops 10"} < set(rows)
