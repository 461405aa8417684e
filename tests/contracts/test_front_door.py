"""What `import ssan` offers: what there is, what it answers, and that it is what the commands answer."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imsave

import ssan as package
from ssan.datasets import Sample
from ssan.errors import ModelError, UsageError, VideoError
from ssan.features.extract import Encoder, Rate, extract
from ssan.features.store import open_vectors
from ssan.models.catalogue import build
from ssan.recipe import make_recipe, read_recipe, read_retrieval_recipe
from ssan.recognition.video_model import Prediction, VideoModel, load_model
from ssan.shipped import JOINT, shipped
from ssan.video.frame_array import frame_arrays
from ssan.video.preprocess import Preprocess
from ssan.weights.classifier_file import load_labeller, save_labeller

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
OFFERED = [
    "__version__", "attach", "create_model", "detach", "layers", "load_model", "open_video", "read_dataset", "train",
    "video_classifier",
]  # fmt: skip
CLASSES = ["one", "two", "three", "four", "five"]


def write_model(path: Path, **keys: Any) -> Path:
    """A model with random weights whose answers differ from video to video."""
    torch.manual_seed(11)
    recipe = make_recipe({"model": "ssan_tiny", "num_frames": 5, "size_px": 32, "crop_px": 28, **keys})
    model = build("ssan_tiny", len(CLASSES))
    torch.nn.init.normal_(model.fc.weight, std=3.0)
    save_labeller(path, model, CLASSES, recipe, {"split": "val", "top1": 0.25})
    return path


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It takes pictures as large as the rendered ones, so that none is resized."""
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def model(model_file: Path) -> VideoModel:
    return load_model(model_file, "cpu")


@pytest.fixture(scope="module")
def paths(order_set: Path) -> list[str]:
    return sorted(map(str, order_set.rglob("*.webm")))[:6]


def frames_of(path: str) -> np.ndarray:
    """All frames of a file, (t, h, w, 3)."""
    with package.open_video(path) as video:
        return np.ascontiguousarray(video.read(range(video.num_frames)).frames.permute(0, 2, 3, 1).numpy())


# ------------------------------------------------------------------------------------------------- what there is


def test_the_package_shows_what_it_offers_and_nothing_else() -> None:
    assert dir(package) == sorted(package.__all__) == OFFERED
    for name in OFFERED:
        assert getattr(package, name) is getattr(package, name)
    assert package.layers.LAYERS["ssa"] is package.layers.SeparableSelfAttention
    with pytest.raises(AttributeError, match="module 'ssan' has no attribute 'load_modle'"):
        package.load_modle  # noqa: B018


def test_a_function_is_documented_with_what_it_takes_and_raises() -> None:
    for name in OFFERED:
        offered = getattr(package, name)
        assert f"`{name}" in PAGE or f"ssan.{name}" in PAGE, f"docs/python.md does not speak of {name}"
        if inspect.isfunction(offered):
            text = inspect.getdoc(offered) or ""
            assert text.split("\n\n")[0].endswith("."), name
            assert ":raises" in text, name
            for parameter in inspect.signature(offered).parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}({parameter.name})"


