"""One-line breakages of the package, and whether the tests catch them.

    python -m benchmarks.robustness.breakages [--jobs 2] [--only TEXT]
    python -m benchmarks.robustness.breakages --check

Copies the tree, breaks one line (see broken_lines.py), and runs the tests that should catch it, those that are not slow
first; if all pass, all tests of their rooms. The quick ones run on a whole copy before, where they must pass; so must,
on that copy, each slower test that fails of a breakage. Writes
benchmarks/results/breakages.json after each breakage. Those of this very tree that are in it are not tried again, so
that a run that was stopped goes on; another tree begins anew. Exits with 1 if one was not caught, or could not be
tried. With ``--check`` nothing runs: it says which breakages do not apply.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.robustness.broken_lines import BREAKAGES, Breakage
from ssan.files import read_json, write_json

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "breakages.json"
PASSED, FAILED, NONE_CHOSEN = 0, 1, 5  # exit statuses of pytest; any other says that the tests did not run
QUICK, SLOW = "not slow", "slow"
SECONDS = 900
"""Tests that take longer hang."""


def broken(breakage: Breakage, root: Path = ROOT) -> tuple[Path, str]:
    """The path of the file that a breakage is in, below the root, and its text with the line broken.

    :raises ValueError: the old text does not stand in the file exactly once, or there is no such file.
    """
    path = Path("src", "ssan", breakage.file)
    if not (root / path).is_file():
        raise ValueError(f"{breakage.name}: there is no {path}; name the file where the line is now")
    text = (root / path).read_text(encoding="utf-8")
    if (count := text.count(breakage.old)) != 1:
        raise ValueError(f"{breakage.name}: {breakage.old!r} stands {count} times in {path}; expected once")
    return path, text.replace(breakage.old, breakage.new)


def tests_of(breakage: Breakage) -> list[str]:
    return [f"tests/{name}" for name in breakage.tests.split()]


def rooms_of(breakage: Breakage) -> list[str]:
    """The folders that a breakage's tests are in."""
    return sorted({"/".join(name.split("/")[:2]) for name in tests_of(breakage)})


def objections(breakages: Iterable[Breakage] = BREAKAGES, root: Path = ROOT) -> list[str]:
    """Why some of the breakages cannot be tried."""
    found, names = [], set[str]()
    for breakage in breakages:
        try:
            broken(breakage, root)
        except ValueError as error:
            found.append(str(error))
        if breakage.name in names:
            found.append(f"{breakage.name}: there are two of this name")
        names.add(breakage.name)
        if breakage.old == breakage.new:
            found.append(f"{breakage.name}: nothing is broken")
        absent = [test for test in tests_of(breakage) if not (root / test).exists()]
        found += [f"{breakage.name}: there is no {test}" for test in absent]
    return found


def tracked() -> list[str]:
    """The files of the tree, those that are new and not ignored among them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
    return sorted(name for name in names if (ROOT / name).is_file())


def hash_tree(names: Iterable[str]) -> str:
    """The start of a SHA-256 of the package and its tests."""
    total = hashlib.sha256()
    for name in names:
        if name.startswith(("src/", "tests/")):
            total.update(f"{name}\0".encode() + hashlib.sha256((ROOT / name).read_bytes()).digest())
    return total.hexdigest()[:16]


def copy_tree(names: Iterable[str], folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def run_tests(folder: Path, tests: list[str], marks: str = "") -> tuple[int | None, str]:
    """The exit status of pytest in a copy of the tree, None where it does not end, and the first test that failed.

    What is compiled stays there, for the copies of the copy.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "-x", "-m", marks]
    environment = {
        **os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder / "temporary"),
    }  # fmt: skip
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    (folder / "temporary").mkdir(exist_ok=True)
    try:
        done = subprocess.run(
            [*command, *tests], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, ""
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    first = lines[0].split(" ", 1)[1].partition(" - ")[0] if lines else ""
    return done.returncode, first or (done.stdout.strip()[-500:] if done.returncode else "")


def try_out(breakage: Breakage, whole: Path) -> dict[str, Any]:
    """Break one line of a copy of the whole tree and see what its tests say."""
    began = time.monotonic()
    row: dict[str, Any] = {**breakage._asdict(), "caught_by": None}
    with tempfile.TemporaryDirectory(prefix="breakage_") as home:
        folder = Path(home, "tree")  # real data beside the checkout are not beside this
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("temporary"))
        path, text = broken(breakage, folder)
        (folder / path).write_text(text, encoding="utf-8")
        named, rooms = tests_of(breakage), rooms_of(breakage)
        tries = [("quick named tests", named, QUICK), ("named tests", named, SLOW), ("room", rooms, "")]
        for kind, tests, marks in tries:
            status, first = run_tests(folder, tests, marks)
            if status == FAILED:
                first = first.replace(f"{folder}/", "")
                if marks != QUICK and (also := run_tests(whole, [first.partition("[")[0]])[0]) != PASSED:
                    row["fault"] = f"{first} ends with {also} on the tree as it is; mend that first"
                else:
                    row |= {"caught_by": kind, "first": first}
                break
            if status not in (PASSED, NONE_CHOSEN):
                row["fault"] = f"pytest ended with {status}: {first}" if status is not None else "no end"
                break
    return row | {"seconds": round(time.monotonic() - began, 1)}


