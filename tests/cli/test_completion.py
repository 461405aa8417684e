"""Completion of the command line in a shell, installed as `--install-completion` does it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BASH = """
source "$HOME/.bashrc"
COMP_WORDS=(ssan tr) COMP_CWORD=1
$(complete -p ssan | sed 's/.*-F \\([^ ]*\\).*/\\1/') ssan
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.slow
def test_completion_is_installed_and_completes(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    ssan = f"{sys.executable} -m ssan"
    # A shell of its own is the one that is found by the command.
    installed = subprocess.run(
        ["bash", "-c", f"{ssan} --install-completion; exit $?"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert (installed.returncode, installed.stderr) == (0, "")
    assert "bash completion installed" in installed.stdout
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "ssan").write_text(f'#!/bin/sh\nexec {ssan} "$@"\n')
    (bin / "ssan").chmod(0o755)
    environment["PATH"] = f"{bin}:{environment['PATH']}"
    completed = subprocess.run(["bash", "-c", BASH], capture_output=True, text=True, check=False, env=environment)
    assert (completed.stdout.split(), completed.stderr) == (["train"], "")
