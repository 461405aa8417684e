"""Recipes, lists and weights from elsewhere: whatever is in them, they are read, or refused in one line."""

import builtins
import copy
import csv
import gzip
import io
import json
import os
import pickle
import string
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, configuration, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssan.datasets import Samples, detect, read
from ssan.errors import CODES, SsanError
from ssan.models.catalogue import BACKBONES, MODELS
from ssan.models.classifier import Classifier
from ssan.recipe import Recipe, make_recipe, read_recipe, recipe_keys, write_recipe
from ssan.recognition.train import complete
from ssan.retrieval.text import Vocabulary
from ssan.retrieval.word_vectors import read_word_vectors
from ssan.weights.classifier_file import build_from, load_labeller, save_labeller
from ssan.weights.state_dict import load_backbone, read_state_dict

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "ssan-hypothesis")
SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much)


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(SLOW)
    )


def check_refusal(error: SsanError) -> None:
    """An error of the family speaks in one line, of moderate length, under a known code."""
    assert error.code is None or error.code in CODES
    assert error.message.strip()
    assert len(error.message.splitlines()) == 1, error.message
    assert len(error.message) < 2000
    assert str(error)


@contextmanager
def nothing_is_opened_outside(*roots: Path) -> Iterator[None]:
    """Meanwhile, no file or folder is opened that is not below one of the roots."""
    homes = [str(root.resolve()) for root in roots]

    def watched(real: Any) -> Any:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(path, int):
                where = os.path.abspath(os.fspath(path))
                assert any(where == home or where.startswith(home + os.sep) for home in homes), where
            return real(path, *args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((builtins, "open"), (io, "open"), (os, "scandir"), (os, "listdir")):
            patch.setattr(module, name, watched(getattr(module, name)))
        yield


# -------------------------------------------------------------------------------------------------------- recipes

PIECES = [
    *recipe_keys(), *MODELS, ": ", ":", "\n", "\n  ", "\n- ", "- ", ", ", "{", "}", "[", "]", "'", '"', "|", ">", "? ",
    "<<", "&a ", "*a", "!!int ", "!!float ", "!!bool ", "!!binary ", "!!set ", "!!omap ", "!!timestamp ",
    "!!python/tuple ",
    "!!python/object/apply:os.mkdir [{made}]", "!!python/name:os.mkdir", "!x ", "%YAML 1.1\n", "---", "...", "# ", "\t",
    "\0", "\ufeff", "\u2028", "\x85", "~", "null", "yes", "off", "=", ".inf", "-.inf", ".nan", "1e400",
    "0x" + "f" * 5000,
    "9" * 5000, "0b" + "1" * 20_000, "1:" * 300 + "1", "1:" * 300 + "1.5", "2001-01-01", "9999-12-31 23:59:59 -23:59",
    "0001-01-01 00:00:00 +23:59", "-1", "0", "3", "0.5", "32", "layer", "scale", "stages", "res2", "every", "a" * 3000,
]  # fmt: skip
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
VALUES = NESTED | st.sampled_from(
    [
        10**30,
        2**63,
        -1,
        0,
        1,
        8,
        16,
        "res2",
        ["res2"],
        ["res2", 3],
        {"stages": 3},
        {"every": "x"},
        {"stride_in": {"a": 1}},
        {1: 2},
    ]
)


def check_recipe(path: Path, overrides: tuple[str, ...] = ()) -> None:
    """What is read at all is plain, whole and read again as the same; a complete one has a network or a refusal."""
    try:
        recipe = read_recipe(path, overrides)
    except SsanError as error:
        check_refusal(error)
        return
    json.dumps(recipe.model_dump(), allow_nan=False).encode()
    text = write_recipe(recipe)
    again = path.with_suffix(".again")
    again.write_text(text, encoding="utf-8")
    assert read_recipe(again) == recipe


@pytest.mark.slow
@given(content=st.binary(max_size=300))
@fuzz(150)
def test_any_bytes_as_a_recipe_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    check_recipe(tmp_path / "r.yaml")


@pytest.mark.slow
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=14))
@example(["epochs", ": ", "0x" + "f" * 5000])
@example(["lr", ": ", "1:" * 300 + "1.5"])
@example(["epochs", ": ", "1:" * 60_000 + "1"])
@example(["places", ": ", "{", "stages", ": ", "3", "}"])
@example(["places", ": ", "{", "every", ": ", "2001-01-01", "}"])
@fuzz(500)
def test_any_yaml_as_a_recipe_is_read_or_refused_and_makes_no_objects(tmp_path: Path, pieces: list[str]) -> None:
    made = tmp_path / "made"
    text = "".join(pieces).replace("{made}", str(made))
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    check_recipe(tmp_path / "r.yaml")
    assert not made.exists()


