"""The README's commands and code run, in order, as they stand there but for sizes that would take minutes."""

import re
import shlex
from pathlib import Path

import pytest

from ssan.cli.main import app, status
from ssan.cli.recipes import shipped
from ssan.recipe import recipe_keys

ROOT = Path(__file__).parents[1]
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
