"""The house keeps its floors: a file imports from a lower floor or from its own room, never sideways, never up."""

import ast
from pathlib import Path

import ssan

SRC = Path(ssan.__file__).parent

# Rooms of each floor, the ground first. demo and reproduce put together what the floors below offer.
FLOORS = [
    {"_version", "commands", "errors", "files", "pickles", "processes", "recipe", "shipped"},
    {"layers", "video", "training"},
    {"models", "datasets"},
    {"attachment", "convert", "synthetic", "weights"},
    {"features"},
    {"recognition", "retrieval", "probe"},
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


def test_a_file_imports_only_from_below_or_from_its_own_room() -> None:
    rooms = {path: room_of(path) for path in FILES}
    assert set(rooms.values()) - set(FLOOR_OF) == set(), "say in FLOORS where these rooms live"
    upward = {path.relative_to(SRC).as_posix(): forbidden(room, imported_rooms(path)) for path, room in rooms.items()}
    assert {path: imports for path, imports in upward.items() if imports} == {}


def test_the_rule_itself_catches_sideways_and_upward_imports() -> None:
    assert forbidden("layers", {"video"}) == {"video"}
    assert forbidden("training", {"recognition"}) == {"recognition"}
    assert forbidden("recognition", {"retrieval"}) == {"retrieval"}
    assert forbidden("models", {"layers", "errors", "models"}) == set()


def imports_of(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules among ``modules`` that a file imports while it is imported itself, so not those in functions."""
    found: set[str] = set()
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= submodules or {node.module or ""} & modules
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return found


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A way from a module back to itself, none if there is no such way."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            for other in sorted(imports.get(module, ())):
                if found := walk(other, [*way, module]):
                    return found
            done.add(module)
        return []

    return next(filter(None, (walk(module, []) for module in sorted(imports))), [])


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_in_a_circle() -> None:
    trees = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    imports = {module: imports_of(tree, set(trees)) for module, tree in trees.items()}
    assert sum(map(len, imports.values())) > len(FILES)
    assert circle(imports) == []


def test_a_circle_of_imports_would_be_seen() -> None:
    modules = {"ssan.a", "ssan.a.one", "ssan.b", "ssan.c"}
    code = {
        "ssan.a": "from ssan.a.one import word",
        "ssan.a.one": "try:\n    from ssan import b\nexcept ImportError:\n    b = None",
        "ssan.b": "import ssan.c",
        "ssan.c": "def late():\n    from ssan.a import word",
    }
    imports = {module: imports_of(ast.parse(text), modules) for module, text in code.items()}
    assert imports == {"ssan.a": {"ssan.a.one"}, "ssan.a.one": {"ssan.b"}, "ssan.b": {"ssan.c"}, "ssan.c": set()}
    assert circle(imports) == []
    imports["ssan.c"] = imports_of(ast.parse("class C:\n    from ssan.a.one import word"), modules)
    assert circle(imports) == ["ssan.a.one", "ssan.b", "ssan.c", "ssan.a.one"]
    assert circle({"ssan.b": {"ssan.b"}}) == ["ssan.b", "ssan.b"]


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
