"""Which process of a run this one is: what torchrun and Slurm say, and what is refused because it cannot be true."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ssan
from ssan import demo
from ssan import processes as processes_module
from ssan.cli import options
from ssan.commands import CommandRunner
from ssan.errors import UsageError
from ssan.processes import Processes, processes
from ssan.training.cluster_environment import Launched

TORCHRUN = {
    "RANK": "13", "WORLD_SIZE": "15", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "5", "GROUP_RANK": "2",
    "MASTER_ADDR": "first", "MASTER_PORT": "4711",
}  # fmt: skip
SLURM = {
    "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "15", "SLURM_PROCID": "13", "SLURM_LOCALID": "3",
    "SLURM_NODEID": "2", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "5", "SLURM_NODELIST": "gpu[03-05]",
}  # fmt: skip


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(UsageError) as caught:
        processes(environment)
    return caught.value.message


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


def test_without_a_launcher_there_is_one_process() -> None:
    assert processes({}) == Processes()
    assert processes({}).first


def test_torchrun_says_the_rank_among_all_and_on_the_machine() -> None:
    found = processes(TORCHRUN)
    assert (found.rank, found.world, found.local_rank, found.local_world) == (13, 15, 3, 5)
    assert (found.machine, found.machines, found.address, found.port) == (2, 3, "first", 4711)
    assert not found.first


def test_slurm_says_the_same_in_its_own_words() -> None:
    found = processes(SLURM)
    assert (found.rank, found.world, found.local_rank, found.local_world) == (13, 15, 3, 5)
    assert (found.machine, found.machines, found.address) == (2, 3, "gpu03")
    assert processes({**SLURM, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}).first


def test_the_number_of_machines_has_two_names_and_may_be_left_out_for_one() -> None:
    assert processes({**without(SLURM, "SLURM_NNODES"), "SLURM_JOB_NUM_NODES": "3"}) == processes(SLURM)
    one = processes({"SLURM_NTASKS": "5", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"})
    assert (one.machines, one.local_world, one.address) == (1, 5, "127.0.0.1")


def test_a_step_on_one_machine_of_a_larger_job_is_on_one_machine() -> None:
    step = {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "gpu05", "SLURM_NTASKS": "5", "SLURM_PROCID": "3"}
    found = processes({**SLURM, **step, "SLURM_NODEID": "0"})
    assert (found.world, found.local_world, found.machines, found.address) == (5, 5, 1, "127.0.0.1")


def test_ranks_that_go_round_the_machines_are_taken_as_they_are() -> None:
    found = processes({**SLURM, "SLURM_PROCID": "10", "SLURM_LOCALID": "3", "SLURM_NODEID": "1"})
    environment = Launched(found)
    environment.set_global_rank(8)
    assert (environment.global_rank(), environment.local_rank(), environment.node_rank()) == (10, 3, 1)


def test_torchrun_within_slurm_made_the_processes() -> None:
    assert processes({**SLURM, **TORCHRUN, "SLURM_NTASKS": "3", "SLURM_PROCID": "2"}) == processes(TORCHRUN)


@pytest.mark.parametrize("name", ["interactive", "bash"])
def test_a_shell_within_slurm_starts_one_process(name: str) -> None:
    shell = {**SLURM, "SLURM_JOB_NAME": name, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert processes(shell) == Processes()
    assert processes(without(shell, "SLURM_PROCID", "SLURM_LOCALID")) == Processes()
    assert "SLURM_JOB_NAME=train srun" in refused({**shell, "SLURM_PROCID": "3"})


def test_a_job_of_one_task_is_one_process_with_or_without_srun() -> None:
    alone = {"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NNODES": "1", "ENVIRONMENT": "BATCH"}
    assert processes(alone) == processes({**alone, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) == Processes()
    assert processes({"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7"}) == Processes()


def test_a_job_of_several_tasks_without_srun_is_refused_before_it_waits_for_them() -> None:
    script = {**SLURM, "ENVIRONMENT": "BATCH", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    assert "SLURM_NTASKS=15, but this process was not started by srun: " in refused(script)
    assert processes({**script, "SLURM_STEP_ID": "0"}).world == 15
    message = refused(without(SLURM, "SLURM_PROCID", "SLURM_LOCALID"))
    assert "not started by srun (SLURM_PROCID, SLURM_LOCALID not set)" in message


@pytest.mark.parametrize("left", [("RANK",), ("WORLD_SIZE",), ("RANK", "WORLD_SIZE"), ("LOCAL_RANK",)])
def test_a_part_of_what_torchrun_says_is_refused_and_the_rest_named(left: tuple[str, ...]) -> None:
    message = refused({name: TORCHRUN[name] for name in left})
    lacking = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE") if name not in left]
    assert f"{left[0]}={TORCHRUN[left[0]]}" in message
    assert f"not {', '.join(lacking)};" in message


@pytest.mark.parametrize("lacking", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NODELIST"])
def test_a_part_of_what_slurm_says_is_refused_and_the_rest_named(lacking: str) -> None:
    assert lacking in refused(without(SLURM, lacking))


@pytest.mark.parametrize(
    "change",
    [
        {"RANK": "15"},
        {"LOCAL_RANK": "5"},
        {"LOCAL_WORLD_SIZE": "4"},
        {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
        {"LOCAL_WORLD_SIZE": "0"},
        {"RANK": "2"},
    ],
)
def test_words_of_torchrun_that_contradict_each_other_are_refused(change: dict[str, str]) -> None:
    message = refused({**TORCHRUN, **change})
    assert "contradict each other" in message
    assert all(f"{name}={value}" in message for name, value in change.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SLURM_PROCID": "15"}, "contradict each other"),
        ({"SLURM_LOCALID": "5"}, "contradict each other"),
        ({"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "6"}, "not shared equally"),
        ({"SLURM_NTASKS_PER_NODE": "4"}, "not shared equally"),
        ({"SLURM_NNODES": "0"}, "not shared equally"),
        ({"SLURM_NTASKS": "1"}, "contradict each other"),
    ],
)
def test_words_of_slurm_that_contradict_each_other_are_refused(change: dict[str, str], said: str) -> None:
    if change.get("SLURM_NTASKS") == "1":
        change = {**change, "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    assert said in refused({**SLURM, **change})


def test_a_script_may_say_the_number_of_processes_again_but_not_another_one() -> None:
    assert processes({**SLURM, "WORLD_SIZE": "15", "MASTER_ADDR": "other", "MASTER_PORT": "4712"}).address == "other"
    assert "WORLD_SIZE=8 contradicts Slurm's variables, by which it is 15" in refused({**SLURM, "WORLD_SIZE": "8"})
    assert "LOCAL_RANK=0 contradicts" in refused({**SLURM, "LOCAL_RANK": "0"})


@pytest.mark.parametrize("value", ["", "two", "-1", "1.0", " 3", "1_0", "9" * 50, "²"])
def test_what_is_no_number_is_refused_by_name(value: str) -> None:
    assert "LOCAL_RANK is " in refused({**TORCHRUN, "LOCAL_RANK": value})
    assert "SLURM_LOCALID is " in refused({**SLURM, "SLURM_LOCALID": value})


@pytest.mark.parametrize(
    ("machines", "first"),
    [
        ("gpu[03-05,09],big", "gpu03"),
        ("gpu7,gpu[01-02]", "gpu7"),
        ("node-a[5,7-9]-ib", "node-a5-ib"),
        ("r[2-3]n[01-04],z", "r2n01"),
        ("big", "big"),
    ],
)
def test_processes_meet_on_the_first_machine_of_the_list(machines: str, first: str) -> None:
    assert processes({**SLURM, "SLURM_NODELIST": machines}).address == first


def test_the_port_follows_from_the_job_and_its_step_unless_it_is_said() -> None:
    ports = {processes({**SLURM, "SLURM_JOB_ID": job, "SLURM_STEP_ID": step}).port for job in "789" for step in "01"}
    assert len(ports) == 6
    assert processes(SLURM).port == processes({**SLURM, "SLURM_PROCID": "12"}).port == 12_000 + 7 * 101
    assert processes({**SLURM, "MASTER_PORT": "4712"}).port == 4712
    assert "MASTER_PORT is 65536" in refused({**SLURM, "MASTER_PORT": "65536"})
    assert "MASTER_ADDR" in refused(without(TORCHRUN, "MASTER_ADDR"))


def test_processes_of_a_machine_share_its_cores_unless_slurm_gave_each_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 35)
    monkeypatch.setattr(processes_module, "num_cores", lambda: 35)
    assert (processes(TORCHRUN).cores, processes(SLURM).cores, Processes().cores) == (7, 7, 35)
    monkeypatch.setattr(processes_module, "num_cores", lambda: 6)
    assert (processes(TORCHRUN).cores, processes(SLURM).cores) == (1, 6)
    assert options.choose_workers(None, 3) == 2


def test_one_file_alone_reads_what_launchers_say() -> None:
    words = re.compile(r"\"(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|MASTER_\w+|SLURM_\w+)\"")
    src = Path(ssan.__file__).parent
    readers = {path.name for path in src.rglob("*.py") if words.search(path.read_text(encoding="utf-8"))}
    assert readers == {"processes.py"}


def test_lightning_is_told_and_does_not_look_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning.pytorch as pl

    shell: dict[str, Any] = {**SLURM, "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    options_: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**options_, plugins=[Launched(processes())], barebones=False)
    assert (trainer.world_size, trainer.global_rank) == (1, 0)
    assert isinstance(trainer._accelerator_connector.cluster_environment, Launched)


# ------------------------------------------------------------------------------- a process ends with the one it is for

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot look at another process without harm")

# A command of ours that another one has started, and that would go on for ten minutes.
COMMAND = "import time; from ssan.cli import main; main.status = lambda words: time.sleep(600); print(flush=True); "
STARTER = """
import subprocess, sys
from ssan.processes import told_to_end_with_us
command = subprocess.Popen([sys.executable, "-c", sys.argv[1] + "main.run()"], env=told_to_end_with_us(),
                           stdout=subprocess.PIPE, start_new_session=True)