def test_what_a_type_checker_sees_is_what_is_given() -> None:
    """The names stand twice in the package: for type checkers, and for whoever asks."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(OFFERED) - {"__version__"} <= set(seen)
    for name, where in seen.items():
        offered = getattr(package, name)
        assert where == (f"{offered.__module__}.{offered.__name__}" if callable(offered) else offered.__name__)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("import sys, ssan; dir(ssan); ssan.__version__; print({'torch', 'numpy', 'av'} & set(sys.modules))", "set()"),
        (
            "import ssan.attachment.targets; from ssan import attach, layers; import ssan; "
            "print(attach is ssan.attach, callable(attach), attach.__name__, layers.__name__)",
            "True True attach ssan.layers",
        ),
    ],
)
def test_a_name_is_the_same_whatever_was_imported_before(code: str, answer: str) -> None:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == answer


# ------------------------------------------------------------------------------------------------------- labelling


@pytest.mark.slow
def test_the_answers_are_those_of_the_command(ssan: Any, model: VideoModel, model_file: Path, order_set: Path) -> None:
    folder = next(order_set.rglob("*.webm")).parent
    lines = ssan("predict", model_file, folder, "--json", "--top", 3, "--device", "cpu").lines
    answers = model.predict(folder, top=3)
    assert len(answers) == len(lines) == 40
    for answer, line in zip(answers, lines, strict=True):
        assert answer == Prediction(
            line["path"],
            [(best["label"], best["score"]) for best in line["top"]],
            num_frames=line["num_frames"],
            duration_seconds=line["duration_seconds"],
        )
        assert (answer.ok, answer.label) == (True, line["top"][0]["label"])
    assert len({answer.top[0] for answer in answers}) == 40
    assert model.protocol == {"split": "val", "top1": 0.25}
    assert repr(model) == "<VideoModel ssan_tiny: 5 classes, 5 frames of 28 px, on cpu>"


def layouts(frames: np.ndarray) -> Iterator[Any]:
    """The frames in every form in which people have them."""
    read_only = frames.copy()
    read_only.flags.writeable = False
    yield from (frames, read_only, np.asfortranarray(frames), frames[::-1].copy()[::-1])
    yield frames.transpose(0, 3, 1, 2)
    yield np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    yield from (torch.from_numpy(frames), torch.from_numpy(frames).permute(0, 3, 1, 2))
    yield torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    yield frames[..., ::-1].copy()[..., ::-1]  # BGR turned to RGB


def test_frames_in_memory_have_the_answer_of_their_file(model: VideoModel, paths: list[str]) -> None:
    for path, told in zip(paths, model.predict(paths), strict=True):
        for frames in layouts(frames_of(path)):
            (answer,) = model.predict(frames)
            assert (answer.top, answer.path, answer.num_frames) == (told.top, None, told.num_frames)


SIZES = [("down", {"size_px": 20, "crop_px": 16}), ("up", {"size_px": 47, "crop_px": 40, "resize": "short_side"})]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "keys"), SIZES, ids=[name for name, _ in SIZES])
def test_frames_that_are_resized_are_answered_as_a_folder_of_the_same_pictures(
    name: str, keys: dict[str, Any], paths: list[str], tmp_path: Path
) -> None:
    model = load_model(write_model(tmp_path / "model.safetensors", **keys), "cpu")
    for path in paths[:3]:
        frames = frames_of(path)[:, :, :26]  # not square
        folder = tmp_path / Path(path).stem
        folder.mkdir()
        for number, picture in enumerate(frames):
            imsave(folder / f"{number:05}.png", picture)
        (of_folder,) = model.predict(folder)
        for given in layouts(frames):
            assert model.predict(given)[0].top == of_folder.top


@pytest.mark.parametrize(("name", "keys"), SIZES, ids=[name for name, _ in SIZES])
def test_what_resizing_a_file_and_its_frames_makes_differ_is_small(
    name: str, keys: dict[str, Any], paths: list[str], tmp_path: Path
) -> None:
    """A file is resized as its frames become RGB, with half the resolution of colours; frames in memory after that."""
    sizes = Preprocess(**{"num_frames": 5, **keys})
    for path in paths:
        clip, _ = sizes.test_views(path)
        (given,) = frame_arrays(frames_of(path))
        difference = (clip.double() - sizes.test_clip(given).double()).abs()
        assert difference.mean() < MEAN_DIFFERENCE
        assert difference.max() < LARGEST_DIFFERENCE


# Of 255 grey levels; docs/python.md says what was measured.
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 3.0, 64.0


def test_one_is_a_list_of_one_and_many_keep_their_order(model: VideoModel, paths: list[str]) -> None:
    alone = [model.predict(path)[0] for path in paths]
    assert [answer.path for answer in alone] == paths
    backwards = paths[::-1]
    assert model.predict(backwards) == alone[::-1]
    assert model.predict(tuple(map(Path, backwards))) == alone[::-1]
    assert model.predict(path for path in backwards) == alone[::-1]
    mixed = model.predict([paths[0], frames_of(paths[1]), Path(paths[2])])
    assert [answer.top for answer in mixed] == [answer.top for answer in alone[:3]]
    assert model.predict([]) == model.predict(iter(())) == []
    same = np.stack([frames_of(path)[:7] for path in paths])
    together = model.predict(same)
    assert together == [model.predict(frames)[0] for frames in same]
    assert together == model.predict(torch.from_numpy(same).permute(0, 1, 4, 2, 3))
    assert len({answer.top[0] for answer in together}) > 1


def test_a_batch_changes_rounding_alone(model: VideoModel, paths: list[str]) -> None:
    alone, together = model.predict([*paths, "none.mp4"]), model.predict([*paths, "none.mp4"], batch=4)
    assert [answer.ok for answer in together] == [True] * 6 + [False]
    for one, other in zip(alone, together, strict=True):
        assert [label for label, _ in one.top] == [label for label, _ in other.top]
        np.testing.assert_allclose([s for _, s in one.top], [s for _, s in other.top], atol=1e-5)


def test_a_generator_is_read_no_further_ahead_than_a_batch(model: VideoModel, paths: list[str]) -> None:
    taken: list[str] = []

    def one_after_another() -> Iterator[str]:
        for path in paths:
            taken.append(path)
            yield path

    groups = model._groups(one_after_another(), 2)
    assert [seen.path for seen in next(groups)] == taken == paths[:2]
    assert [seen.path for seen in next(groups)] == paths[2:4]
    assert taken == paths[:4]


def test_a_bad_video_does_not_end_the_others(model: VideoModel, paths: list[str], tmp_path: Path) -> None:
    cut = tmp_path / "cut.webm"
    cut.write_bytes(Path(paths[0]).read_bytes()[:300])
    missing, nothing = str(tmp_path / "none.mp4"), frames_of(paths[1])[:0]
    answers = model.predict([missing, paths[0], cut, nothing, paths[1]])
    assert [answer.ok for answer in answers] == [False, True, False, False, True]
    assert [answer.error and answer.error.code for answer in answers][::3] == ["missing", "too_few_frames"]
    first = answers[0]
    assert first.error is not None
    assert (first.path, first.error.path, first.top, first.label) == (missing, missing, [], None)
    assert "no such file; expected a video file" in first.error.message
    assert answers[4] == model.predict(paths[1])[0]


def test_a_folder_says_what_it_left_out(model: VideoModel, paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_bytes(Path(paths[0]).read_bytes())
    (tmp_path / "poster.jpg").write_bytes(b"\xff\xd8")
    with pytest.warns(UserWarning, match="1 folder with pictures beside videos"):
        (answer,) = model.predict(tmp_path)
    assert answer.top == model.predict(paths[0])[0].top


def test_a_sample_is_the_part_of_its_video(model: VideoModel, paths: list[str], order_set: Path) -> None:
    parts = [Sample("a", paths[0], start_frame=3, end_frame=9), Sample("b", paths[0])]
    part, whole = model.predict(parts)
    assert part.top == model.predict(frames_of(paths[0])[3:9])[0].top != whole.top
    assert (part.num_frames, whole) == (6, model.predict(paths[0])[0])
    val = package.read_dataset(order_set, "val")
    assert [answer.path for answer in model.predict(val)] == [sample.path for sample in val]


def zeros(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (zeros(8, 20, 20, 3, dtype="float32"), r"shape \(8, 20, 20, 3\) and type float32; expected uint8.*\(255 \*"),
        (torch.zeros(8, 3, 20, 20), r"type float32; expected uint8 frames \(t, h, w, 3\) or"),
        (zeros(8, 20, 20, 3, dtype="int64"), "type int64; expected uint8.*0 to 255, as uint8"),
        (zeros(20, 20, 3), r"shape \(20, 20, 3\).*One picture is frames\[None\].*numpy.stack"),
        (zeros(8, 20, 20), r"shape \(8, 20, 20\) and type uint8; expected uint8 frames"),
        (zeros(8, 20, 20, 4), r"shape \(8, 20, 20, 4\).*Leave out alpha by frames\[..., :3\]"),
        (zeros(8, 20, 20, 1), "repeat a grey channel"),
        (zeros(3, 8, 20, 20), r"shape \(3, 8, 20, 20\).*Move the axes"),
        (zeros(2, 8, 20, 20, 1), r"a video of the array has shape \(8, 20, 20, 1\)"),
        (zeros(8, 0, 20, 3), "Its pictures have no pixels"),
        ([zeros(8, 20, 20, 3), zeros(8, 20, 20)], r"array 1 of those given has shape \(8, 20, 20\)"),
        (7, "a int was given for a video; expected a path"),
        ([["a.mp4"]], "a list was given for a video; expected a path"),
        (b"a.mp4", "a bytes was given for a video"),
    ],
)
def test_what_is_no_video_is_refused_with_what_is_expected(given: Any, message: str, model: VideoModel) -> None:
    for ask in (model.predict, model.features):
        with pytest.raises(UsageError, match=message):
            ask(given)


def test_an_array_that_could_be_read_in_two_ways_is_refused(model: VideoModel) -> None:
    for shape in ((8, 3, 20, 3), (8, 3, 3, 3), (2, 8, 3, 20, 3)):
        with pytest.raises(UsageError, match=r"can be read both ways, .*make them larger"):
            model.predict(zeros(*shape))
    # One axis of length 3 alone is that of the colours, be the picture three pixels high, or the video three frames.
    for shape in ((8, 3, 3, 20), (8, 20, 3, 3), (3, 20, 21, 3), (3, 3, 20, 21)):
        assert model.predict(zeros(*shape))[0].ok, shape
    assert not frame_arrays(zeros(8, 20, 3, 3))[0].channels_first
    assert frame_arrays(zeros(8, 3, 3, 20))[0].channels_first


def test_a_list_is_looked_at_before_the_work(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("a video was read")

    monkeypatch.setattr(Preprocess, "test_views", read)
    with pytest.raises(UsageError, match="array 1 of those given"):
        model.predict(["a.mp4", zeros(8, 20, 20)])


def test_numbers_that_make_no_sense_are_refused(model: VideoModel) -> None:
    for ask, message in [
        (lambda: model.predict([], top=0), "top is 0; expected 1 or more"),
        (lambda: model.predict([], batch=0), "batch is 0; expected 1 or more"),
        (lambda: model.features([], on_error="skip"), "unknown on_error 'skip'. Known: nan, raise"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(UsageError, match=message):
            ask()


def test_scores_that_are_not_finite_are_a_fault_of_the_answer(model_file: Path, paths: list[str]) -> None:
    model = load_model(model_file, "cpu")
    with torch.no_grad():
        model.network.fc.bias[0] = float("nan")
    (answer,) = model.predict(paths[0])
    assert answer.error is not None
    assert (answer.ok, answer.error.code, answer.error.path) == (False, "nan", paths[0])
    with torch.no_grad():
        model.network.backbone.conv1.weight.fill_(float("nan"))
    with pytest.raises(VideoError, match="features of it are not finite"):
        model.features(paths[0])


# -------------------------------------------------------------------------------------------------------- features


def test_features_are_those_of_a_window_as_long_as_the_video(
    model: VideoModel, model_file: Path, order_set: Path, tmp_path: Path
) -> None:
    videos = package.read_dataset(order_set, "val")
    labeller = load_labeller(model_file)
    encoder = Encoder(labeller.model, labeller.preprocess, labeller.hash, "ssan_tiny", 256)
    extract(encoder, videos, tmp_path, Rate(60, 60), quiet=True)
    store = open_vectors(tmp_path)
    rows = model.features(videos)
    assert (rows.shape, rows.dtype) == ((len(videos), 256), np.float32)
    for sample, row in zip(videos, rows, strict=True):
        assert np.array_equal(store.rows(sample.id)[0], row.astype(store.rows(sample.id).dtype))
    np.testing.assert_allclose(model.features(videos, batch=3), rows, atol=1e-5)
    assert np.array_equal(model.features(frames_of(videos[1].path)), rows[1:2])
    assert model.features([]).shape == (0, 256)


def test_a_row_of_a_bad_video_is_an_error_or_nan(model: VideoModel, paths: list[str]) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        model.features([paths[0], "none.mp4", paths[1]])
    rows = model.features([paths[0], "none.mp4", paths[1]], on_error="nan", batch=2)
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(rows[::2], model.features(paths[:2]), atol=1e-5)


# ------------------------------------------------------------------------------------------------ models by name


def test_a_model_that_cannot_be_loaded_says_what_to_name(model_file: Path, tmp_path: Path) -> None:
    for given, kind, message in [
        (
            "ssan_r50",
            UsageError,
            r"network without weights; name a model file.*create_model\(\"ssan_r50\", num_classes",
        ),
        ("ssan_r5O", ModelError, "no such model file or folder, and an unknown name 'ssan_r5O'. Did you mean"),
        (tmp_path / "none", ModelError, "no such model file or folder; give what `ssan train`"),
    ]:
        with pytest.raises(kind, match=message):
            package.load_model(given)
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UsageError, match=f"device is '{device}', which cannot be used here .*; use cpu, or auto"):
            package.load_model(model_file, device)


def test_a_named_network_starts_from_a_file_with_its_classes_or_with_new_ones(
    model: VideoModel, model_file: Path
) -> None:
    clips = torch.randint(0, 256, (2, 5, 3, 28, 28), dtype=torch.uint8)
    again = package.create_model("ssan_tiny", pretrained=model_file, num_frames=5).eval()
    with torch.no_grad():
        assert torch.equal(again(clips), model.network(clips))
        new = package.create_model("ssan_tiny", 7, pretrained=str(model_file)).eval()
        assert new(clips).shape == (2, 7)
        assert torch.equal(new.features(clips), model.network.features(clips))
    assert package.create_model("trn_tiny", 3, num_frames=4)(clips[:, :4]).shape == (2, 3)
    bare = package.create_model("ssan_tiny", 3, layer={"channel_branch": False}, places={"stages": ["res3"]})
    assert sum(map(torch.numel, bare.parameters())) < sum(map(torch.numel, new.parameters()))


def test_layers_of_a_file_that_have_no_place_in_the_network_are_told(model_file: Path) -> None:
    computes, lost = "model is 'ssan_tiny' there and 'tsn_tiny' here", "layers between frames that are lost"
    with pytest.warns(UserWarning, match=computes), pytest.warns(UserWarning, match=lost):
        package.create_model("tsn_tiny", 3, pretrained=model_file)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: package.create_model("ssan_r5", 3), "unknown model 'ssan_r5'. Did you mean 'ssan_r50'"),
        (lambda: package.create_model("ssan_tiny"), "num_classes is not given, and there is no file.*such as 174"),
        (lambda: package.create_model("ssan_tiny", 0), "num_classes is 0; expected a whole number, 1 or more"),
        (lambda: package.create_model("ssan_tiny", 2.5), "num_classes is 2.5; expected a whole number"),
        (lambda: package.create_model("ssan_tiny", True), "num_classes is True; expected a whole number"),
        (lambda: package.create_model("ssan_tiny", 3, layer={"wat": 1}), "unknown option 'wat'"),
    ],
)
def test_a_network_that_cannot_be_made_says_why(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask()


# ------------------------------------------------------------------------------------------ recipes and training


def test_a_recipe_that_comes_along_is_read_by_its_name() -> None:
    one_of_each_folder = {name.split("/")[0]: name for name in shipped()}
    assert len(one_of_each_folder) > 10
    for name in one_of_each_folder.values():
        path = shipped()[name]
        reader = read_retrieval_recipe if name.startswith(JOINT) else read_recipe
        assert reader(name) == reader(path), name
    assert read_recipe("finetune/ssan_mobilenet_v2", ["epochs=3"]).epochs == 3
    with pytest.raises(UsageError, match=r"Did you mean 'finetune/ssan_mobilenet_v2'.*`ssan recipes list` shows"):
        read_recipe("finetune/ssan_mobilenet")


QUICK = {"epochs": 1, "batch": 8, "num_frames": 3, "size_px": 32, "crop_px": 32}


@pytest.mark.slow
def test_a_training_takes_a_recipe_by_its_name_and_its_keys(order_set: Path, tmp_path: Path) -> None:
    done = package.train("demo/tsn_tiny", order_set, tmp_path / "a", changes=QUICK, device="cpu", quiet=True)
    model = package.load_model(tmp_path / "a")
    assert (model.recipe.model, model.recipe.epochs, model.recipe.lr) == ("tsn_tiny", 1, 0.003)
    val = package.read_dataset(order_set, "val")
    answers = model.predict(val)
    right = [answer.label == sample.label for answer, sample in zip(answers, val, strict=True)]
    assert done["val_top1"] == pytest.approx(sum(right) / len(val))
    keys = read_recipe("demo/tsn_tiny", [f"{key}={value}" for key, value in QUICK.items()])
    lists = (package.read_dataset(order_set, "train"), val)
    for number, recipe in enumerate((keys, keys.model_dump())):
        package.train(recipe, lists, tmp_path / str(number), device="cpu", quiet=True)
        assert package.load_model(tmp_path / str(number)).hash == model.hash


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("demo/ssan", {}, "no such recipe"),
        ("demo/ssan_tiny", {"epoch": 3}, "unknown key 'epoch'. Did you mean 'epochs'"),
        ({"model": "ssan_tiny", "epochs": 0}, {}, "epochs is 0"),
        (["demo/ssan_tiny"], {}, "the recipe is a list; expected a name, a file, or a mapping"),
        ("table7/gru_ssa", {}, "a joint space of texts and videos; give it to `ssan retrieval train`"),
    ],
)
def test_a_recipe_that_is_none_is_refused_before_the_work(
    recipe: Any, changes: dict[str, Any], message: str, order_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        package.train(recipe, order_set, tmp_path / "run", changes=changes, device="cpu", quiet=True)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------- videos and data sets


def test_frames_of_a_file_are_had_by_number_and_by_second(paths: list[str]) -> None:
    frames = torch.from_numpy(frames_of(paths[0])).permute(0, 3, 1, 2)
    with package.open_video(paths[0]) as video:
        clip = video.read([4, 0, 4])
        assert torch.equal(clip.frames, frames[[4, 0, 4]])
        first, stop = video.span(0.5, 1.0)
        assert (first, stop) == (6, 12)  # at 12 frames a second
        clip = video.read(range(first, stop))
    assert torch.equal(clip.frames, frames[6:12])
    assert all(0.5 <= time < 1.0 for time in clip.times_seconds)


def test_a_data_set_is_read_with_the_options_of_its_reader(order_set: Path, paths: list[str], tmp_path: Path) -> None:
    val = package.read_dataset(str(order_set), "val")
    assert val.classes == package.read_dataset(order_set).classes
    assert [sample.split for sample in val] == ["val"] * len(val) != []
    for name in ("walk", "wave"):
        (tmp_path / name).mkdir()
        for person in ("ada", "eva"):
            (tmp_path / name / f"{person}_{name}.webm").write_bytes(Path(paths[0]).read_bytes())
    found = package.read_dataset(tmp_path, "val", val_groups="^([a-z]+)_=eva")
    assert [sample.id for sample in found] == ["walk/eva_walk", "wave/eva_wave"]
    with pytest.raises(UsageError, match="does not take 'val_group'"):
        package.read_dataset(tmp_path, "val", format="folder", val_group="x")


# ----------------------------------------------------------------------------------------------------- the page


@pytest.mark.slow
def test_every_code_block_of_the_page_runs(order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").symlink_to(order_set)
    (tmp_path / "inbox").symlink_to(next(order_set.rglob("*.webm")).parent)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["model"].classes == package.read_dataset(order_set).classes


def test_links_of_the_page_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in target]
    assert len(targets) >= 5
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
    assert json.loads((ROOT / "examples" / "first_look.ipynb").read_text(encoding="utf-8"))["nbformat"] == 4
