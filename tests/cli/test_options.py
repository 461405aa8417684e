"""Options that commands share: the same names everywhere, and the same data whichever way they are named."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from ssan.cli import options
from ssan.cli.main import app, status
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.recipe import Recipe, RetrievalRecipe, recipe_keys

HOW = ["--format", "--annotations", "--videos", "--reader"]
WHICH = ["--splits", "--val-groups", "--val-fraction", "--fold", "--groups"]


@cache
def flags(*words: str) -> dict[str, Any]:
    """The options of a command, by name."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return {name: parameter for parameter in command.params for name in parameter.opts}


VERBS = [["train"], ["eval"], ["extract"], ["data", "list"], ["data", "check"], ["data", "describe"]]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_that_reads_labelled_videos_has_the_same_options_of_data(words: list[str]) -> None:
    known, first = flags(*words), flags("train")
    assert set(known) >= {"--data", *HOW, *WHICH}
    for name in (*HOW, *WHICH):
        assert known[name].help == first[name].help
        assert known[name].default == first[name].default


@pytest.mark.parametrize("word", ["train", "eval"])
def test_verbs_of_captions_have_those_that_say_where_captions_are(word: str) -> None:
    known = flags("retrieval", word)
    assert set(known) >= {"--captions", *HOW}
    assert not {"--data", *WHICH} & set(known)


def test_a_table_is_read_by_the_same_options_whose_format_is_its_own_by_default() -> None:
    known, first = flags("reproduce"), flags("train")
    assert set(known) >= {"--data", "--captions", *HOW, *WHICH}
    for name in {*HOW, *WHICH} - {"--format"}:
        assert (known[name].help, known[name].default) == (first[name].help, first[name].default)
    assert known["--format"].default == ""


def test_of_a_table_data_and_captions_are_each_a_source_or_none() -> None:
    seen: list[Any] = []

    def verb(*, labelled: DataSource | None, captions: DataSource | None, last: bool) -> int:
        seen.append((labelled, captions, last))
        return 5

    given: dict[str, Any] = dict.fromkeys(["data", "captions", *(name[2:].replace("-", "_") for name in WHICH)])
    given |= {"annotations": None, "videos": "v", "format": "", "reader": ["a=b"], "last": True}
    read = options.reads_data_of_a_table(verb)
    assert read(**given | {"data": "root", "val_fraction": "0.2"}) == 5
    assert read(**given | {"captions": "c.csv"}) == 5
    first = DataSource("root", "", {"videos": "v", "val_fraction": "0.2", "a": "b"})
    assert seen == [(first, None, True), (None, DataSource("c.csv", "", {"videos": "v", "a": "b"}), True)]


def test_the_options_of_data_become_one_source() -> None:
    seen: list[Any] = []

    def verb(name: str, *, source: DataSource, last: bool = False) -> int:
        seen.append((name, source, last))
        return 5

    nothing = dict.fromkeys(["annotations", "videos", "splits", "val_groups", "val_fraction", "fold", "groups"])
    given = {**nothing, "format": "csv", "videos": "v", "fold": "1/5", "reader": ["kind=video", "a=b=c"]}
    assert options.reads_data(verb)(name="n", last=True, data="root", **given) == 5
    options.reads_data_as_argument(verb)(name="n", argument="root", data=None, **given)
    options.reads_data_as_argument(verb)(name="n", argument=None, data="root", **given)
    expected = DataSource("root", "csv", {"videos": "v", "fold": "1/5", "kind": "video", "a": "b=c"})
    assert seen == [("n", expected, True), ("n", expected, False), ("n", expected, False)]
    with pytest.raises(UsageError, match=r"fold is given already, as '1/5'"):
        options.reads_data(verb)(name="n", data="root", **{**given, "reader": ["fold=2"]})
    captions = {"format": "auto", "annotations": None, "videos": None, "reader": None}
    options.reads_captions_if_any(verb)(name="n", captions=None, **captions)
    assert seen[-1] == ("n", None, False)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["list", "check", "describe"])
def test_data_may_be_the_first_argument(ssan: Any, order_set: Path, verb: str) -> None:
    more = ["--json", "--split", "val", *(["--again"] if verb == "check" else [])]
    by_option, by_argument = ssan("data", verb, "--data", order_set, *more), ssan("data", verb, order_set, *more)
    assert by_option.code == by_argument.code == 0
    without_time = [re.sub(r'"check_seconds": [\d.]+', "", answer.out) for answer in (by_option, by_argument)]
    assert without_time[0] == without_time[1]
    both, neither = ssan("data", verb, order_set, "--data", order_set), ssan("data", verb)
    assert (both.code, neither.code) == (2, 2)
    assert "given twice" in both.err
    assert "no data are given" in neither.err