@pytest.mark.slow
@given(values=st.dictionaries(st.sampled_from([*recipe_keys(), "epoch", "a\nb"]), VALUES, max_size=5))
@fuzz(300)
def test_any_values_of_a_recipes_keys_are_taken_or_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    check_recipe(tmp_path / "r.yaml")


KEYS = st.sampled_from(
    [*recipe_keys(), "layer.scale", "layer.a\nb", "places.every", "places.stages", "backbone.x", "", "."]
)


@pytest.mark.slow
@given(
    overrides=st.lists(
        st.tuples(KEYS, st.text(max_size=12) | st.lists(st.sampled_from(PIECES), max_size=5).map("".join)), max_size=3
    )
)
@example([("layer.x", "[" * 50_000)])
@example([("layer.x", "{a: &a [1, 1], b: [*a, *a]}")])
@fuzz(400)
def test_any_override_is_taken_or_refused(tmp_path: Path, overrides: list[tuple[str, str]]) -> None:
    made = tmp_path / "made"
    words = tuple(f"{key}={text}".replace("{made}", str(made)) for key, text in overrides)
    (tmp_path / "r.yaml").write_text("epochs: 3\n", encoding="utf-8")
    check_recipe(tmp_path / "r.yaml", words)
    assert not made.exists()


@pytest.mark.slow
@given(word=st.text(max_size=30))
@fuzz(100)
def test_any_word_as_an_override_is_taken_or_refused(word: str) -> None:
    try:
        make_recipe({}, [word])
    except SsanError as error:
        check_refusal(error)


OPTIONS = st.sampled_from(
    [
        "embedding",
        "similarity_scale",
        "position_branch",
        "temporal_kernel",
        "output",
        "identity_start",
        "divisor",
        "width",
    ]
)


@pytest.mark.slow
@given(
    model=st.sampled_from(["ssan_tiny", "tsm_tiny", "tsn_tiny", "ssan_r18", "ssan_mobilenet_v2"]),
    layer=st.dictionaries(
        OPTIONS, st.sampled_from([None, True, 0, -1, 3, 10**8, 0.5, 2.5, "sqrt", "plain", "x"]), max_size=2
    ),
    places=st.dictionaries(
        st.sampled_from(["stages", "slot", "every", "other"]),
        st.sampled_from([[], ["res2"], ["res9"], [[1]], "res2", "after_conv1", 0, 1, 2, None, True, 0.5]),
        max_size=2,
    ),
    backbone=st.dictionaries(
        OPTIONS | st.just("stride_in"), st.sampled_from([None, "conv1", "conv3", 1, 64]), max_size=1
    ),
)
@example("ssan_tiny", {"embedding": 2.5}, {}, {})
@fuzz(120)
def test_any_options_of_a_network_build_it_or_are_refused(
    model: str, layer: dict[str, Any], places: dict[str, Any], backbone: dict[str, Any]
) -> None:
    try:
        recipe = complete(make_recipe({"model": model, "layer": layer, "places": places, "backbone": backbone}))
        with torch.device("meta"):
            build_from(recipe, 3)
    except SsanError as error:
        check_refusal(error)


def test_the_aliases_of_a_bomb_are_refused_before_they_are_multiplied(tmp_path: Path) -> None:
    rows = ["layer: &a0 {x: 1}", *(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 200))]
    (tmp_path / "r.yaml").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(SsanError, match="aliases are not allowed"):
        read_recipe(tmp_path / "r.yaml")


# ---------------------------------------------------------------------------------------------------- annotations

CELLS = [
    "a.mp4", "b/c.mp4", "../out.mp4", "../../out.mp4", "/etc/passwd", "..", ".", "", " ", "a\0b.mp4", "a\nb.mp4",
    "\ud800",
    "walk", "Walk", "run, fast", 'say "yes"', "train", "val", "test", "all", "trian", "validation", "1", "-1",
    "9" * 5000, "1.5",
    "\u0661", "x" * 300, "a/../../out.mp4", "./a.mp4", "a//b.mp4", "..\\out.mp4", "b/./c.mp4", "\u202e", "=cmd()",
]  # fmt: skip
COLUMNS = ["path", "label", "split", "id", "num_frames", "caption", "Path", "other", ""]
SPLITS = st.sampled_from(["train", "val", "test", "all"])


