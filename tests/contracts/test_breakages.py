"""The list of one-line breakages that the suite has to catch: each still applies, and the check of that bites."""

from pathlib import Path

from benchmarks.robustness import breakages
from benchmarks.robustness.broken_lines import BREAKAGES, Breakage


def test_every_breakage_applies_to_the_code_as_it_is() -> None:
    assert breakages.objections() == []


def test_there_are_at_least_30_breakages_over_all_rooms() -> None:
    assert len(BREAKAGES) >= 30
    rooms = {path.parent.name for path in (breakages.ROOT / "src" / "ssan").glob("*/*.py")}
    assert {one.file.split("/")[0] for one in BREAKAGES if "/" in one.file} == rooms


def test_a_breakage_is_refused_where_its_line_is_not_there_exactly_once(tmp_path: Path) -> None:
    (tmp_path / "src/ssan").mkdir(parents=True)
    (tmp_path / "src/ssan/a.py").write_text("x = 1\ny = 2\nz = 1\n")
    (tmp_path / "tests").mkdir()
    cases = {"y = 2": [], "y = 3": ["stands 0 times"], " = 1": ["stands 2 times"]}
    for old, expected in cases.items():
        found = breakages.objections([Breakage("b", "a.py", old, "", ".")], tmp_path)
        assert len(found) == len(expected)
        assert all(part in text for part, text in zip(expected, found, strict=True))
    path, text = breakages.broken(Breakage("b", "a.py", "y = 2", "y = 3", "."), tmp_path)
    assert (path.name, text) == ("a.py", "x = 1\ny = 3\nz = 1\n")
    odd = [Breakage("b", "none.py", "x", "y", "."), Breakage("b", "a.py", "y = 2", "y = 2", "none")]
    found = breakages.objections(odd, tmp_path)
    assert [part for part in ("there is no src", "two of this name", "nothing is broken", "there is no tests/none")
            if not any(part in text for text in found)] == []  # fmt: skip