@pytest.mark.parametrize("verb", ["resize", "frames", "flow"])
def test_what_is_converted_may_be_an_option(ssan: Any, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    seen: list[tuple[str, str]] = []

    def convert(source: str, dest: str, *_: object, **__: object) -> None:
        seen.append((source, dest))
        raise UsageError("far enough")

    monkeypatch.setattr("ssan.convert.convert.convert", convert)
    ssan("data", verb, "videos", "copies")
    ssan("data", verb, "--data", "videos", "copies")
    assert seen == [("videos", "copies")] * 2
    twice = ssan("data", verb, "videos", "copies", "--data", "videos")
    assert (twice.code, "given twice" in twice.err) == (2, True)
    once = ssan("data", verb, "videos")
    assert (once.code, "the folder for the copies" in once.err) == (2, True)
    assert len(seen) == 2


def test_predict_reads_with_as_many_workers_as_told_and_draws_nothing(
    ssan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def predict_each(
        labeller: Any, paths: list[str], *, top: int, threshold: float | None, workers: int
    ) -> Iterator[dict[str, Any]]:
        seen.append(workers)
        yield from ({"path": path, "ok": True, "top": []} for path in paths)

    monkeypatch.setattr("ssan.recognition.predict.predict_each", predict_each)
    monkeypatch.setattr("ssan.weights.open_model.open_classifier", lambda *_: SimpleNamespace(threshold=None, name="m"))
    assert [line["path"] for line in ssan("predict", "m", "a", "b", "--workers", 2, "--json").lines] == ["a", "b"]
    for words in (["a", "--workers", 1], ["a", "b", "--workers", 0], ["a"], ["a", "b"]):
        assert ssan("predict", "m", *words, "--json").code == 0
    assert seen == [2, 1, 0, 0, options.choose_workers(None)]
    assert "No such option: --seed" in ssan("predict", "m", "a", "--seed", 1).err


# ---------------------------------------------------------------------------------------------- keys of the recipe


def keys_that_are_no_options(recipe: Any, *words: str) -> list[str]:
    return [key for key in recipe_keys(recipe) if f"--{key.replace('_', '-')}" not in flags(*words)]


@pytest.mark.slow
@pytest.mark.parametrize("key", keys_that_are_no_options(Recipe, "train"))
def test_a_key_of_the_recipe_given_as_an_option_is_told_how_it_is_written(ssan: Any, key: str) -> None:
    for option in (f"--{key}", f"--{key.replace('_', '-')}"):
        for words in ([option, "3"], [f"{option}=3"]):
            answer = ssan("train", "--model", "tsn_tiny", "--data", "d", "--out", "o", *words)
            assert answer.code == 2
            assert f"write `{key}=3`" in answer.err
            assert answer.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("key", keys_that_are_no_options(RetrievalRecipe, "retrieval", "train"))
def test_so_is_one_of_a_joint_space(ssan: Any, key: str) -> None:
    answer = ssan("retrieval", "train", "--captions", "c", "--features", "f", "--out", "o", f"--{key}", "3")
    assert (answer.code, f"write `{key}=3`" in answer.err) == (2, True)


def test_a_key_within_a_key_and_one_without_a_value_are_told_too(ssan: Any) -> None:
    common = ["train", "--model", "tsn_tiny", "--data", "d", "--out", "o"]
    assert "write `layer.e=false`" in ssan(*common, "--layer.e", "false").err
    assert "write `freeze_bn=VALUE`" in ssan(*common, "--freeze-bn").err
    assert "write `freeze_bn=VALUE`" in ssan(*common, "--freeze-bn", "--quiet").err
    assert "write" not in ssan(*common, "--epoch-number", "3").err


def test_every_key_is_explained_as_its_field_describes_it(ssan: Any) -> None:
    rows = ssan("recipes", "keys", "--json").json["keys"]
    assert [row["key"] for row in rows] == [*recipe_keys(Recipe), *recipe_keys(RetrievalRecipe)]
    for row in rows:
        kind = Recipe if row["command"] == "ssan train" else RetrievalRecipe
        field = kind.model_fields[row["key"]]
        assert row["about"] == field.description
        assert row["default"] == field.default
    assert [row["command"] for row in rows].count("ssan train") == len(recipe_keys(Recipe))
    shown = ssan("recipes", "keys").out.splitlines()
    assert len(shown) == len(rows) + 2


def test_a_key_is_explained_with_the_values_it_takes(ssan: Any) -> None:
    for asked in ("num_frames", "num_frames=16"):
        (row,) = ssan("recipes", "keys", asked, "--json").json["keys"]
        assert (row["command"], row["values"], row["default"]) == ("ssan train", "whole number from 1 to 4096", 8)
    (row,) = ssan("recipes", "keys", "resize", "--json").json["keys"]
    assert row["values"] == "square, short_side"
    (row,) = ssan("recipes", "keys", "ema", "--json").json["keys"]
    assert row["values"] == "number above 0 below 1 or null"
    (row,) = ssan("recipes", "keys", "layer.channel_branch", "--json").json["keys"]
    assert row["values"] == "a mapping, set as KEY.NAME=VALUE"
    assert [row["command"] for row in ssan("recipes", "keys", "lr", "--json").json["keys"]] == [
        "ssan train", "ssan retrieval train",
    ]  # fmt: skip
    assert ssan("recipes", "keys", "epochs").out.splitlines()[:2] == [
        "ssan train ... KEY=VALUE",
        "  epochs  passes over the training videos (whole number from 1; 80 by default)",
    ]


def test_a_model_is_set_into_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Recipe] = []

    def train(recipe: Recipe, *_: object, **__: object) -> None:
        chosen.append(recipe)
        raise UsageError("far enough")

    monkeypatch.setattr("ssan.recognition.train.train", train)
    common = ["--recipe", "demo/ssan_tiny", "--data", "d", "--out", "o"]
    assert status(["train", *common]) == 2
    assert status(["train", "--model", "tsm_tiny", *common]) == 2
    assert status(["train", "--model", "tsm_tiny", *common, "model=tsn_tiny", "epochs=7"]) == 2
    plain, with_model, overridden = chosen
    assert plain.model == "ssan_tiny"
    assert with_model == plain.model_copy(update={"model": "tsm_tiny"})
    assert overridden == plain.model_copy(update={"model": "tsn_tiny", "epochs": 7})
