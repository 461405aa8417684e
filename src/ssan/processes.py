"""The processes of a run: which of them this one is, as ``torchrun`` or Slurm says it, and that none outlives the rest.

``torchrun`` says it in ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE``; ``srun`` in ``SLURM_PROCID``,
``SLURM_NTASKS``, ``SLURM_LOCALID`` and the number of machines. Where both do, as under ``srun torchrun``, it is
``torchrun`` that made the processes. Nothing else reads their words.
"""

import contextlib
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ssan.errors import UsageError, quoted, shortened

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

# What Slurm calls the job of a shell that somebody types in: `salloc`, and `srun --pty bash`.
INTERACTIVE = ("interactive", "bash")

LOOPBACK = "127.0.0.1"
# torch's own, for who says none.
PORT = 29500


@dataclass(frozen=True)
class Processes:
    """Which of the processes of its run this one is.

    :param rank: of ``world``, counted from 0; process 0 writes the files of the run and speaks for all.
    :param local_rank: of the ``local_world`` on this machine; it computes on the GPU of that number.
    :param machine: of ``machines``, counted from 0.
    :param address: of the machine with process 0, where all of them meet, at ``port``.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    machine: int = 0
    machines: int = 1
    address: str = LOOPBACK
    port: int = PORT
    launcher: str | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    @property
    def cores(self) -> int:
        """Cores for this process: those that it may use, shared with the others of its machine, at least one.

        Slurm may have given each process cores of its own, which are then not shared.
        """
        bound = self.launcher == "slurm" and num_cores() < (os.cpu_count() or 1)
        return max(1, num_cores() if bound else num_cores() // self.local_world)


def processes(environment: Mapping[str, str] | None = None, *, alone_without_srun: bool = False) -> Processes:
    """Which process this is, by the variables of its launcher; one process of one where there is none.

    A shell within Slurm, whose job is called ``interactive`` or ``bash``, starts one process, whatever it was given.

    :param alone_without_srun: what the script of a job of several tasks starts without ``srun`` is one process too. For
        training that is refused, which would seldom be what is meant.

    :raises UsageError: variables that contradict each other, or a part of a launcher's.
    """
    environment = os.environ if environment is None else environment
    said = [name for name in TORCHRUN if name in environment]
    if len(said) == len(TORCHRUN):
        return _of_torchrun(environment)
    found = _of_slurm(environment, alone_without_srun)
    if found is None:
        if said:
            lacking = ", ".join(name for name in TORCHRUN if name not in environment)
            raise UsageError(
                f"{_shown(environment, *said)} is set, as by torchrun, but not {lacking}; start the run with torchrun "
                "or srun, which set all of them, or unset it"
            )
        return Processes()
    # Scripts for Slurm often say the number of processes a second time, in torchrun's words.
    for name, value in zip(TORCHRUN, (found.rank, found.world, found.local_rank, found.local_world), strict=True):
        if name in environment and _number(environment, name) != value:
            raise UsageError(
                f"{_shown(environment, name)} contradicts Slurm's variables, by which it is {value}; unset {name}, "
                "srun says it"
            )
    return found


def _of_torchrun(environment: Mapping[str, str]) -> Processes:
    rank, world, local_rank, local_world = (_number(environment, name) for name in TORCHRUN)
    shown = _shown(environment, *TORCHRUN)
    _check(rank, world, local_rank, local_world, shown, "torchrun")
    machines = world // local_world
    if machines > 1 and not environment.get("MASTER_ADDR"):
        raise UsageError(f"{shown}, on {machines} machines, but MASTER_ADDR does not say where they meet; use torchrun")
    return Processes(
        rank=rank,
        world=world,
        local_rank=local_rank,
        local_world=local_world,
        machine=_number(environment, "GROUP_RANK") if "GROUP_RANK" in environment else rank // local_world,
        machines=machines,
        address=environment.get("MASTER_ADDR") or LOOPBACK,
        port=_port(environment, PORT),
        launcher="torchrun",
    )


def _of_slurm(environment: Mapping[str, str], alone: bool) -> Processes | None:
    """This process by Slurm's variables; None where they speak of a single process, or not of this one."""
    if environment.get("SLURM_JOB_NAME") in INTERACTIVE:
        if environment.get("SLURM_PROCID", "0") != "0":
            raise UsageError(
                f"{_shown(environment, 'SLURM_JOB_NAME', 'SLURM_PROCID')}: several processes were started from a shell "
                "in Slurm, and with this name each would take itself for the only one. Start them with "
                "`SLURM_JOB_NAME=train srun ...`"
            )
        return None
    if "SLURM_NTASKS" not in environment:
        if environment.get("SLURM_PROCID", "0") != "0":
            raise UsageError(f"{_shown(environment, 'SLURM_PROCID')} but SLURM_NTASKS is not set; start with srun")
        return None
    world = _number(environment, "SLURM_NTASKS")
    if world == 1 and environment.get("SLURM_PROCID", "0") == "0":
        return None
    lacking = [name for name in ("SLURM_PROCID", "SLURM_LOCALID") if name not in environment]
    # In the script of a job, Slurm says how many tasks it may have, and that it is task 0 of them.
    in_script = environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environment
    if (lacking or in_script) and alone:
        return None
    if lacking or in_script:
        raise UsageError(
            f"{_shown(environment, 'SLURM_NTASKS')}, but this process was not started by srun"
            + (f" ({', '.join(lacking)} not set)" if lacking else "")
            + ": the others would be waited for in vain. Write `srun ssan train ...`; for one process, "
            "`SLURM_NTASKS=1 ssan train ...`"
        )
    rank, local_rank = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_LOCALID")
    # Of the job's machines a step may use some; what is said of the step counts.
    counts = ("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    count = next((name for name in counts if name in environment), None)
    words = [name for name in ("SLURM_NTASKS", count, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE") if name]
    shown = _shown(environment, *words)
    machines = 1 if count is None else _number(environment, count)
    most = _number(environment, "SLURM_NTASKS_PER_NODE") if "SLURM_NTASKS_PER_NODE" in environment else None
    if machines < 1 or world % machines or (most is not None and world // machines > most):
        raise UsageError(
            f"{shown}: the processes are not shared equally among the machines; use --nodes=N --ntasks-per-node=K with "
            "one K for all, and no --ntasks"
        )
    _check(rank, world, local_rank, world // machines, shown, "srun")
    return Processes(
        rank=rank,
        world=world,
        local_rank=local_rank,
        local_world=world // machines,
        machine=_number(environment, "SLURM_NODEID") if "SLURM_NODEID" in environment else rank // (world // machines),
        machines=machines,
        address=environment.get("MASTER_ADDR") or (_first_machine(environment) if machines > 1 else LOOPBACK),
        port=_port(environment, _port_of_job(environment)),
        launcher="slurm",
    )


def _check(rank: int, world: int, local_rank: int, local_world: int, shown: str, launcher: str) -> None:
    if not (0 <= local_rank < local_world <= world and local_rank <= rank < world) or world % local_world:
        raise UsageError(
            f"{shown} contradict each other: expected ranks below their numbers of processes, and as many processes on "
            f"each machine. Start the run anew with {launcher}, and leave these variables to it"
        )


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    # int() also takes signs, spaces and underscores.
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(
            f"{name} is {quoted(text, 80)}; expected a whole number, as torchrun and srun set it; unset it"
        )
    return int(text)


def _shown(environment: Mapping[str, str], *names: str) -> str:
    return " ".join(f"{name}={shortened(environment[name], 80)}" for name in names if name in environment)


def _port(environment: Mapping[str, str], otherwise: int) -> int:
    if not environment.get("MASTER_PORT"):
        return otherwise
    port = _number(environment, "MASTER_PORT")
    if not 0 < port < 65_536:
        raise UsageError(f"MASTER_PORT is {port}; expected a port, 1 to 65535")
    return port


def _port_of_job(environment: Mapping[str, str]) -> int:
    """A port below those that systems give away, which two jobs or steps at a time on one machine hardly share."""
    words = ("SLURM_JOB_ID", "SLURM_STEP_ID")
    job, step = (_number(environment, name) if name in environment else 0 for name in words)
    return 12_000 + (job * 101 + step) % 20_000


def _first_machine(environment: Mapping[str, str]) -> str:
    """The first of a list of machines in Slurm's short form: ``gpu[03-05,09],big`` begins with ``gpu03``."""
    words = ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
    listed = next((environment[name] for name in words if environment.get(name)), None)
    if listed is None:
        raise UsageError(
            "Slurm's variables speak of several machines, but SLURM_NODELIST does not name them; start with srun, or "
            "set MASTER_ADDR to the first one"
        )
    # Up to the first comma that stands outside of brackets.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", listed)
    assert first is not None
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group())


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM be as Ctrl-C is, so that what was begun is ended in order, and what was started is stopped too.

    Of a shell's job in the background, which ignores Ctrl-C, both are heard again. Elsewhere than in the main thread it
    does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = signal.SIGTERM, signal.SIGINT
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# ------------------------------------------------------------------------------- a process ends with the one it is for

STARTER = "SSAN_STARTER"
"""In the environment of a command of ours that another one has started: the number of the process to end with."""


def told_to_end_with_us() -> dict[str, str]:
    """The environment for a command of ours that is to end when this process does, however that comes about."""
    return {**os.environ, STARTER: str(os.getpid())}


def end_with_starter() -> None:
    """End this process with the one that has started it, if that has asked for it (``told_to_end_with_us``)."""
    number = os.environ.pop(STARTER, "")
    if number.isascii() and number.isdigit() and len(number) < 10:
        end_with(int(number))


def end_with(process: int) -> None:
    """From now on, end this process at once when another one has ended; its files are whole at any time.

    A thread waits for it: what was killed tells nobody.
    """
    if not hasattr(os, "fork"):  # other systems than those of the Unix kind have no way to look without harm
        return
    threading.Thread(target=_wait_and_end, args=(process,), daemon=True, name="ends with another process").start()


def _wait_and_end(process: int) -> None:
    try:
        watched = os.pidfd_open(process) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        os._exit(1)
    except OSError:  # an older kernel
        watched = None
    if watched is not None:
        select.select([watched], [], [])
        os._exit(1)
    while _lives(process):
        time.sleep(0.5)
    os._exit(1)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, by now
        return False
    return True


def be_killed_with_parent(parent: int) -> None:
    """From now on, this process is killed when its parent ends, even while it is stopped or deaf in a library.

    Where the kernel has no such thing a thread looks for it. To the kernel the parent is the very thread that started
    this process, so that has to be one which lasts.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    end_with(parent)


# -------------------------------------------------------------------------------------------- memory for all of them

_sharers = 1


def share_memory_among(number: int) -> None:
    """Say how many processes like this one read videos at the same time, and so share the memory for it."""
    global _sharers
    _sharers = max(_sharers, number)


def memory_share(most: int, least: int) -> int:
    """How many bytes each of the processes that read videos may have: together half of the machine's memory.

    Never more than ``most``, which is also the answer where the machine's memory is not known, or less than ``least``.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    number = _sharers * (int(local) if local.isascii() and local.isdigit() and 0 < len(local) < 6 else 1)
    return max(least, min(most, (_machine_bytes() or 2 * most * number) // 2 // max(1, number)))


def _machine_bytes() -> int | None:
    """The memory of the machine, or what the container of this process may have of it, where the system tells."""
    known = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(ValueError, OSError), open(path, encoding="ascii") as handle:
            known.append(int(handle.read(100)))
    return min(known, default=None)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