command.stdout.readline()
print(command.pid, flush=True)
command.wait()
"""


def has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat")
        return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("known", ["by the kernel", "by looking"])
def test_a_command_that_another_one_has_started_ends_with_it_however_that_ends(known: str) -> None:
    command = COMMAND if known == "by the kernel" else f"import os; os.__dict__.pop('pidfd_open', None); {COMMAND}"
    with subprocess.Popen([sys.executable, "-c", STARTER, command], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        process = int(starter.stdout.readline())
        time.sleep(0.2)
        assert not has_ended(process)
        starter.kill()
    deadline = time.monotonic() + 60
    while not has_ended(process):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.02)


@POSIX
def test_a_command_whose_starter_has_ended_already_ends_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    environment = {**os.environ, processes_module.STARTER: str(gone.pid)}
    done = subprocess.run([sys.executable, "-c", f"{COMMAND} main.run()"], env=environment, timeout=120, check=False)
    assert done.returncode == 1


def test_a_command_that_nobody_has_told_to_ends_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(processes_module, "end_with", ended.append)
    monkeypatch.delenv(processes_module.STARTER, raising=False)
    processes_module.end_with_starter()
    for word in ("", "x", "-3", "1" * 30):
        monkeypatch.setenv(processes_module.STARTER, word)
        processes_module.end_with_starter()
    assert ended == []
    monkeypatch.setenv(processes_module.STARTER, "4711")
    processes_module.end_with_starter()
    assert ended == [4711]
    assert processes_module.STARTER not in os.environ  # what it starts itself has itself to end with


def test_what_reproduce_and_the_demo_start_is_told_to_end_with_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[dict[str, str]] = []

    def start(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
        started.append(env)
        raise OSError

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(OSError):
        CommandRunner().run("train", log=tmp_path / "log")
    with pytest.raises(OSError):
        demo._train(CommandRunner(), "ssan_tiny", tmp_path, "data", None, 0, True, 1)
    assert [env[processes_module.STARTER] for env in started] == [str(os.getpid())] * 2
