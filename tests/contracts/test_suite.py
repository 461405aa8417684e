"""The suite itself: what is said of its files is true, and a forked command is the process that it stands for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import LONGEST, pytest_collection_modifyitems
from tests.forked import ForkedCommand

TESTS = Path(__file__).parents[1]

CODE = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["GIVEN"], os.environ.get("NOT_GIVEN"), os.getsid(0) == os.getpid())
print("caf\u00e9", file=sys.stderr)
sys.stderr.write(repr(sys.stdin.read()))
sys.exit(7)
"""


def test_the_files_that_take_longest_are_there_and_come_first() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []

    class Item:
        def __init__(self, name: str) -> None:
            self.path = TESTS / name

    names = ["video/test_crop.py", LONGEST[1], "video/test_crop.py", LONGEST[0], LONGEST[1]]
    items: list[Any] = [Item(name) for name in names]
    pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [TESTS / names[index] for index in (3, 1, 4, 0, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("session", [False, True])
def test_a_forked_command_has_the_streams_variables_folder_and_status_of_a_started_one(
    session: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_GIVEN", "x")
    environment = {**os.environ, "GIVEN": "\u00fc and more", "PYTHONIOENCODING": "utf-8"}
    del environment["NOT_GIVEN"]
    found = []
    for kind in (subprocess.Popen, ForkedCommand):
        process: Any = kind(
            [sys.executable, "-c", CODE, "a word", "\udcff"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment, cwd=tmp_path, text=True, start_new_session=session,
        )  # fmt: skip
        found.append((*process.communicate(), process.returncode))
    assert found[0] == found[1]
    assert found[0][2] == 7
    assert str(tmp_path) in found[0][0]


@pytest.mark.slow
def test_a_forked_command_hears_signals_and_is_waited_for() -> None:
    code = "import time; print('begun', flush=True); time.sleep(300)"
    command: Any = ForkedCommand([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert command.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.01)
    command.kill()
    assert command.wait(60) == -signal.SIGKILL
    assert command.poll() == -signal.SIGKILL
    command.communicate()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{command.pid}").exists():  # nobody is left behind, not even as a zombie
        assert time.monotonic() < deadline
        time.sleep(0.01)