def check_list(call: Any, *roots: Path) -> None:
    """A list that is read has its own ids, labels of its classes and paths below its root; no others are opened."""
    try:
        with nothing_is_opened_outside(*roots):
            samples: Samples = call()
    except SsanError as error:
        check_refusal(error)
        return
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        where = os.path.abspath(sample.path)
        assert any(where.startswith(f"{root}{os.sep}") for root in roots)
        assert (sample.label is None) == (sample.label_index is None)
        assert sample.label_index is None or samples.classes[sample.label_index] == sample.label
        json.dumps(sample.as_dict())
    for label in samples.classes:
        label.encode()


def as_table(rows: list[list[str]], delimiter: str, quoting: int, end: str, mark: bytes) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, escapechar="\\", lineterminator=end)  # type: ignore[arg-type]
    writer.writerows(row for row in rows if row != [""])
    return mark + text.getvalue().encode("utf-8", "surrogatepass")


TABLES = st.builds(
    as_table,
    st.tuples(
        st.sampled_from([["path", "label"], ["path", "label", "split"], ["path", "split"]])
        | st.lists(st.sampled_from(COLUMNS), max_size=6),
        st.lists(st.lists(st.sampled_from(CELLS), min_size=2, max_size=3), max_size=6),
    ).map(lambda table: [table[0], *table[1]]),
    st.sampled_from([",", ",", ",", ";", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
)


@pytest.mark.slow
@given(content=TABLES | st.binary(max_size=200), split=SPLITS, order=st.sampled_from(["sorted", "file", "other"]))
@example(b"path,label,num_frames\na.mp4,walk," + b"9" * 5000 + b"\n", "all", "sorted")
@example(b"path,label\na.mp4," + b"x" * 200_000 + b"\n", "all", "sorted")
@example(b"path,path,label\na.mp4,../b.mp4,walk\n", "all", "sorted")
@fuzz(300)
def test_any_csv_file_is_read_or_refused(tmp_path: Path, content: bytes, split: str, order: str) -> None:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (home / "list.csv").write_bytes(content)
    check_list(lambda: read("csv", home / "list.csv", split, class_order=order), home)


@pytest.mark.slow
@given(content=TABLES, root=st.sampled_from(["..", ".", "../..", "sub", "sub/..", ""]))
@fuzz(150)
def test_no_csv_file_leads_out_of_its_folder_however_that_is_spelled(tmp_path: Path, content: bytes, root: str) -> None:
    here = tmp_path / "a" / "b"
    (here / "sub").mkdir(parents=True, exist_ok=True)
    (here / "list.csv").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        top = Path(os.path.abspath(root))
        check_list(
            lambda: read("csv", "list.csv", "all", videos=root or None), *{top, here} if not root else (top, here)
        )


@pytest.mark.slow
@given(content=TABLES | st.binary(max_size=200), split=SPLITS)
@example(b"path,split\nwalk/a.mp4,val\nrun/b.mp4,train\n", "val")
@fuzz(200)
def test_any_table_of_splits_is_followed_or_refused(tmp_path: Path, content: bytes, split: str) -> None:
    home = tmp_path / "home"
    for name in ("walk/a.mp4", "run/b.mp4"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    (tmp_path / "splits.csv").write_bytes(content)
    check_list(lambda: read("folder", home, split, splits=str(tmp_path / "splits.csv")), home, tmp_path)


NAMES = st.sampled_from(
    ["a.mp4", "b.webm", "A.mp4", "c", ".hidden.mp4", "0001.jpg", "x\ny.avi", "-rf.mp4", "d.mp4/e.mp4"]
)
RAW = st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))


@pytest.mark.slow
@given(
    files=st.lists(
        st.tuples(st.sampled_from(["walk", "Walk", "run", "train/walk", "val/run", "other/x", ""]), NAMES), max_size=5
    ),
    raw=st.lists(RAW, max_size=2),
    links=st.lists(st.sampled_from([".", "..", "self", "nowhere", "/", "/dev/zero"]), max_size=2),
    split=SPLITS,
    rule=st.sampled_from([None, "^([a-z]+)=a", "(=", "=", "(a)|(b)=a,b", "^(.)=\n"]),
)
@fuzz(200)
def test_any_folder_of_classes_is_read_or_refused(
    tmp_path: Path, files: list[tuple[str, str]], raw: list[bytes], links: list[str], split: str, rule: str | None
) -> None:
    home = Path(tempfile.mkdtemp(dir=tmp_path))
    for folder, name in files:
        path = home / folder / name
        if not any(part.is_file() for part in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.touch()
    for name in raw:
        path = home / "walk" / os.fsdecode(name)
        if not path.parent.is_file() and not os.path.lexists(path):
            path.parent.mkdir(exist_ok=True)
            path.with_name(path.name + ".mp4").touch()
    for number, target in enumerate(links):
        if target != "/":
            (home / f"link{number}").symlink_to(f"link{number}" if target == "self" else target)
    roots = (home, tmp_path) if ".." in links else (home,)
    check_list(lambda: read("folder", home, split, val_groups=rule), *roots)


IDS = st.sampled_from(
    [1, "1", "2", "../1", "a/b", "..", ".", "", "x" * 300, "a\0", "\ud800", "a\nb", -1, 1.5, None, [1], 10**40, True]
)
CLASS_NAMES = st.sampled_from(
    ["Holding something", "Pushing something", "holding something", "", "\ud800", "x\ny", "\u8d70"]
)
TEMPLATES = st.sampled_from(
    ["Holding [something]", "Pushing [something]", "Eating [something]", "", None, 3, ["x"], "\ud800"]
)
INDICES = st.sampled_from(
    ["0", "1", "2", 0, 1, -1, "x", "", None, 1.5, True, "9" * 5000, "\u0661", "\u00b2", [0], 10**30]
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"id": IDS, "template": TEMPLATES, "label": TEMPLATES, "placeholders": NESTED.map(str)}
    )
    | NESTED.map(str),
    max_size=4,
)
TWO_CLASSES = {"Holding something": "0", "Pushing something": "1"}


