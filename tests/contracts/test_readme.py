"""The README and the pages of docs: their commands and code run as they stand there, and what they name is there."""

import contextlib
import io
import json
import pkgutil
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from benchmarks.pages import tables
from test_floors import FLOORS

from ssan.cli.main import app, status
from ssan.recipe import recipe_keys
from ssan.shipped import shipped

ROOT = Path(__file__).parents[2]
PATHS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
README = PAGES["README.md"]
# Pages whose console blocks run one after the other in one folder, and whose Python blocks run by themselves.
CONSOLE = ["README.md", "docs/compare.md"]
PYTHON = ["docs/blocks.md", "docs/label.md"]
# What is made smaller, so that the test takes seconds; each must be found, or the pages have moved on.
SMALLER = {
    "--videos 2000": "--videos 48",
    "--recipe demo/ssan_tiny --data clips --out runs/order": "{} epochs=1 batch=8",
    "--recipe demo/tsn_tiny --data clips --out runs/order_tsn": "{} epochs=1 batch=8",
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def console_commands(page: str) -> list[str]:
    return [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


def ssan_commands(page: str) -> Iterator[str]:
    """Commands of ssan in a page: in indented lines, with those that go on behind a backslash, and in code spans."""
    text = re.sub(r"\\\n\s*", "", PAGES[page])
    yield from re.findall(r"^(?: {4,}|\$ )(?:.* )?ssan ([a-z].*?)$", text, flags=re.MULTILINE)
    yield from re.findall(r"`ssan ([a-z][^`\n]*)`", text)


def run(code: str, page: str) -> str:
    """What a block of Python prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, page, "exec"), {})
    return said.getvalue()


@pytest.mark.slow
def test_every_command_of_the_readme_runs_in_order_and_then_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [command for page in CONSOLE for command in console_commands(page)]
    assert len(commands) >= 8
    for old in SMALLER:
        assert any(old in command for command in commands), f"{old!r} is no longer in the pages"
    for command in commands:
        for old, new in SMALLER.items():
            command = re.sub(rf"{re.escape(old)}(?!\S)", new.format(old), command)
        program, *arguments = shlex.split(command)
        assert program == "ssan"
        workers = [] if arguments[0] in ("models", "recipes", "compare", "report") else ["--workers", "0"]
        code = status([*arguments, *workers])
        said = capfd.readouterr()
        assert code == 0, f"{command}: {said.err}"
        assert said.out.strip(), f"{command} prints nothing"
    # What `make demo` leaves, in small: the run of its recipe, and videos.
    shutil.copytree("runs/order", "demo-out/ssan_tiny")
    shutil.copytree("clips", "demo-out/unseen")
    (block,) = blocks("README.md", "python")
    printed = run(block, "README.md").splitlines()
    videos = sorted(str(path) for path in Path("demo-out/unseen").rglob("*.webm"))
    assert len(printed) == len(videos) == 48
    assert all(line.startswith(f"{video} ") for line, video in zip(printed, videos, strict=True))


@pytest.mark.parametrize("page", PYTHON)
def test_every_python_block_of_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert blocks(page, "python")
    for block in blocks(page, "python"):
        run(block, page)


def test_commands_name_verbs_options_and_recipes_that_there_are() -> None:
    whole: Any = typer.main.get_command(app)
    asking_for_help = whole.context_settings.get("help_option_names", ["--help"])
    named: dict[str, int] = {}
    for page in PAGES:
        commands = list(ssan_commands(page))
        named[page] = len(commands)
        for command in commands:
            verb, *words = shlex.split(command, comments=True)
            found: Any = whole.commands[verb]
            while hasattr(found, "commands") and words:
                found = found.commands[words.pop(0)]
            known = {flag for parameter in found.params for flag in parameter.opts} | set(asking_for_help)
            for word in words:
                flag = word.strip("[]")
                if re.match(r"-[-a-z]", flag):
                    assert flag.partition("=")[0] in known, f"{flag} in {command!r}, {page}"
            if "--recipe" in words:
                assert words[words.index("--recipe") + 1] in shipped(), f"{command!r}, {page}"
    assert named["README.md"] > 5
    assert sum(named.values()) > 60


def test_overrides_that_the_pages_name_are_recipe_keys() -> None:
    keys = [(page, key) for page in PAGES for key in re.findall(r"`?\b([a-z_]+)(?:\.[a-z_*]+)=", PAGES[page])]
    assert len(keys) > 5
    for page, key in keys:
        assert key in recipe_keys(), f"{key} in {page}"


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", PAGES[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_into_the_project_leads_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            there = (ROOT / page).parent / path if path else ROOT / page
            assert there.exists(), f"{page} links to {target}"
            if anchor:
                assert anchor in anchors(there.resolve().relative_to(ROOT).as_posix()), f"{page} links to {target}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 120
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)", README))
    assert linked == {page for page in PAGES if page.startswith("docs/") and not page.endswith(".head.md")}


def test_files_and_modules_that_the_pages_name_are_there() -> None:
    text = "\n".join(PAGES.values())
    spans = set(re.findall(r"`([^`\n]+)`", text)) - set(shipped())
    imports = re.findall(r"^from .*$", text, flags=re.MULTILINE)
    paths = {path for span in spans for path in re.findall(r"^(?:src|tests|benchmarks|docs)/[\w/.]*", span)}
    rooms = "|".join(path.name for path in (ROOT / "src" / "ssan").iterdir() if path.is_dir())
    modules = {f"src/ssan/{span}.py" for span in spans if re.fullmatch(rf"(?:{rooms})/\w+", span)}
    scripts = {name for span in spans for name in re.findall(r"-m (benchmarks(?:\.[a-z]\w*)+)", span)}
    names = {name for line in [*spans, *imports] for name in re.findall(r"\bssan(?:\.[A-Za-z_]\w*)+", line)}
    assert min(map(len, (paths, modules, scripts, names))) > 5
    for path in paths | modules | {f"{name.replace('.', '/')}.py" for name in scripts}:
        assert (ROOT / path).exists(), path
    for name in names - {"ssan.npz", "ssan.sbatch"}:  # files of examples
        pkgutil.resolve_name(name)  # an error where there is no such module, or nothing of that name in it


def test_the_floors_that_contributing_shows_are_those_of_the_house() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGES["CONTRIBUTING.md"], flags=re.MULTILINE)
    shown = [(int(floor), set(re.findall(r"`(\w+)`", rooms))) for floor, rooms in rows]
    assert shown == list(enumerate(FLOORS)), "CONTRIBUTING.md shows other floors than tests/contracts/test_floors.py"


def test_measured_figures_are_those_of_the_committed_results() -> None:
    said = "run `python -m benchmarks.pages.tables` and commit README.md and docs/measured.md"
    assert tables.page() == PAGES["docs/measured.md"], said
    assert tables.between_marks(README, "headline", tables.headline()) == README, said
    rows = tables.headline().splitlines()[2:]
    assert len(rows) == 4
    assert len([row for row in rows if row in tables.page().splitlines()]) == 3


def test_what_was_not_run_is_blank(tmp_path: Path) -> None:
    text = tables.page(tmp_path) + tables.headline(tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    for titles in ("codec", "features", "network", "command"):
        assert any(line.startswith(f"| {titles} |") for line in rows)
    assert not re.search(r"\d\.\d", text)
    for row in rows:
        code = row.split(" | ")[1]
        if code in ("its own", "torchvision", "transformers") or (code == "ssan" and row.startswith("| `")):
            assert not row.strip("|").split("|", 2)[2].strip("| "), row
        elif row.startswith(
            (
                "| Res",
                "| `",
                "| vp9",
                "| clips a second",
                "| frames",
                "| training runs",
                "| damaged",
                "| other toolkits",
                "| I3D",
                "| as it is",
                "| SSA attached",
            )
        ):
            assert not row.strip("|").split("|", 1)[1].strip("| "), row


def test_a_figure_stands_in_the_row_and_column_it_belongs_to(tmp_path: Path) -> None:
    readers = {"ssan, decoder in this process": 0.61, "PyAV in sequence": 1.0, "opencv": 0.97}
    rows = [
        {
            "file": "a.mp4",
            "codec": "h264",
            "b_frames": True,
            "reader": reader,
            "ratio_min": 2,
            "ratio_median": ratio,
            "peak_mb": None,
        }
        for reader, ratio in readers.items()
    ]
    speeds = [
        {"kind": "h264", "workers": workers, "loader": "ssan", "ratio_median": ratio, "work_median": 0.5}
        for workers, ratio in [(1, 0.75), (2, 1.25), (3, 2.5)]
    ]
    networks = [
        {
            "name": name,
            "code": code,
            "num_frames": 13,
            "params": 23_860_000,
            "macs": 32_740_000_000,
            "train": {"ratio_min": 1.5},
            "infer": {"ratio_min": 2.25},
        }
        for name, code in [("S3D", "torchvision"), ("new_r50", "ssan")]
    ]
    shares = {"top1": 0.375, "pair_top1": 0.75, "within_pair_top1": 0.5, "reversed_top1": 0.3125}
    run = {"variant": "bare", "params": 702_870, **shares, "num_train": 840, "num_test": 181, "epochs": 7}
    files = {
        "attach": {"network": "torchvision resnet18", "classes": 6, "seed": 3, "runs": [run]},
        "models": {"cpu": {"machine": {}, "rounds": 3, "rows": networks}},
        "decode": {"rows": rows},
        "loader": {"rows": speeds},
        "soak": {"kills": 101, "runs": 23, "differences": 0},
        "hostile": {"files": 503, "tracebacks": 0, "hangs": 0, "codes": {"no_video": 7, "ok": 3}},
        "parity": {"rows": [{"largest_difference": 3e-7}, {"largest_difference": 2e-6}, {"refused": "it has"}]},
        "exactness": {"files": 354, "frames": 83116, "differences": 0},
        "i3d": {
            "machine": {"cpu": "A processor"},
            "size_px": 160,
            "rows": [
                {"threads": 1, "num_frames": 64, "rounds": 5, "ratio_min": 0.9, "ratio_median": 0.625},
                {"threads": 2, "num_frames": 16, "rounds": 3, "ratio_min": 0.9, "ratio_median": 0.875},
            ],
        },
        "i3d_parity": {
            "rows": [
                {"video": "a.mp4", "largest_logit": 20.0, "largest_difference": {"one": 4e-6, "other": 8e-6}},
                {"video": "a.mp4", "largest_logit": 10.0, "largest_difference": {"one": 5e-6}},
                {"video": "b.mp4", "largest_logit": 40.0, "largest_difference": {"one": 9e-6}},
            ]
        },
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    text = tables.page(tmp_path) + tables.headline(tmp_path)
    assert "| h264 with B frames (1) |  | 0.61 | 1.00 |  | 0.97 |  |" in text
    assert "| h264 | 2 | 1.25 (0.50) |  |  |  |  |  |" in text
    assert re.search(r"^\| clips a second .*\| 0.75 to 2.50 times, 1.25 in the median \|$", text, flags=re.MULTILINE)
    assert "| S3D | torchvision | 13 | 23.9 M | 32.7 G | 1.50 | 2.25 |" in text
    assert "7 epochs on 840 videos, 181 test videos, 6 classes, seed 3." in text
    assert "| as it is | 0.70 M | 0.375 | 0.750 | 0.500 | 0.312 |" in text
    assert "| `new_r50` | ssan | 13 | 23.9 M | 32.7 G | 1.50 | 2.25 |" in text
    assert "| MViTv2-S | torchvision |  |  |  |  |  |" in text
    assert "| 0.62 of its processor time (64 frames of 160 px, 1 thread of A processor, median of 5 rounds) |" in text
    assert "| 0.88 of its processor time (16 frames of 160 px, 2 threads of A processor, median of 3 rounds) |" in text
    assert "| 2 ports, 3 clips of 2 videos: logits differ by 5e-07 of the largest at most |" in text
    assert "| 101 kills in 23 runs: final weights of 0 differ |" in text
    assert "| 2 networks: logits differ by 2e-06 at most; 1 refused |" in text
    assert "| 503 files: 0 tracebacks, 0 hangs (no_video 7, ok 3) |" in text
    assert "| 354 files, 83,116 frames: 0 differ |" in text
