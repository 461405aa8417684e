"""A recipe says everything, refuses what it does not know with file and line, and every shipped one builds."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from ssan.errors import UsageError
from ssan.models.catalogue import specification, without_memory
from ssan.recipe import (
    MAX_RECIPE_BYTES,
    Recipe,
    make_recipe,
    read_recipe,
    recipe_from_json,
    recipe_keys,
    write_recipe,
)
from ssan.recognition.train import complete
from ssan.recognition.trainable import new_parameters
from ssan.shipped import FOLDER, JOINT, shipped
from ssan.weights.classifier_file import build_from, preprocess_of

NUM_CLASSES = 5
PROMISED_KEYS = {
    "epochs", "batch", "lr", "optimizer", "schedule", "num_frames", "size_px", "crop_px", "resize", "crop", "seed",
    "freeze_bn", "backbone_lr_scale", "checkpoint_every_steps", "precision", "accumulate", "clip_norm", "dropout",
    "weight_decay", "flip",
}  # fmt: skip


def _read(folder: Path, text: str | bytes, *overrides: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recipe(path, overrides)


def _refused(folder: Path, text: str | bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        _read(folder, text)
    assert caught.value.path == str(folder / "r.yaml")
    return caught.value


def _override_refused(*overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        make_recipe({}, overrides)
    return caught.value.message


def _changed(recipe: Recipe) -> dict[str, Any]:
    default = Recipe().model_dump()
    return {key: value for key, value in recipe.model_dump().items() if value != default[key]}


# ------------------------------------------------------------------------------------------------------- defaults


def test_the_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.model, recipe.num_frames) == ("ssan_r50", 8)
    assert (recipe.optimizer, recipe.lr, recipe.batch, recipe.epochs) == ("sgd", 0.01, 64, 80)
    assert (recipe.momentum, recipe.weight_decay, recipe.dropout) == (0.9, 5e-4, 0.5)
    assert (recipe.warmup_epochs, recipe.schedule, recipe.gamma) == (1.0, "plateau", 0.1)
    assert (recipe.resize, recipe.crop, recipe.flip) == ("square", "multi_scale", "swap")


def test_the_default_recipe_completed_resizes_to_256_and_crops_224() -> None:
    recipe = complete(Recipe())
    assert (recipe.size_px, recipe.crop_px) == (256, 224)


def test_a_network_that_is_whole_by_itself_brings_its_frames_where_the_recipe_says_nothing() -> None:
    def frames(**values: object) -> tuple[object, ...]:
        recipe = complete(make_recipe({"model": "i3d", **values}))
        keys = ("num_frames", "sampling", "stride", "frames_per_second", "resize", "size_px", "crop_px")
        return tuple(getattr(recipe, key) for key in keys)

    assert frames() == (64, "dense", 1, 25.0, "short_side", 256, 224)
    assert frames(num_frames=16, stride=4) == (16, "dense", 4, 25.0, "short_side", 256, 224)
    assert frames(frames_per_second=None, resize="square") == (64, "dense", 1, None, "square", 256, 224)
    assert frames(sampling="segment", num_frames=8) == (8, "segment", 1, None, "short_side", 256, 224)
    assert complete(make_recipe({"model": "tsn_r18"})).num_frames == 8


def test_a_rate_is_of_a_dense_window_alone() -> None:
    assert make_recipe({"sampling": "dense", "frames_per_second": 12.5}).frames_per_second == 12.5
    with pytest.raises(UsageError, match=r"frames_per_second 25\.0 is of a dense window, and sampling is segment"):
        make_recipe({"frames_per_second": 25})
    for value in (0, -1, 1001, "fast", True):
        with pytest.raises(UsageError, match="frames_per_second is"):
            make_recipe({"sampling": "dense", "frames_per_second": value})


def test_the_rate_is_stated_for_the_papers_batch() -> None:
    assert (Recipe().lr_reference_batch, Recipe().lr_rule) == (64, "linear")


def test_every_key_has_a_description() -> None:
    assert all(field.description for field in Recipe.model_fields.values())


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().lr = 1.0  # type: ignore[misc]


def test_all_promised_keys_exist() -> None:
    assert set(recipe_keys()) >= PROMISED_KEYS


# ------------------------------------------------------------------------------------------------------ from YAML


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    assert _read(tmp_path, "") == Recipe()
    assert _read(tmp_path, "# nothing\n") == Recipe()


def test_what_the_file_says_counts_and_the_rest_is_default(tmp_path: Path) -> None:
    recipe = _read(tmp_path, "epochs: 3\nlr: 1e-3\nlayer:\n  channel_branch: false\nmilestones: [2, 4]\n")
    assert _changed(recipe) == {"epochs": 3, "lr": 0.001, "layer": {"channel_branch": False}, "milestones": [2, 4]}


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    assert _changed(_read(tmp_path, b"\xef\xbb\xbfepochs: 3\r\nbatch: 4\r\n")) == {"epochs": 3, "batch": 4}


def test_words_that_yaml_takes_for_something_else_are_words(tmp_path: Path) -> None:
    assert _changed(_read(tmp_path, "flip: off\nprecision: 16\n")) == {"flip": "off", "precision": "16"}
    assert _read(tmp_path, "precision: 32\n") == Recipe()


def test_an_unknown_key_is_named_with_file_line_and_suggestion(tmp_path: Path) -> None:
    error = _refused(tmp_path, "# about\nlr: 0.1\n\nepoch: 3\n")
    assert error.line == 4
    assert "unknown key 'epoch'. Did you mean 'epochs'? Known: accumulate, " in error.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "many"),
        ("epochs", "2.5"),
        ("epochs", ""),
        ("epochs", "yes"),
        ("lr", "fast"),
        ("lr", "true"),
        ("lr", "[0.1]"),
        ("freeze_bn", "perhaps"),
        ("freeze_bn", "1.5"),
        ("new_norm_lr_scale", "0"),
        ("frozen_epochs", "true"),
        ("frozen_stages", "res2"),
        ("class_weights", "equal"),
        ("balance", "true"),
        ("compile", "perhaps"),
        ("checkpoint_gradients", "3.5"),
        ("sync_bn", "gpu"),
        ("ema", "true"),
        ("parameter_groups", "tms"),
        ("schedule", "plateu"),
        ("precision", "8"),
        ("flip", "on"),
        ("model", "3"),
        ("layer", "ssa"),
        ("layer", "{scale: [1]}"),
        ("milestones", "4"),
        ("milestones", "[a]"),
        ("places", "[res2]"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_line(tmp_path: Path, key: str, value: str) -> None:
    error = _refused(tmp_path, f"seed: 1\nmomentum: 0.5\n{key}: {value}\n")
    assert error.line == 3
    assert error.message.startswith((f"{key} is ", f"{key}.scale is ", f"{key}.0 is "))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch", -1),
        ("num_frames", 0),
        ("crop_px", 0),
        ("lr", 0),
        ("lr", ".inf"),
        ("lr", ".nan"),
        ("warmup_epochs", ".inf"),
        ("warmup_epochs", -1),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("momentum", 1),
        ("weight_decay", -1e-4),
        ("weight_decay", ".nan"),
        ("gamma", 1.0),
        ("gamma", 0),
        ("clip_norm", 0),
        ("ema", 0),
        ("ema", 1),
        ("ema", ".nan"),
        ("backbone_lr_scale", -1),
        ("seed", -1),
        ("checkpoint_every_steps", 0),
        ("milestones", "[0]"),
        ("patience", 0),
    ],
)
def test_a_value_out_of_range_is_named_with_its_line(tmp_path: Path, key: str, value: object) -> None:
    error = _refused(tmp_path, f"# about\n{key}: {value}\n")
    assert error.line == 2
    assert error.message.startswith((f"{key} is ", f"{key}.0 is "))


@pytest.mark.parametrize(
    "text",
    [
        f"epochs: 0x{'f' * 5000}",
        f"epochs: {'1:' * 9}1",
        f"epochs: {'1:' * 30}1",
        f"lr: {'1:' * 300}1.5",
        f"milestones: [0x{'f' * 5000}]",
        "seed: 9223372036854775808",
        "num_frames: 5000",
        "crop_px: 10000",
        "num_frames: 4000\nsize_px: 4000",
        "batch: 10000000000",
    ],
)
def test_a_number_beyond_any_run_is_refused_in_a_line_of_moderate_length(tmp_path: Path, text: str) -> None:
    error = _refused(tmp_path, text + "\n")
    assert len(error.message) < 1000
    assert "\n" not in error.message


@pytest.mark.parametrize("value", ["3", "res2", "[3]", "[[res2]]", "{a: 1}", "2001-01-01"])
def test_stages_are_a_list_of_words(tmp_path: Path, value: str) -> None:
    assert "stages must be a list of words" in _refused(tmp_path, f"places: {{stages: {value}}}\n").message


@pytest.mark.parametrize(
    "places", ["{every: yes}", "{every: x}", "{slot: 3}", "{other: {a: 1}}", "{other: 2001-01-01}"]
)
def test_a_place_of_the_wrong_kind_is_refused(tmp_path: Path, places: str) -> None:
    assert "must be a" in _refused(tmp_path, f"places: {places}\n").message


def test_the_bounds_themselves_are_in_range(tmp_path: Path) -> None:
    _read(tmp_path, "dropout: 0\nmomentum: 0\nweight_decay: 0\nwarmup_epochs: 0\nbackbone_lr_scale: 0\nseed: 0\n")


def test_a_wrong_option_of_a_layer_is_named_with_its_own_line(tmp_path: Path) -> None:
    error = _refused(tmp_path, "layer:\n  channel_branch: true\n  scale:\n    - 1\n")
    assert error.line == 3
    assert error.message.startswith("layer.scale is [1]")


def test_a_repeated_key_is_refused_with_both_lines(tmp_path: Path) -> None:
    error = _refused(tmp_path, "epochs: 2\n\nepochs: 3\n")
    assert error.line == 3
    assert "key 'epochs' stands twice (first in line 1)" in error.message


def test_a_repeated_option_of_a_layer_is_refused_with_both_lines(tmp_path: Path) -> None:
    error = _refused(tmp_path, "layer:\n  output: plain\n  output: residual\n")
    assert error.line == 3
    assert "key 'layer.output' stands twice (first in line 2)" in error.message


def test_an_alias_is_refused_with_its_line(tmp_path: Path) -> None:
    error = _refused(tmp_path, "epochs: &n 3\nbatch: *n\n")
    assert error.line == 2
    assert "aliases are not allowed" in error.message


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    assert _refused(tmp_path, "\n".join(rows)).line == 2


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [{made}]",
        "!!python/object/new:os.mkdir [{made}]",
        "!!python/object/apply:subprocess.check_call [[mkdir, {made}]]",
        "!!python/name:os.mkdir",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!own thing",
    ],
)
def test_yaml_objects_are_refused_without_being_made(tmp_path: Path, value: str) -> None:
    made = tmp_path / "made"
    error = _refused(tmp_path, f"epochs: 3\nmodel: {value.format(made=made)}\n")
    assert error.line == 2
    assert not made.exists()


@pytest.mark.parametrize("text", ["[" * 5000, "{a: &a [1], b: [*a, *a]}", "0" * 20_000])
def test_an_override_that_takes_long_to_read_is_refused_at_once(text: str) -> None:
    assert len(_override_refused(f"places.x={text}")) < 1000


def test_objects_in_an_override_are_refused_without_being_made(tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert "is not a value" in _override_refused(f"model=!!python/object/apply:os.mkdir [{made}]")
    assert not made.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epochs: [1\n", 2),
        ("epochs: 3\n  batch: 4\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("? [1]\n: 2\n", 1),
        ("- epochs\n", 1),
        ("epochs\n", 1),
        ("epochs: 2024-13-45\n", None),
        ("epochs: !!bool maybe\n", None),
        ("epochs: !!int ''\n", None),
        ("epochs: !!timestamp x\n", None),
        (b"model: \xff\n", None),
        (b"model: \x00\n", None),
        ("seed: 1\nepochs: " + "[" * 100_000 + "\n", 2),
    ],
)
def test_text_that_is_no_recipe_is_an_error_of_the_file(tmp_path: Path, text: str | bytes, line: int | None) -> None:
    error = _refused(tmp_path, text)
    if line is not None:
        assert error.line == line


def test_no_recipe_there_says_where_to_look(tmp_path: Path) -> None:
    for path in (tmp_path / "r.yaml", tmp_path):
        with pytest.raises(UsageError, match="ssan recipes list") as caught:
            read_recipe(path)
        assert caught.value.path == str(path)


def test_a_huge_file_is_no_recipe(tmp_path: Path) -> None:
    assert "not a recipe" in _refused(tmp_path, b"#" * (MAX_RECIPE_BYTES + 1)).message


# ------------------------------------------------------------------------------------------------------ overrides


def test_an_override_wins_over_the_file_and_the_last_one_over_the_first(tmp_path: Path) -> None:
    recipe = _read(tmp_path, "epochs: 3\nbatch: 8\n", "epochs=5", "epochs=7")
    assert _changed(recipe) == {"epochs": 7, "batch": 8}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("lr=1e-3", 0.001),
        ("lr=1E-3", 0.001),
        ("lr=.5", 0.5),
        ("lr=1", 1.0),
        ("epochs=12", 12),
        ("optimizer=adamw", "adamw"),
        ("schedule=cosine", "cosine"),
        ("num_frames=16", 16),
        ("size_px=128", 128),
        ("crop_px=112", 112),
        ("resize=short_side", "short_side"),
        ("crop=center", "center"),
        ("seed=3", 3),
        ("freeze_bn=true", True),
        ("freeze_bn=backbone", "backbone"),
        ("new_norm_lr_scale=10", 10.0),
        ("new_norm_weight_decay=0", 0.0),
        ("frozen_epochs=2", 2),
        ("frozen_stages=1", 1),
        ("class_weights=balanced", "balanced"),
        ("balance=classes", "classes"),
        ("backbone_lr_scale=0.1", 0.1),
        ("checkpoint_every_steps=10", 10),
        ("precision=16", "16"),
        ("precision=bf16", "bf16"),
        ("accumulate=2", 2),
        ("clip_norm=20", 20.0),
        ("ema=0.999", 0.999),
        ("parameter_groups=tsm", "tsm"),
        ("compile=true", True),
        ("checkpoint_gradients=true", True),
        ("sync_bn=true", True),
        ("dropout=0", 0.0),
        ("weight_decay=1e-4", 1e-4),
        ("flip=off", "off"),
        ("flip=skip_directed", "skip_directed"),
        ("batch=32", 32),
        ("milestones=[20,40]", [20, 40]),
        ("lr_rule=none", "none"),
        ("init=a=b.pth", "a=b.pth"),
    ],
)
def test_an_override_sets_its_key(override: str, value: object) -> None:
    key = override.partition("=")[0]
    recipe = make_recipe({}, [override])
    assert _changed(recipe) == {key: value}
    assert type(getattr(recipe, key)) is type(value)


def test_nothing_after_the_equals_sign_is_nothing() -> None:
    assert make_recipe({"init": "a.pth"}, ["init="]).init is None


def test_an_override_reaches_into_a_layer_and_leaves_its_other_options(tmp_path: Path) -> None:
    recipe = _read(tmp_path, "layer:\n  output: plain\n  scale: 2\n", "layer.scale=1e-3", "layer.channel_branch=false")
    assert recipe.layer == {"output": "plain", "scale": 0.001, "channel_branch": False}


def test_overrides_reach_into_places_and_backbone() -> None:
    recipe = make_recipe({}, ["places.stages=[res2]", "places.every=2", "backbone.stride_in=conv1"])
    assert (recipe.places, recipe.backbone) == ({"stages": ["res2"], "every": 2}, {"stride_in": "conv1"})


def test_an_override_does_not_change_the_values_it_is_given() -> None:
    values: dict[str, Any] = {"layer": {"scale": 2}}
    make_recipe(values, ["layer.scale=3", "epochs=3"])
    assert values == {"layer": {"scale": 2}}


def test_an_unknown_key_in_an_override_is_named_with_a_suggestion() -> None:
    assert "'epoch=3': unknown key 'epoch'. Did you mean 'epochs'?" in _override_refused("epoch=3")
    assert "unknown key 'layers'. Did you mean 'layer'?" in _override_refused("layers.scale=3")


@pytest.mark.parametrize(
    "override", ["epochs=0", "epochs=many", "epochs=yes", "lr=inf", "lr=nan", "lr=", "layer.x=[1]"]
)
def test_a_wrong_override_is_quoted(override: str) -> None:
    key = override.partition("=")[0]
    assert f"{override!r}: {key} is " in _override_refused("seed=1", override)


def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, "epochs: 3\n", "epochs=0")
    assert (caught.value.path, caught.value.line) == (None, None)


def test_a_wrong_file_is_not_excused_by_a_right_override(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, "epochs: 3\nbatch: none\n", "epochs=5")
    assert caught.value.line == 2


def test_an_override_without_equals_sign_says_how_to_write_one() -> None:
    assert "write key=value, such as epochs=20" in _override_refused("epochs")


def test_an_override_that_is_no_value_is_quoted() -> None:
    assert "'[1' is not a value" in _override_refused("epochs=[1")
    assert "is not a value" in _override_refused("epochs=!!bool maybe")


# ------------------------------------------------------------------------------------------------- write and read


def test_a_written_recipe_has_every_key_and_reads_back_the_same(tmp_path: Path) -> None:
    recipe = make_recipe(
        {"layer": {"scale": 0.5, "output": "plain"}, "places": {"stages": ["res2"]}, "milestones": [3, 5]},
        ["flip=off", "precision=16", "init=grün.pth", "lr=1e-7", "clip_norm=20", "freeze_bn=true"],
    )
    text = write_recipe(recipe)
    assert list(yaml.safe_load(text)) == recipe_keys()
    assert _read(tmp_path, text) == recipe
    assert write_recipe(_read(tmp_path, text)) == text


def test_a_recipe_stored_as_json_reads_back_the_same() -> None:
    recipe = make_recipe({}, ["layer.scale=0.5", "flip=off"])
    assert recipe_from_json(recipe.model_dump_json(), path="m.safetensors") == recipe


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_stored_recipe_that_is_none_is_a_wrong_model(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_from_json(text, path="m.safetensors")
    assert (caught.value.path, caught.value.code) == ("m.safetensors", "wrong_model")


# ------------------------------------------------------------------------------------------------ shipped recipes


def test_every_yaml_file_in_the_package_is_a_shipped_recipe() -> None:
    files = [os.path.join(home, name) for home, _, names in os.walk(FOLDER) for name in names]
    assert sorted(map(str, shipped().values())) == sorted(files)
    assert {"demo/ssan_tiny", "demo/tsn_tiny"} <= set(shipped())


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_begins_by_saying_what_it_is_for(name: str) -> None:
    first = shipped()[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


CLASSIFIERS = [name for name in shipped() if not name.startswith(JOINT)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_shipped_recipe_loads_completes_and_builds(name: str) -> None:
    recipe = complete(read_recipe(shipped()[name]))
    # Without memory for the weights: a test of the build, not of the machine.
    with without_memory():
        model = build_from(recipe, NUM_CLASSES)
    assert model.fc.out_features == (NUM_CLASSES if specification(recipe.model).consensus is None else 256)
    preprocess = preprocess_of(recipe)
    assert preprocess.size_px >= preprocess.crop_px >= 32
    if specification(recipe.model).layer not in (None, "temporal_shift"):
        assert any(not key.startswith("fc.") for key in new_parameters(model))


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("demo/")])
def test_a_demo_recipe_scores_clips(name: str) -> None:
    recipe = complete(read_recipe(shipped()[name]))
    model = build_from(recipe, NUM_CLASSES).eval()
    clip = torch.zeros(2, recipe.num_frames, 3, recipe.crop_px, recipe.crop_px, dtype=torch.uint8)
    with torch.inference_mode():
        assert model(clip).shape == (2, NUM_CLASSES)


def test_a_completed_recipe_completes_to_itself() -> None:
    for name in CLASSIFIERS:
        recipe = complete(read_recipe(shipped()[name]))
        assert complete(recipe) == recipe


def test_a_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(UsageError, match=r"size_px is 100, smaller than crop_px, 112"):
        complete(make_recipe({}, ["size_px=100", "crop_px=112"]))


@pytest.mark.parametrize(
    "values", [{"num_frames": 4096}, {"num_frames": 8, "crop_px": 8192}, {"num_frames": 1, "crop_px": 8000}]
)
def test_a_clip_beyond_any_memory_is_refused_before_any_work(values: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"more than a clip can have|size_px is 9143"):
        complete(make_recipe({"model": "tsn_r18", **values}))
    assert complete(make_recipe({"model": "tsn_r18", "num_frames": 64, "size_px": 512})).num_frames == 64


def test_rare_classes_are_made_up_for_once() -> None:
    assert "class_weights=balanced and balance=classes both make up" in _override_refused(
        "class_weights=balanced", "balance=classes"
    )