@pytest.mark.slow
@given(
    labels=st.just(TWO_CLASSES) | st.dictionaries(CLASS_NAMES, INDICES, max_size=3) | st.just([]),
    entries=ENTRIES,
    answers=st.binary(max_size=60)
    | st.sampled_from([b"1;Holding something\n", b"1;x\n", b"1;2;3\n", b"x;" + b"y" * 200_000]),
    split=SPLITS,
)
@example({"Holding something": "9" * 5000}, [], b"", "all")
@example(TWO_CLASSES, [{"id": "1"}], b"x;" + b"y" * 200_000, "test")
@fuzz(300)
def test_any_lists_of_something_v2_are_read_or_refused(
    tmp_path: Path, labels: Any, entries: list[Any], answers: bytes, split: str
) -> None:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    for name, content in (("labels", labels), ("train", entries), ("validation", []), ("test", entries)):
        (home / f"something-something-v2-{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (home / "test-answers.csv").write_bytes(answers)
    check_list(lambda: read("sthv2", home, split), home)


JSON_PIECES = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"id"',
    '"1"',
    '"template"',
    '"Holding something"',
    "1e999",
    "NaN",
    "-",
    "9" * 5000,
]


@pytest.mark.slow
@given(
    content=st.binary(max_size=100)
    | st.lists(st.sampled_from(JSON_PIECES), max_size=12).map(lambda pieces: "".join(pieces).encode()),
    which=st.sampled_from(["labels", "train"]),
)
@example(b"[" * 200_000, "train")
@example(b'{"a":' * 50_000, "labels")
@example(b'[{"id": ' + b"[" * 900 + b"]" * 900 + b"}]", "train")
@fuzz(200)
def test_any_bytes_for_json_are_read_or_refused(tmp_path: Path, content: bytes, which: str) -> None:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    for name, given_json in (("labels", TWO_CLASSES), ("train", [])):
        path = home / f"something-something-v2-{name}.json"
        path.write_bytes(content if name == which else json.dumps(given_json).encode())
    check_list(lambda: read("sthv2", home, "train"), home)


def test_a_list_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    os.mkfifo(tmp_path / "something-something-v2-train.json")
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(TWO_CLASSES))
    for format, path in (("csv", tmp_path / "list.csv"), ("sthv2", tmp_path)):
        with pytest.raises(SsanError, match="not a file; expected") as caught:
            read(format, path, "train")
        check_refusal(caught.value)


