"""Errors speak to the person who made the mistake, and nothing is caught or dropped without a name."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

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


Faults = dict[str, list[str]]
"""What a file does that it must not, by the rule that it breaks."""

PRINT = ("ssan.cli.screen", "print")


def _message(call: ast.Call, where: str) -> Iterator[tuple[str, str]]:
    """An error of the family that is made without a guide, or with a code that is none."""
    first = ast.unparse(call.args[0]).lower() if call.args else ""
    only_a_variable = isinstance(call.args[0], ast.Name | ast.Call) if call.args else True
    if not only_a_variable and not any(guide in first for guide in GUIDES):
        yield "guide", f"{where}: {ast.unparse(call)}"
    for keyword in call.keywords:
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and keyword.value.value not in CODES:
            yield "code", where


def _caught(handler: ast.ExceptHandler, where: str) -> Iterator[tuple[str, str]]:
    caught = "" if handler.type is None else ast.unparse(handler.type)
    again = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(handler))
    named = caught not in ("", "Exception", "BaseException")
    if not (named or (caught and again)):
        yield "caught", where


def faults_of(source: str, name: str) -> Faults:
    """All that one reading of a file finds."""
    found: Faults = {}
    prints = taken = False
    for node in ast.walk(ast.parse(source)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        told: list[tuple[str, str]] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in FAMILY:
                told += _message(node, where)
            if node.func.id == "print" and not any(keyword.arg == "file" for keyword in node.keywords):
                told.append(("result", f"{where} prints on standard output"))
        elif isinstance(node, ast.ExceptHandler):
            told += _caught(node, where)
        elif isinstance(node, ast.ImportFrom):
            taken |= any((node.module, alias.name) == PRINT for alias in node.names)
        elif isinstance(node, ast.Name):
            prints |= node.id == "print"
        for rule, text in told:
            found.setdefault(rule, []).append(text)
    if prints and not taken:
        found["screen"] = [f"{name} prints as Python does"]
    return found


@cache
def faults(path: Path) -> Faults:
    """Those of a file of the package, read once for all tests."""
    return faults_of(path.read_text(encoding="utf-8"), path.name)


def everywhere(rule: str, files: Sequence[Path] = FILES) -> dict[str, Any]:
    """What breaks a rule, by the file."""
    found = {path.relative_to(SRC).as_posix(): faults(path).get(rule, []) for path in files}
    return {path: lines for path, lines in found.items() if lines}


def test_every_message_says_what_to_expect_or_to_do() -> None:
    assert everywhere("guide") == {}


def test_every_code_is_one_of_the_contract() -> None:
    assert everywhere("code") == {}


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


def test_long_values_are_cut_by_the_functions_in_errors_alone() -> None:
    cuts = {path: own_cuts(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES if path != SRC / "errors.py"}
    found = {path.relative_to(SRC).as_posix(): lines for path, lines in cuts.items() if lines}
    assert found == {}, "use shortened, quoted or first_line"


def test_a_cut_of_its_own_would_be_seen() -> None:
    assert own_cuts(ast.parse("f'{name[:80]!r} is {str(value)[:40]}'")) == [1, 1]
    assert own_cuts(ast.parse("f'{quoted(name, 80)} {digest[:16]}'")) == []


def test_nothing_is_caught_without_a_name() -> None:
    assert everywhere("caught") == {}


def test_only_the_command_line_prints_results() -> None:
    assert everywhere("result", [path for path in FILES if path.parent.name != "cli"]) == {}


def test_a_command_prints_by_what_shows_control_characters() -> None:
    files = [path for path in sorted((SRC / "cli").glob("*.py")) if path.name != "screen.py"]
    assert len(files) > 20
    assert everywhere("screen", files) == {}


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("raise UsageError(f'it is {x}')", "guide"),
        ("raise UsageError(f'it is {x}; use another', code='odd')", "code"),
        ("try: pass\nexcept: pass", "caught"),
        ("try: pass\nexcept Exception: pass", "caught"),
        ("from ssan.cli.screen import print\nprint(1)", "result"),
        ("print(1, file=sys.stderr)", "screen"),
    ],
)
def test_each_rule_sees_what_breaks_it(source: str, rule: str) -> None:
    assert list(faults_of(source, "a.py")) == [rule]


def test_the_codes_are_those_of_the_contract() -> None:
    assert " ".join(CODES) == (
        "missing empty not_video no_video_stream truncated decode_error too_few_frames duplicate bad_annotation "
        "unknown_label path_escape wrong_model nan no_space not_fetched"
    )
