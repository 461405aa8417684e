"""The README's commands and code run, in order, as they stand there but for sizes that would take minutes."""

import json
import re
import shlex
from pathlib import Path

import pytest
from benchmarks.pages import tables

from ssan.cli.main import app, status
from ssan.recipe import recipe_keys
from ssan.shipped import shipped

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is made smaller, so that the test takes seconds; each must be found, or the README has moved on.
SMALLER = {
    "--videos 2000": "--videos 48",
    "--recipe demo/ssan_tiny --data clips --out runs/order": "{} epochs=1 batch=8",
}


def console_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_every_command_of_the_readme_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [command for command in console_commands() if not command.startswith("pip ")]
    assert len(commands) >= 4
    for old in SMALLER:
        assert any(old in command for command in commands), f"{old!r} is no longer in the README"
    for command in commands:
        for old, new in SMALLER.items():
            command = command.replace(old, new.format(old))
        program, *arguments = shlex.split(command)
        assert program == "ssan"
        workers = [] if arguments[0] in ("models", "recipes") else ["--workers", "0"]
        code = status([*arguments, *workers])
        said = capfd.readouterr()
        assert code == 0, f"{command}: {said.err}"
        assert said.out.strip(), f"{command} prints nothing"


def test_every_python_block_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_indented_commands_name_verbs_options_and_recipes_that_there_are() -> None:
    import typer

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    mentioned = re.findall(r"(?:^    |`)ssan ([a-z].*?)(?:`|$)", README, flags=re.MULTILINE)
    assert len(mentioned) > 5
    for command in mentioned:
        words = shlex.split(command)
        verb = verbs[words[0]]
        if words[0] in ("data", "recipes"):
            verb = verb.commands[words[1]]
        known = {flag for parameter in verb.params for flag in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{word} in {command!r}"
        if "--recipe" in words:
            assert words[words.index("--recipe") + 1] in shipped()


def test_overrides_that_the_readme_names_are_recipe_keys() -> None:
    for key in re.findall(r"`?\b([a-z_]+)(?:\.[a-z_*]+)=", README):
        assert key in recipe_keys(), key


def test_every_link_into_the_project_leads_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{page} links to {target}"


def test_measured_figures_are_those_of_the_committed_results() -> None:
    assert tables.with_section(README, tables.section()) == README, (
        "run `python -m benchmarks.pages.tables` and commit README.md"
    )


def test_what_was_not_run_is_blank(tmp_path: Path) -> None:
    text = tables.section(tmp_path)
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
                "| frames",
                "| training runs",
                "| damaged",
                "| other toolkits",
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
        "soak": {"kills": 101, "runs": 23, "differences": 0},
        "hostile": {"files": 503, "tracebacks": 0, "hangs": 0, "codes": {"no_video": 7, "ok": 3}},
        "parity": {"rows": [{"largest_difference": 3e-7}, {"largest_difference": 2e-6}, {"refused": "it has"}]},
        "exactness": {"files": 354, "frames": 83116, "differences": 0},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    text = tables.section(tmp_path)
    assert "| h264 with B frames (1) |  | 0.61 | 1.00 |  | 0.97 |  |" in text
    assert "| S3D | torchvision | 13 | 23.9 M | 32.7 G | 1.50 | 2.25 |" in text
    assert "7 epochs on 840 videos, 181 test videos, 6 classes, seed 3." in text
    assert "| as it is | 0.70 M | 0.375 | 0.750 | 0.500 | 0.312 |" in text
    assert "| `new_r50` | ssan | 13 | 23.9 M | 32.7 G | 1.50 | 2.25 |" in text
    assert "| MViTv2-S | torchvision |  |  |  |  |  |" in text
    assert "| 101 kills in 23 runs: final weights of 0 differ |" in text
    assert "| 2 networks: logits differ by 2e-06 at most; 1 refused |" in text
    assert "| 503 files: 0 tracebacks, 0 hangs (no_video 7, ok 3) |" in text
    assert "| 354 files, 83,116 frames: 0 differ |" in text