LIST_WORDS = [
    "a", "a.mp4", "b c", "../a", "/etc/passwd", "..", ".", "", "a\0b", "\ud800", "9" * 5000, "-1", "0", "1", "2", "5",
    "1.5", "\u0661", "x" * 300, "Holding something", "holding something", '"', '"q"', "train", "val", "label", "#",
    "a,b", "youtube_id", "time_start", "time_end", "split", "Archery", "Archery/a.avi", "Archery/..", "\u2028",
    "a/../../a", "./a", "a//b", "a\\b",
]  # fmt: skip
LIST_MARKS = [";", ",", " ", "\t", "|", "\n", "\n", "\n", "\r\n", "\r"]
LISTS = st.binary(max_size=60) | st.lists(st.sampled_from(LIST_WORDS) | st.sampled_from(LIST_MARKS), max_size=24).map(
    lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")
)
KINETICS = b"label,youtube_id,time_start,time_end,split\n"
LAYOUTS: dict[str, dict[str, bytes]] = {
    **{
        format: {
            f"{prefix}labels.csv": b"Holding something\nTurning something\n",
            f"{prefix}train.csv": b"1;Holding something\n2;Turning something\n",
            f"{prefix}test.csv": b"3\n4\n",
            "test-answers.csv": b"3;Holding something\n",
        }
        for format, prefix in (("sthv1", "something-something-v1-"), ("jester", "jester-v1-"))
    },
    "kinetics400": {
        "train.csv": KINETICS + b"air drumming,a,1,11,train\n",
        "val.csv": KINETICS + b'"hurling (sport), wet",b,0,10,validate\n',
        "test.csv": b"youtube_id,time_start,time_end\nc,0,10\n",
    },
    "ucf101": {
        "classInd.txt": b"1 Archery\n2 Biking\n",
        "trainlist01.txt": b"Archery/a.avi 1\n",
        "testlist01.txt": b"Biking/b.avi\n",
    },
    "hmdb51": {"run_test_split1.txt": b"a.avi 1\nb.avi 2\n", "bend_test_split1.txt": b"c.avi 1\n"},
    "tsm_list": {"train_videofolder.txt": b"a 5 0\n", "val_videofolder.txt": b"b 5 1\n", "category.txt": b"x\ny\n"},
    "mmaction2_list": {"train.txt": b"a.mp4 0\n", "val.txt": b"b.mp4 1\n"},
}


def lay_out(home: Path, format: str, which: str = "", content: bytes = b"") -> None:
    home.mkdir(exist_ok=True)
    for name, text in LAYOUTS[format].items():
        (home / name).write_bytes(content if name == which else text)


@pytest.mark.slow
@given(
    case=st.sampled_from([(format, name) for format, files in LAYOUTS.items() for name in files]),
    content=LISTS,
    split=SPLITS,
)
@example(("tsm_list", "train_videofolder.txt"), b"a " + b"9" * 5000 + b" 1\n", "train")
@example(("tsm_list", "category.txt"), b"x" * 200_000, "train")
@example(("sthv1", "something-something-v1-train.csv"), b"1;" + b"x" * 200_000, "train")
@example(("kinetics400", "train.csv"), KINETICS + b"x,a," + b"1" * 400 + b",2,train\n", "train")
@fuzz(350)
def test_any_bytes_in_a_list_of_any_format_are_read_or_refused(
    tmp_path: Path, case: tuple[str, str], content: bytes, split: str
) -> None:
    format, name = case
    home = tmp_path / format
    lay_out(home, format, name, content)
    check_list(lambda: read(format, home, split), home)
    check_list(lambda: read("auto", home, split), home)


@pytest.mark.parametrize("format", LAYOUTS)
def test_the_lists_that_are_damaged_are_read_before_that(tmp_path: Path, format: str) -> None:
    lay_out(tmp_path / format, format)
    assert len(read("auto", tmp_path / format, "all")) >= 2
    assert read("auto", tmp_path / format, "train") == read(format, tmp_path / format, "train")


def test_lists_that_are_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("train.csv", "train.txt", "k.csv"):
        os.mkfifo(tmp_path / name)
        assert detect(str(tmp_path)) == "folder"
        assert detect(str(tmp_path), str(tmp_path / name)) == ("csv" if name.endswith("csv") else "folder")
    for format in ("kinetics400", "tsm_list", "mmaction2_list"):
        with pytest.raises(SsanError) as caught:
            read(format, tmp_path, "train")
        check_refusal(caught.value)


