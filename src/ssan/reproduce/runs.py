"""Training and evaluating runs, several at a time, each by commands of its own; what is done is not done again."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssan.errors import SsanError, TrainingError
from ssan.files import writing
from ssan.processes import terminable, told_to_end_with_us
from ssan.recipe import write_recipe
from ssan.recognition.train import complete
from ssan.reproduce.plan import Run
from ssan.training.journal import read_journal

SCORES = "scores.npz"
PATIENCE_SECONDS = 120.0
"""How long a training may take to save its state when it is told to stop."""


@dataclass(frozen=True)
class Means:
    """By what runs are made.

    :param jobs: runs at a time.
    :param processes: of each training; more than one are started by ``torchrun``.
    :param words: options for both commands: ``--device``, ``--workers``.
    :param threads: of each process; None leaves them alone.
    """

    jobs: int = 1
    processes: int = 1
    words: tuple[str, ...] = ()
    threads: int | None = None
    skip_bad: bool = False


class Crew:
    """The commands that are under way. Stopped, each saves its state, and no further one is begun."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def ssan(self, log: Path, *words: str, processes: int = 1) -> str:
        """Run a command of ssan and return what it prints; what it says on the way goes to ``log``.

        :raises TrainingError: it failed, with its last words; KeyboardInterrupt: it was stopped.
        """
        program = [sys.executable, "-m"]
        if processes > 1:
            program += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        environment = told_to_end_with_us()
        if self.means.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.means.threads)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as told:
            with self._lock:
                if self._stopped:
                    raise KeyboardInterrupt
                # In a session of its own: Ctrl-C is for this process to pass on, once.
                process = subprocess.Popen(
                    [*program, "ssan", *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=told, text=True, start_new_session=True,
                )  # fmt: skip
                self._running.add(process)
            printed = process.communicate()[0]
            with self._lock:
                self._running.discard(process)
        if self._has_stopped() and process.returncode != 0:
            raise KeyboardInterrupt
        if process.returncode not in (0, 1):  # 1: done, though some videos failed, which the answer counts
            raise TrainingError(
                f"`ssan {words[0]}` ended with status {process.returncode}: {_last_words(log)}. Look at the log, "
                "and run again: what is done stays",
                path=str(log),
            )
        return printed

    def _has_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("ssan: ") if lines else "it said nothing"


def evaluation(run: Run, protocol: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last evaluation of a finished run by this protocol, as its journal has it; None where there is none.

    None too where the run was trained by another recipe than is asked for: training it then says what differs.
    """
    if not (run.folder / "journal.jsonl").exists() or not (run.folder / SCORES).exists():
        return None
    events = read_journal(run.folder / "journal.jsonl")
    if not any(event.get("event") == "end" for event in events) or not _is_of_recipe(run, events):
        return None
    for event in reversed(events):
        if event.get("event") == "evaluated" and event.get("split") == run.data.split:
            used = event.get("protocol", {})
            if all(used.get(key) == value for key, value in protocol.items()):
                return event
    return None


def make(run: Run, crew: Crew, protocol: Mapping[str, Any], log: Path) -> None:
    """Train and evaluate one run, as far as it is not done, and make its page."""
    common = [*run.data.words, *crew.means.words, "--seed", str(run.seed), "--quiet", "--json"]
    if not _trained(run):
        more = ["--skip-bad"] if crew.means.skip_bad else []
        crew.ssan(
            log, "train", "--recipe", str(_recipe_file(run)), "--out", str(run.folder), "--resume", *more, *common,
            processes=crew.means.processes,
        )  # fmt: skip
    crew.ssan(
        log, "eval", str(run.folder), "--split", run.data.split, "--scores", str(run.folder / SCORES),
        "--views", str(protocol["views"]), "--crops", str(protocol["crops"]), "--average", protocol["average"],
        *(["--probe"] if run.data.task else []), *common,
    )  # fmt: skip
    crew.ssan(log, "report", str(run.folder))


def _recipe_file(run: Run) -> Path:
    """Beside the folders of all its seeds, which the command line sets."""
    return run.folder.parent / "recipe.yaml"


def _trained(run: Run) -> bool:
    path = run.folder / "journal.jsonl"
    events = read_journal(path) if path.exists() else []
    return any(event.get("event") == "end" for event in events) and _is_of_recipe(run, events)


def _is_of_recipe(run: Run, events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run was trained by the recipe that is asked for, as far as its version of ssan knew the keys."""
    used: dict[str, Any] = next((event["recipe"] for event in reversed(events) if event.get("event") == "start"), {})
    asked = json.loads(json.dumps(complete(run.recipe).model_dump()))
    return all(asked[key] == value for key, value in used.items() if key in asked)


def make_all(
    runs: Sequence[Run],
    means: Means,
    protocol: Mapping[str, Any],
    logs: Path,
    on_done: Callable[[Run, SsanError | None], None],
) -> None:
    """Train and evaluate what is not done yet; ``on_done`` is told of each run, with its error if it failed.

    Ctrl-C and SIGTERM stop all of them with their states saved, and raise ``KeyboardInterrupt``.
    """
    crew = Crew(means)
    for path, recipe in {_recipe_file(run): run.recipe.model_copy(update={"seed": 0}) for run in runs}.items():
        with writing(path) as handle:
            handle.write(write_recipe(recipe))
    with terminable(), ThreadPoolExecutor(means.jobs) as pool:
        futures = {
            pool.submit(make, run, crew, protocol, logs / f"{'_'.join(run.folder.parts[-3:])}.log"): run for run in runs
        }
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except SsanError as error:
                    on_done(futures[future], error)
                else:
                    on_done(futures[future], None)
        except BaseException:
            crew.stop()
            pool.shutdown(cancel_futures=True)
            raise


def ensemble(members: Sequence[Run], crew: Crew, log: Path, scores: Path) -> dict[str, Any]:
    """Add the scores of runs; the answer of ``ssan ensemble``."""
    scores.parent.mkdir(parents=True, exist_ok=True)
    files = [str(run.folder / SCORES) for run in members]
    answer: dict[str, Any] = json.loads(crew.ssan(log, "ensemble", *files, "-o", str(scores), "--json"))
    return answer
