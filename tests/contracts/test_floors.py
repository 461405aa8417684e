"""The house keeps its floors: a file imports from a lower floor or from its own room, never sideways, never up."""

import ast
from pathlib import Path

import pytest

import ssan

SRC = Path(ssan.__file__).parent

# Rooms of each floor, the ground first. demo and reproduce put together what the floors below offer.
FLOORS = [
    {"_version", "commands", "errors", "files", "pickles", "processes", "recipe", "shipped"},
    {"layers", "video", "training"},
    {"models", "datasets"},
    {"attachment", "convert", "synthetic", "weights"},
    {"features"},
    {"recognition", "retrieval"},
    {"report"},
    {"demo", "reproduce"},
    {"cli"},
    # The package's own door imports what it offers when that is asked for, and nothing before.
    {"__main__", "__init__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    relative = path.relative_to(SRC)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports from, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "ssan" else [node.module]
        for name in names:
            parts = (name or "").split(".")
            if parts[0] == "ssan" and len(parts) > 1:
                found.add(parts[1])
    return found


def forbidden(room: str, imports: set[str]) -> set[str]:
    """Imports that lead sideways or up; the ground floor is one room."""
    own = FLOORS[0] if room in FLOORS[0] else {room}
    return {other for other in imports - own if FLOOR_OF.get(other, 99) >= FLOOR_OF[room]}


FILES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_a_file_imports_only_from_below_or_from_its_own_room(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR_OF, f"{room} has no floor; say in FLOORS where it lives"
    imports = imported_rooms(path)
    assert not forbidden(room, imports), f"{room} (floor {FLOOR_OF[room]}) imports {forbidden(room, imports)}"


def test_the_rule_itself_catches_sideways_and_upward_imports() -> None:
    assert forbidden("layers", {"video"}) == {"video"}
    assert forbidden("training", {"recognition"}) == {"recognition"}
    assert forbidden("recognition", {"retrieval"}) == {"retrieval"}
    assert forbidden("models", {"layers", "errors", "models"}) == set()


def test_no_room_has_a_name_that_explains_nothing() -> None:
    empty = {"util", "utils", "common", "core", "misc", "helper", "helpers", "registry", "base"}
    assert not [path for path in FILES if path.stem in empty or path.parent.name in empty]


def test_the_door_imports_nothing_heavy() -> None:
    """`ssan --help` must not pay for torch."""
    import subprocess
    import sys

    code = (
        "import sys; from ssan.cli.main import status; status(['--help']); "
        "print(sorted({'torch', 'lightning', 'av', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