@pytest.mark.slow
@given(path=st.sampled_from(CELLS) | st.text(max_size=12), root=st.sampled_from(["..", ".", "../..", "sub", "sub/.."]))
@fuzz(200)
def test_no_list_leads_out_of_its_folder_however_that_is_spelled(tmp_path: Path, path: str, root: str) -> None:
    here = tmp_path / "a" / "b"
    (here / "sub" / "videos").mkdir(parents=True, exist_ok=True)
    (here / "train.txt").write_bytes(f"{path} 5 0\n".encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        check_list(lambda: read("tsm_list", root, "all", annotations="train.txt"), Path(os.path.abspath(root)), here)


# ------------------------------------------------------------------------------------------------ models and weights


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    recipe = complete(make_recipe({"model": "tsn_tiny", "crop_px": 32}))
    save_labeller(path, build_from(recipe, 2), ["one", "other"], recipe, {})
    return path.read_bytes()


METADATA = st.sampled_from(
    ["", "{}", "[]", "null", "3", '"x"', "{", '["one"]', '["one", "other"]', '[["one"], {}]', '{"model": "ssan_tiny"}',
     '{"model": "nothing"}', '{"model": 3}', '{"num_frames": 4}', '{"num_frames": -1}', '{"size_px": "x"}', '{"a": 1}',
     '{"sampling": "else"}', "NaN", '{"crop_px": 1e400}', '"\\ud800"', "1"]
)  # fmt: skip


@pytest.mark.slow
@given(
    metadata=st.dictionaries(
        st.sampled_from(
            ["ssan.format", "ssan.recipe", "ssan.classes", "ssan.preprocess", "ssan.protocol", "ssan.sha256", "x"]
        ),
        st.none() | METADATA,
        max_size=3,
    ),
    changes=st.lists(
        st.tuples(
            st.integers(0, 50),
            st.sampled_from(["dtype", "shape", "data_offsets", "other"]),
            st.sampled_from(
                ["F32", "F64", "F8_E4M3", "BOOL", "X", [], [0], [-1], [2**62, 4], [0, 2**63], [1, 1], None, "x", 3]
            ),
        ),
        max_size=2,
    ),
)
@fuzz(120)
def test_any_header_of_a_model_file_is_understood_or_refused(
    tmp_path: Path, model_bytes: bytes, metadata: dict[str, str | None], changes: list[tuple[int, str, Any]]
) -> None:
    length = struct.unpack("<Q", model_bytes[:8])[0]
    header = json.loads(model_bytes[8 : 8 + length])
    header["__metadata__"]["ssan.format"] = "1"  # in which the metadata has no hash
    for key, value in metadata.items():
        if value is None:
            header["__metadata__"].pop(key, None)
        else:
            header["__metadata__"][key] = value
    names = [name for name in header if name != "__metadata__"]
    for place, key, value in changes:
        header[names[place % len(names)]][key] = value
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + model_bytes[8 + length :])
    try:
        labeller = load_labeller(path)
    except SsanError as error:
        check_refusal(error)
        return
    assert all(isinstance(label, str) for label in labeller.classes)
    preprocess = labeller.preprocess
    assert make_recipe({**preprocess.as_dict()}).num_frames == preprocess.num_frames


@pytest.fixture(scope="module")
def tiny() -> Classifier:
    return build_from(complete(make_recipe({"model": "tsn_tiny"})), 2)


TENSORS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


