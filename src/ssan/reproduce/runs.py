"""Runs: what is trained and measured with one seed in one folder, several at a time; what is done is not done again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ssan.commands import CommandRunner
from ssan.errors import SsanError, UsageError
from ssan.files import writing
from ssan.processes import terminable
from ssan.recipe import Recipe, RetrievalRecipe, write_recipe
from ssan.reproduce.results import events_of
from ssan.reproduce.sameness import last_start, refused

SsanCommand = Callable[..., str]
"""Runs a command of ssan of these words, ``num_processes`` of it, and returns what it prints."""


@dataclass(frozen=True)
class Execution:
    """By what runs are made.

    :param jobs: runs at a time.
    :param processes: of each training; more than one are started by ``torchrun``.
    :param device: where networks compute, as ``--device`` takes it.
    :param workers: processes of each training that read videos; None leaves them to the command.
    :param threads: of each process; None leaves them alone.
    """

    jobs: int = 1
    processes: int = 1
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    skip_bad: bool = False

    @property
    def on_device(self) -> list[str]:
        """Options of the command line for every command that computes."""
        return ["--device", self.device]

    @property
    def reading(self) -> list[str]:
        """Options for commands that compute and read data."""
        return [*self.on_device, *(["--workers", str(self.workers)] if self.workers is not None else [])]

    @property
    def skipping(self) -> list[str]:
        return ["--skip-bad"] if self.skip_bad else []


@dataclass(frozen=True)
class PlannedRun(ABC):
    """One training of one row, with one seed, and what is measured of it.

    :param recipe: with the seed.
    :param folder: of the run, in which the command line leaves journal and model; ``OUT/runs/DATA/NAME/seed_N``.
    """

    recipe: Recipe | RetrievalRecipe
    seed: int
    folder: Path

    material: ClassVar[str] = "data"
    """What the run is of, in a message."""

    @property
    def title(self) -> str:
        return "/".join(self.folder.parts[-3:])

    @abstractmethod
    def differing(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """In what a run that was begun differs from the one that is asked for, in words; empty where it does not."""

    @abstractmethod
    def other_data(self, start: Mapping[str, Any]) -> list[str]:
        """In what the data that a run was begun on differ from those that are asked for, in words."""

    @abstractmethod
    def figures(self) -> dict[str, Any] | None:
        """The figures of a finished run; None where it is not finished, or is not the one that is asked for."""

    @abstractmethod
    def make(self, ssan: SsanCommand, execution: Execution) -> None:
        """Train and evaluate it, as far as it is not done.

        :raises SsanError: it cannot be made, or another run is there.
        """

    def finish_page(self) -> None:  # noqa: B027 - not every run has a page
        """Make the page that a command has not made which was killed after the figures.

        :raises SsanError: it cannot be made.
        """

    def objection(self) -> SsanError | None:
        """Why a run that is there is not the one that is asked for; None where it is, or has not been begun."""
        try:
            differing = self.differing(events_of(self.folder))
        except SsanError as error:
            return error
        return refused(differing, str(self.folder)) if differing else None

    def refuse_another(self) -> None:
        """:raises SsanError: another run is there than the one that is asked for."""
        problem = self.objection()
        if problem is not None:
            raise problem

    @property
    def recipe_file(self) -> Path:
        """Beside the folders of all its seeds, which the command line sets."""
        return self.folder.parent / "recipe.yaml"

    def write_recipe(self) -> None:
        with writing(self.recipe_file) as handle:
            handle.write(write_recipe(self.recipe.model_copy(update={"seed": 0})))


def refuse_other_data(runs: Sequence[PlannedRun]) -> None:
    """Look whether the runs that are there are of the data that are asked for, before anything is made.

    :raises UsageError: some are of others.
    """
    others = []
    for run in runs:
        try:
            start = last_start(events_of(run.folder))
        except UsageError:
            continue
        if start and (said := run.other_data(start)):
            others.append((run, said))
    if others:
        (run, said), num = others[0], len(others)
        raise UsageError(
            f"this run is of other {run.material} than are named now, as {num} of the {len(runs)} that are wanted are: "
            f"{'; '.join(said)}. Name another folder with --out, or remove {run.folder.parents[1]}",
            path=str(run.folder),
        )


def make_all(
    runs: Sequence[PlannedRun],
    execution: Execution,
    logs: Path,
    on_done: Callable[[PlannedRun, SsanError | None], None],
) -> None:
    """Train and evaluate what is not done yet; ``on_done`` is told of each run, with its error if it failed.

    Ctrl-C and SIGTERM stop all of them with their states saved, and raise ``KeyboardInterrupt``.
    """
    for run in {run.recipe_file: run for run in runs}.values():
        run.write_recipe()
    with terminable(), ThreadPoolExecutor(execution.jobs) as pool, CommandRunner(execution.threads) as runner:
        futures = {}
        for run in runs:
            ssan = partial(runner.run, log=logs / f"{'_'.join(run.folder.parts[-3:])}.log", some_may_fail=True)
            futures[pool.submit(run.make, ssan, execution)] = run
        for future in as_completed(futures):
            try:
                future.result()
            except SsanError as error:
                on_done(futures[future], error)
            else:
                on_done(futures[future], None)
