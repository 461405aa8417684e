"""Errors speak to the person who made the mistake, and nothing is caught or dropped without a name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ssan
from ssan.errors import CODES

SRC = Path(ssan.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
FAMILY = {"SsanError", "UsageError", "VideoError", "AnnotationError", "ModelError", "TrainingError", "wrong_model"}
# A message that only says what happened leaves its reader alone. One of these tells what was expected or what to do.
GUIDES = (
    "expected", "must", "known", "did you mean", "unknown(", "need", "give ", "use ", "copy", "leave out",
    "add ", "name ", "make ", "show", "lower", "cut ", "write", "read the", "free space", "upgrade", "; ", "ask for",
    "convert", "resize", "put ", "ends in", "differ", "lacks", "refused", "look at", "leave it out", "extract", "--",
    "{message}",
)  # fmt: skip


def raises(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every construction of an error of the family, with the text that stands in it."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAMILY:
            yield node, ast.get_source_segment(source, node) or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_every_message_says_what_to_expect_or_to_do(path: Path) -> None:
    for call, text in raises(path):
        first = ast.unparse(call.args[0]).lower() if call.args else ""
        only_a_variable = isinstance(call.args[0], ast.Name | ast.Call) if call.args else True
        assert only_a_variable or any(guide in first for guide in GUIDES), f"{path.name}:{call.lineno}: {text}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_every_code_is_one_of_the_contract(path: Path) -> None:
    for call, _ in raises(path):
        for keyword in call.keywords:
            if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                assert keyword.value.value in CODES, f"{path.name}:{call.lineno}"


def own_cuts(tree: ast.AST) -> list[int]:
    """Lines in which a value is cut where it is put into a text."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue)
        and isinstance(node.value, ast.Subscript)
        and isinstance(node.value.slice, ast.Slice)
        and isinstance(node.value.slice.upper, ast.Constant)
        and node.value.slice.upper.value >= 20
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_long_values_are_cut_by_the_functions_in_errors_alone(path: Path) -> None:
    cuts = own_cuts(ast.parse(path.read_text(encoding="utf-8")))
    assert not cuts or path == SRC / "errors.py", f"{path}: lines {cuts}; use shortened, quoted or first_line"


def test_a_cut_of_its_own_would_be_seen() -> None:
    assert own_cuts(ast.parse("f'{name[:80]!r} is {str(value)[:40]}'")) == [1, 1]
    assert own_cuts(ast.parse("f'{quoted(name, 80)} {digest[:16]}'")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_nothing_is_caught_without_a_name(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            again = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            named = caught not in ("", "Exception", "BaseException")
            assert named or (caught and again), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_only_the_command_line_prints_results(path: Path) -> None:
    if path.parent.name == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert any(k.arg == "file" for k in node.keywords), f"{path.name}:{node.lineno} prints on standard output"


@pytest.mark.parametrize("path", sorted((SRC / "cli").glob("*.py")), ids=lambda path: path.name)
def test_a_command_prints_by_what_shows_control_characters(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prints = any(isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(tree))
    taken = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "ssan.cli.screen"
        and any(alias.name == "print" for alias in node.names)
        for node in ast.walk(tree)
    )
    assert taken or not prints or path.name == "screen.py", f"{path.name} prints as Python does"


def test_the_codes_are_those_of_the_contract() -> None:
    assert " ".join(CODES) == (
        "missing empty not_video no_video_stream truncated decode_error too_few_frames duplicate bad_annotation "
        "unknown_label path_escape wrong_model nan no_space"
    )