def torch_file(tensors: Any, zipped: bool = True) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(tensors, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def with_pickle(program: bytes) -> bytes:
    """A torch file in which this program stands where the tensors' description is."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(TENSORS))) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    return content.getvalue()


def check_weights(path: Path) -> None:
    try:
        state = read_state_dict(path)
    except SsanError as error:
        check_refusal(error)
        named = error.path
    else:
        assert all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items())
        named = str(path)
    assert named == str(path)


@pytest.mark.slow
@given(
    form=st.sampled_from(["zip", "old", "safetensors"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    cut=st.floats(0.1, 1),
)
@example(form="old", changes=[(0.375, 11)], cut=1.0)  # a name with a line end in it
@fuzz(300)
def test_any_damage_to_a_weights_file_is_survived(
    tmp_path: Path, form: str, changes: list[tuple[float, int]], cut: float
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(TENSORS, path)
        content = bytearray(path.read_bytes())
    else:
        content = bytearray(torch_file(TENSORS, form == "zip"))
    for share, byte in changes:
        content[int(share * len(content))] = byte
    path.write_bytes(content[: int(len(content) * cut)])
    check_weights(path)


# Instructions of a pickle, of which some call, import or build.
STEPS = [
    b"(", b")", b"}", b"]", b"0", b"1", b"2", b".", b"t", b"u", b"e", b"s", b"R", b"b", b"Q", b"\x81", b"\x85",
    b"\x86", b"\x87", b"\x92",
    b"\x93", b"\x94", b"K\x01", b"J\xff\xff\xff\x7f", b"N", b"\x88", b"I9\n", b"F1.5\n", b"X\x01\0\0\0a",
    b"\x8c\x01a", b"Vmade\n",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"h\x01", b"q\x01",
    b"r\xff\xff\xff\xff",
    b"\x80\x02", b"\x80\xff", b"\x95\xff\0\0\0\0\0\0\0", b"cos\nmkdir\n", b"cposix\nmkdir\n", b"cbuiltins\neval\n",
    b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
    b"ibuiltins\nexec\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nTensor\n", b"c__builtin__\nset\n", b"ctorch\nSize\n",
    b"S'made'\n",
]  # fmt: skip


@pytest.mark.slow
@given(steps=st.lists(st.sampled_from(STEPS), max_size=12), zipped=st.booleans())
@fuzz(400)
def test_any_program_in_a_weights_file_is_refused_and_not_run(tmp_path: Path, steps: list[bytes], zipped: bool) -> None:
    program = b"\x80\x02" + b"".join(steps) + b"."
    path = tmp_path / "w.pth"
    path.write_bytes(with_pickle(program) if zipped else program)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        check_weights(path)
    assert not (tmp_path / "made").exists()


class Makes:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
@given(depth=st.integers(0, 3), zipped=st.booleans(), key=st.sampled_from(["state_dict", "model", "x"]))
@fuzz(20)
def test_an_attack_hidden_at_any_depth_is_refused_and_not_run(
    tmp_path: Path, depth: int, zipped: bool, key: str
) -> None:
    content: Any = Makes(tmp_path / "made")
    for _ in range(depth):
        content = {key: content, **TENSORS}
    (tmp_path / "w.pth").write_bytes(torch_file(content, zipped) if zipped else pickle.dumps(content))
    with pytest.raises(SsanError):
        read_state_dict(tmp_path / "w.pth")
    assert not (tmp_path / "made").exists()


STRANGE = st.sampled_from(
    ["float16", "int64", "bool", "complex64", "sparse", "meta", "quantized", "empty", "scalar", "huge", "nan", "plain"]
)


def strange(kind: str, like: torch.Tensor) -> torch.Tensor:
    """A tensor of this shape, of a kind that no image network has."""
    if kind in ("float16", "int64", "bool", "complex64"):
        return torch.zeros(like.shape, dtype=getattr(torch, kind))
    if kind == "sparse":
        return torch.zeros(like.shape).to_sparse()
    if kind == "meta":
        return torch.zeros(like.shape, device="meta")
    if kind == "quantized":
        with warnings.catch_warnings():  # quantized tensors will be gone from torch; files of them will not
            warnings.simplefilter("ignore")
            return torch.quantize_per_tensor(torch.zeros(like.shape), 0.1, 0, torch.qint8)
    if kind == "huge":
        return torch.zeros(1).expand(2**40)
    return {"empty": torch.empty(0), "scalar": torch.tensor(1.0), "nan": torch.full(like.shape, torch.nan)}.get(
        kind, like
    )


@pytest.mark.slow
@given(
    kinds=st.lists(st.tuples(st.integers(0, 60), STRANGE), max_size=3),
    names=st.lists(st.text(string.printable, max_size=9)),
)
@fuzz(80)
def test_strange_tensors_of_the_right_names_are_loaded_or_refused(
    tmp_path: Path, tiny: Classifier, kinds: list[tuple[int, str]], names: list[str]
) -> None:
    model = copy.deepcopy(tiny)
    state = {key.removeprefix("backbone."): tensor.clone() for key, tensor in model.state_dict().items()}
    keys = list(state)
    for place, kind in kinds:
        key = keys[place % len(keys)]
        state[key] = strange(kind, state[key])
    state |= dict.fromkeys(names, torch.zeros(2))
    (tmp_path / "w.pth").write_bytes(torch_file(state))
    try:
        load_backbone(model, read_state_dict(tmp_path / "w.pth"), source=str(tmp_path / "w.pth"))
    except SsanError as error:
        check_refusal(error)
    assert all(tensor.layout == torch.strided and not tensor.is_meta for tensor in model.state_dict().values())


def test_the_recipes_keys_are_those_that_are_varied() -> None:
    assert set(Recipe.model_fields) == set(recipe_keys())
    assert "tiny" in BACKBONES


# --------------------------------------------------------------------------------------------------- word vectors

FIELDS = st.sampled_from(
    [b"the", b"at", b".", b"\xc3\xa9", b"\xff", b"", b"1", b"2", b"3", b"0.5", b"-1e3", b"1e400", b"nan", b"inf",
     b"1_0", b"0x1", b"\0\0\x80?", b"\0\0\xc0\x7f", b"\xef\xbb\xbf", b"</s>", b"x" * 200, b"9" * 300]
)  # fmt: skip
LINES = st.lists(
    st.tuples(
        st.lists(FIELDS, max_size=5).map(b" ".join), st.sampled_from([b"\n", b"\n", b"\r\n", b" \n", b"", b"\n\n"])
    ),
    max_size=6,
).map(lambda lines: b"".join(line + end for line, end in lines))
HEADED = st.tuples(st.sampled_from([b"2 1\n", b"3 2\n", b"2 3 \n", b"999999999999 1\n", b"0 1\n"]), LINES).map(b"".join)
VECTOR_FILES = LINES | HEADED | st.binary(max_size=120) | st.binary(max_size=60).map(lambda rest: b"2 3\nthe " + rest)
WANTED = st.none() | st.sets(st.sampled_from(["the", "at", ".", "1", "\xe9", "", ". .", "\ud800"]))


@pytest.mark.slow
@given(
    content=VECTOR_FILES,
    packing=st.sampled_from(["plain", "plain", "gz", "zip", "cut"]),
    wanted=WANTED,
    most=st.sampled_from([None, 0, 1, 2]),
)
@fuzz(150)
def test_any_file_of_word_vectors_is_read_or_refused(
    tmp_path: Path, content: bytes, packing: str, wanted: set[str] | None, most: int | None
) -> None:
    path = tmp_path / "vectors"
    if packing == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../inside", content)
    else:
        packed = gzip.compress(content)
        path.write_bytes(content if packing == "plain" else packed[: len(packed) // 2] if packing == "cut" else packed)
    try:
        with nothing_is_opened_outside(tmp_path):
            vectors = read_word_vectors(path, wanted=wanted, most=most)
    except SsanError as error:
        check_refusal(error)
        return
    assert vectors.matrix.shape == (len(vectors.words), vectors.dim)
    assert np.isfinite(vectors.matrix).all()
    assert len(set(vectors.words)) == len(vectors.words) <= vectors.num_read
    assert all(vectors.words)
    assert wanted is None or set(vectors.words) <= wanted
    assert most is None or vectors.num_read <= most
    "".join(vectors.words).encode()


@given(
    value=NESTED
    | st.fixed_dictionaries(
        {
            "tokeniser": st.sampled_from(["howto100m", "lower", "other", None, []]),
            "words": st.lists(st.text(max_size=4) | st.sampled_from(["a", "b", "\ud800", 3, None]), max_size=4) | PLAIN,
        }
    )
)
@fuzz(80)
def test_any_value_as_a_vocabulary_is_taken_or_refused(value: Any) -> None:
    try:
        vocabulary = Vocabulary.from_dict(value)
    except SsanError as error:
        check_refusal(error)
        return
    assert vocabulary.as_dict() == value
    assert vocabulary.encode(["a b c", ""], 2).max() < vocabulary.num_rows


@given(captions=st.lists(st.text(max_size=20)), tokeniser=st.sampled_from(["howto100m", "lower"]))
@fuzz(80)
def test_any_captions_have_a_vocabulary_that_knows_all_their_words(captions: list[str], tokeniser: str) -> None:
    try:
        vocabulary = Vocabulary.of(captions, tokeniser)
    except SsanError as error:
        check_refusal(error)
        return
    assert vocabulary.dropped(captions, 100).num_unknown == 0
    assert Vocabulary.from_dict(vocabulary.as_dict()).words == vocabulary.words
