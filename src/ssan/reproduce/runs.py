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

import numpy as np

from ssan.errors import SsanError, TrainingError, UsageError
from ssan.files import writing
from ssan.processes import terminable, told_to_end_with_us
from ssan.recipe import write_recipe
from ssan.recognition.metrics import accuracy
from ssan.recognition.score_file import read_scores
from ssan.recognition.train import complete
from ssan.report.journal_runs import number, whole
from ssan.reproduce.plan import PlannedRun
from ssan.reproduce.sameness import (
    evaluations,
    has_ended,
    is_of_these_videos,
    last_start,
    other_recipe,
    other_videos,
    refused,
)
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


def events_of(folder: Path) -> list[dict[str, Any]]:
    """What the journal in a run's folder tells; nothing where there is none.

    :raises UsageError: a line of it is damaged.
    """
    path = folder / "journal.jsonl"
    return read_journal(path) if path.exists() else []


def evaluation(run: PlannedRun, protocol: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last evaluation of a finished run by this protocol, as its journal has it; None where there is none.

    None too where the run was trained by another recipe or on other videos than are asked for, or its journal is
    damaged (``objection`` says so); where the evaluation was of others, or is no evaluation; and where the scores in
    the folder are not those that it tells of.
    """
    try:
        events = events_of(run.folder)
    except UsageError:
        return None
    if not has_ended(events) or _differing(run, events):
        return None
    for event in evaluations(events):
        used = event.get("protocol")
        if (
            event.get("split") == run.data.split
            and isinstance(used, Mapping)
            and all(used.get(key) == value for key, value in protocol.items())
            and is_of_these_videos(event, run.data.seen)
            and _is_measured(event)
        ):
            return dict(event) if _are_its_scores(run, event) else None
    return None


def objection(run: PlannedRun) -> SsanError | None:
    """Why a run that is there is not the one that is asked for; None where it is, or has not been begun."""
    try:
        differing = _differing(run, events_of(run.folder))
    except UsageError as error:
        return error
    return refused(differing, str(run.folder)) if differing else None


def refuse_other_videos(runs: Sequence[PlannedRun]) -> None:
    """Look whether the runs that are there are of the videos that are asked for, before anything is made.

    :raises UsageError: some are of others.
    """
    others = []
    for run in runs:
        try:
            start = last_start(events_of(run.folder))
        except UsageError:
            continue
        if start and (said := other_videos(start, run.data.seen)):
            others.append((run, said))
    if others:
        (run, said), num = others[0], len(others)
        raise UsageError(
            f"this run is of other videos than are named now, as {num} of the {len(runs)} that are wanted are: "
            f"{'; '.join(said)}. Name another folder with --out, or remove {run.folder.parents[1]}",
            path=str(run.folder),
        )


def _differing(run: PlannedRun, events: Sequence[Mapping[str, Any]]) -> list[str]:
    start = last_start(events)
    return [*other_recipe(start, complete(run.recipe)), *other_videos(start, run.data.seen)] if start else []


def _is_measured(event: Mapping[str, Any]) -> bool:
    """Whether an evaluation has the figures that a table shows; what is no share or no count is none."""
    shares = [number(event.get(key)) for key in ("top1", "top5")]
    counts = [whole(event.get(key)) for key in ("num_scored", "num_missing", "num_failed")]
    return all(share is not None and 0 <= share <= 1 for share in shares) and all(
        count is not None and count >= 0 for count in counts
    )


def _are_its_scores(run: PlannedRun, event: Mapping[str, Any]) -> bool:
    """Whether the score file in a run's folder is of an evaluation: by its protocol, its videos and their labels.

    One that a killed command or another one has left is not; it is then written anew.
    """
    try:
        found = read_scores(run.folder / SCORES)
    except SsanError:
        return False
    if len(found.ids) != event["num_scored"] or found.protocol != event["protocol"]:
        return False
    seen = run.data.seen
    if seen is not None and any(
        seen.labels.get(name, -2) != label for name, label in zip(found.ids, found.labels.tolist(), strict=True)
    ):
        return False
    # Scores are kept with fewer digits than they were measured with, so that equal ones may be ranked otherwise.
    return abs(accuracy(found.scores, np.asarray(found.labels)) - event["top1"]) <= 2 / len(found.ids)


def make(run: PlannedRun, crew: Crew, protocol: Mapping[str, Any], log: Path) -> None:
    """Train and evaluate one run, as far as it is not done, and make its page.

    :raises SsanError: it cannot be made, or another run is there.
    """
    problem = objection(run)
    if problem is not None:
        raise problem
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


def _recipe_file(run: PlannedRun) -> Path:
    """Beside the folders of all its seeds, which the command line sets."""
    return run.folder.parent / "recipe.yaml"


def _trained(run: PlannedRun) -> bool:
    if not has_ended(events_of(run.folder)):
        return False
    if not (run.folder / "model.safetensors").exists():
        raise UsageError(
            "the run has ended, and its model.safetensors is gone; remove the folder and run again, or put it back",
            code="missing",
            path=str(run.folder),
        )
    return True


def make_all(
    runs: Sequence[PlannedRun],
    means: Means,
    protocol: Mapping[str, Any],
    logs: Path,
    on_done: Callable[[PlannedRun, SsanError | None], None],
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


def ensemble(members: Sequence[PlannedRun], crew: Crew, log: Path, scores: Path) -> dict[str, Any]:
    """Add the scores of runs; the answer of ``ssan ensemble``."""
    scores.parent.mkdir(parents=True, exist_ok=True)
    files = [str(run.folder / SCORES) for run in members]
    answer: dict[str, Any] = json.loads(crew.ssan(log, "ensemble", *files, "-o", str(scores), "--json"))
    return answer