def store(tree: str, rows: list[dict[str, Any]]) -> None:
    order = {breakage.name: number for number, breakage in enumerate(BREAKAGES)}
    rows = sorted(rows, key=lambda row: order.get(row["name"], len(order)))
    caught = sum(row["caught_by"] is not None for row in rows)
    counts = {"tried": len(rows), "caught": caught, "by_room": sum(row["caught_by"] == "room" for row in rows)}
    write_json(RESULTS, {"schema": 1, "tree": tree, **counts, "breakages": rows})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say which breakages do not apply, and try none")
    parser.add_argument("--only", default="", help="those whose name or file holds this")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    arguments = parser.parse_args()
    found = objections()
    print("\n".join(found), file=sys.stderr, end="\n" * bool(found))
    if arguments.check or found:
        return int(bool(found))
    names = tracked()
    tree = hash_tree(names)
    before = read_json(RESULTS) if RESULTS.exists() else {}
    rows: list[dict[str, Any]] = before.get("breakages", []) if before.get("tree") == tree else []
    done = {tuple(row[field] for field in Breakage._fields) for row in rows if "fault" not in row}
    rows = [row for row in rows if tuple(row[field] for field in Breakage._fields) in done & {*map(tuple, BREAKAGES)}]
    chosen = [one for one in BREAKAGES if arguments.only in f"{one.name} {one.file}" and tuple(one) not in done]
    lock = threading.Lock()
    with (
        tempfile.TemporaryDirectory(prefix="breakage_") as home,
        ThreadPoolExecutor(arguments.jobs) as pool,
        tqdm(total=len(chosen), unit="breakage", file=sys.stderr) as bar,
    ):
        whole = Path(home, "tree")
        if not chosen:
            bar.write("nothing is left to be tried", file=sys.stderr)
        else:
            copy_tree(names, whole)
            tests = sorted({test for one in chosen for test in tests_of(one)})
            bar.write(f"the quick tests on the tree as it is: {len(tests)} files and folders", file=sys.stderr)
            status, first = run_tests(whole, tests, QUICK)
            if status != PASSED:
                bar.write(f"the tests do not pass on the tree as it is ({first}); mend that first", file=sys.stderr)
                return 1

        def one(breakage: Breakage) -> None:
            row = try_out(breakage, whole)
            with lock:
                rows.append(row)
                store(tree, rows)
                bar.update()
                said = f"caught by {row.get('first')}" if row["caught_by"] else row.get("fault", "NOT CAUGHT")
                bar.write(f"{breakage.name}: {said} ({row['seconds']:.0f} s)", file=sys.stderr)

        list(pool.map(one, chosen))
    missed = [row["name"] for row in rows if row["caught_by"] is None]
    print(f"{len(rows) - len(missed)} of {len(rows)} breakages are caught", *missed, sep="\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
