"""Commands of ssan that another one runs: which status is a failure, what is said of it, and how they are stopped."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssan.commands import CommandRunner
from ssan.errors import TrainingError


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is started; in its place a program whose status is the last word, which says so on standard error."""
    started: list[list[str]] = []
    start = subprocess.Popen

    def other(command: list[str], **options: Any) -> Any:
        started.append(command)
        code = f"import sys; print('done'); sys.stderr.write('ssan: status {command[-1]}\\n'); sys.exit({command[-1]})"
        return start([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", other)
    return started


@pytest.mark.parametrize(("status", "some_may_fail", "fails"), [(0, False, False), (1, False, True), (1, True, False),
                                                                (2, True, True), (130, True, True)])  # fmt: skip
def test_status_1_is_a_failure_but_where_some_videos_may_fail(
    tmp_path: Path, programs: list[list[str]], status: int, some_may_fail: bool, fails: bool
) -> None:
    words = ("train", str(status))
    log = tmp_path / "logs" / "a.log"
    if fails:
        with pytest.raises(TrainingError, match=rf"`ssan train` ended with status {status}: status {status}\. Look"):
            CommandRunner().run(*words, log=log, some_may_fail=some_may_fail)
    else:
        assert CommandRunner().run(*words, log=log, some_may_fail=some_may_fail) == "done\n"
    assert programs == [[sys.executable, "-m", "ssan", *words]]
    assert log.read_text() == f"ssan: status {status}\n"


def test_without_a_log_what_a_command_says_is_shown(
    programs: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match=r"ended with status 2: see above"):
        CommandRunner().run("train", "2")
    assert capfd.readouterr().err == "ssan: status 2\n"


def test_after_an_error_no_further_command_is_begun_until_it_is_entered_again(programs: list[list[str]]) -> None:
    runner = CommandRunner()
    with pytest.raises(ZeroDivisionError), runner:
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt):
        runner.run("train", "0")
    assert programs == []
    with runner:
        assert runner.run("train", "0") == "done\n"
