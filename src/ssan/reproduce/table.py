"""Tables: what is asked for of one, its runs made as far as asked, its figures collected, its page written."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from tqdm import tqdm

from ssan.errors import SsanError
from ssan.files import write_json, writing
from ssan.reproduce.page import page
from ssan.reproduce.plan import Data, seeds_of
from ssan.reproduce.results import over_seeds
from ssan.reproduce.runs import Execution, PlannedRun, make_all, refuse_other_data
from ssan.reproduce.tables import R, Table

P = TypeVar("P", bound=PlannedRun)


@dataclass
class TableRequest(ABC, Generic[R, P]):
    """What is asked for of a table; how its rows are trained and shown, a subclass says.

    :param data: that the rows are trained on, each for itself.
    :param mini: the backbone of small networks in place of the recipes' own; None for the recipes' own.
    :param overrides: ``key=value`` for every recipe.
    """

    table: Table[R]
    rows: list[R]
    data: list[Data]
    out: Path
    seeds: int = 1
    mini: str | None = None
    overrides: Sequence[str] = ()
    execution: Execution = field(default_factory=Execution)

    template: ClassVar[str]
    measures: ClassVar[tuple[str, ...]]
    """What is averaged over seeds, where it was measured."""
    headline: ClassVar[tuple[str, str]]
    """The measure that is told of a run that is done: its title, its name."""

    @property
    def name(self) -> str:
        """Of the table's files."""
        return f"{self.table.name}-mini" if self.mini else self.table.name

    def prepare(self) -> None:
        """Render what the rows are trained on, where that is to be rendered."""

    @abstractmethod
    def runs(self, row: R, data: Data, *, seeds: Iterable[int] | None = None) -> list[P]:
        """The runs of a row, one for each seed; none of a row that cannot be trained here."""

    def known(self, row: R, data: Data) -> list[P]:
        """The runs of a row with the seeds asked for, and those that earlier calls have finished beyond them."""
        runs = self.runs(row, data)
        return self.runs(row, data, seeds=seeds_of(runs[0].folder.parent, self.seeds)) if runs else []

    def shown(self, row: R) -> bool:
        """Whether a row stands in the table at hand."""
        return True

    def ensembles(self, row: R, data: Data, failed: list[SsanError], *, make: bool) -> list[dict[str, Any]]:
        """The figures of an ensemble of rows, for each seed of which all members are done.

        :param failed: is added to where one cannot be made.
        :param make: make it anew where it is not there.
        """
        raise NotImplementedError

    @abstractmethod
    def about_row(self, row: R) -> dict[str, Any]:
        """What is known of a row before it is trained."""

    @abstractmethod
    def about_data(self, data: Data, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What is told of a set of data, and of all figures on it."""

    @abstractmethod
    def about_sets(self, sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The figures on each set of data, as they stand in the table's file."""

    @abstractmethod
    def section(self, data: Data, found: Mapping[str, Any]) -> dict[str, Any]:
        """What the page shows of a set of data besides: ``columns``; ``curves``, of each run by epoch, below the title
        of its row, with ``watched``, what they are of; and what the template names."""


def collect(
    request: TableRequest[R, P], data: Data, failed: list[SsanError] | None = None, *, ensembles: bool = False
) -> dict[str, Any]:
    """The figures of every row of the table on one set of data; rows that were not run are blank.

    What is there and is not the run that is asked for is left out, and listed.

    :param failed: is added to where an ensemble cannot be made.
    """
    rows, failed, left_out = [], [] if failed is None else failed, []
    for row in filter(request.shown, request.table.rows):
        if row.members:
            seeds = request.ensembles(row, data, failed, make=ensembles and row in request.rows)
        else:
            known = request.known(row, data)
            seeds = [found for run in known if (found := run.figures()) is not None]
            objections = [error for run in known if (error := run.objection()) is not None]
            left_out += [error.as_dict() for error in objections if str(error) not in map(str, failed)]
        about = {"row": row.name, "title": row.title, **request.about_row(row), "note": row.note}
        rows.append({**about, "seeds": seeds, **over_seeds(seeds, request.measures)})
    return {**request.about_data(data, rows), "rows": rows, "left_out": left_out}


def write(request: TableRequest[R, P], failed: list[SsanError], *, ensembles: bool = False) -> dict[str, Any]:
    """Collect what there is, and write it as ``TABLE.json`` and ``TABLE.html``; the answer has the former's fields."""
    sets = [collect(request, data, failed, ensembles=ensembles) for data in request.data]
    path = request.out / f"{request.name}.html"
    answer = {
        "table": request.table.name,
        "title": request.table.title,
        "mini": request.mini is not None,
        "overrides": list(request.overrides),
        **request.about_sets(sets),
        "failed": [error.as_dict() for error in failed],
        "page": str(path),
    }
    request.out.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), {"schema": 1, **answer})
    sections = [{**found, **request.section(data, found)} for data, found in zip(request.data, sets, strict=True)]
    with writing(path) as handle:
        handle.write(page(request.template, answer, sections))
    return answer


def reproduce_table(request: TableRequest[R, P], *, quiet: bool = False) -> dict[str, Any]:
    """Train and evaluate what is not done of the rows, and write the table's page and figures; the answer has both.

    A run that fails is listed, and the others go on. The page is written anew after each run.
    """
    began = time.monotonic()
    request.prepare()
    every = [run for data in request.data for row in request.rows for run in request.runs(row, data)]
    wanted = list({run.folder: run for run in every}.values())
    refuse_other_data(wanted)
    figures = {run.folder: run.figures() for run in wanted}
    pending = [run for run in wanted if figures[run.folder] is None]
    failed: list[SsanError] = []
    for run in wanted:
        if run not in pending:
            try:
                run.finish_page()
            except SsanError as error:
                failed.append(error)
    name, logs = request.table.name, request.out / "logs"
    say = (lambda text: None) if quiet else (lambda text: tqdm.write(text, file=sys.stderr))
    say(f"{name}: {len(wanted)} runs, {len(wanted) - len(pending)} done; logs in {logs}")
    write(request, failed)
    silent = quiet or not sys.stderr.isatty()
    with tqdm(total=len(pending), desc=name, unit="run", disable=silent, file=sys.stderr) as bar:
        num_done = 0

        def note(run: PlannedRun, error: SsanError | None) -> None:
            nonlocal num_done
            num_done += 1
            bar.update()
            told: object = error
            if error is not None:
                failed.append(error)
            else:
                title, key = request.headline
                told = f"{title} {found[key]:.3f}" if (found := run.figures()) else "not evaluated"
            say(f"{num_done}/{len(pending)} {run.title}: {told}")
            write(request, failed)

        try:
            make_all(pending, request.execution, logs, note)
        except KeyboardInterrupt:
            say(f"stopped; what is done is kept in {request.out}, and the same command goes on")
            raise
    return {**write(request, failed, ensembles=True), "seconds": round(time.monotonic() - began, 1)}
