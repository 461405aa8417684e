"""Options that mean the same in every command, and what commands do with their answers."""

import builtins
import dataclasses
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssan.cli.screen import print
from ssan.errors import SsanError, UsageError, escaped_json
from ssan.files import is_text
from ssan.processes import num_cores

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource

DONE, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

Data = Annotated[str, typer.Option(help="Folder or file of labelled videos.")]
Source = Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="Folder or file of labelled videos.")]
SourceOption = Annotated[str | None, typer.Option("--data", metavar="SOURCE", help="The same as the argument.")]
Format = Annotated[
    str,
    typer.Option(
        help="auto, folder, csv, sthv1, sthv2, jester, kinetics400, ucf101, hmdb51, tsm_list, mmaction2_list, "
        "msrvtt, youcook2, lsmdc, captions_csv or howto100m."
    ),
]
Annotations = Annotated[str | None, typer.Option(help="Annotations, where they lie apart from --data.")]
Videos = Annotated[str | None, typer.Option(help="Folder of the videos, where they lie apart.")]
Splits = Annotated[str | None, typer.Option(help="CSV with columns path,split, for a folder of classes.")]
ValGroups = Annotated[
    str | None, typer.Option(help="'REGEX=a,b,c': file names whose group is a, b or c are for validation.")
]
ValFraction = Annotated[str | None, typer.Option(metavar="SHARE", help="Such a share of each class for validation.")]
Fold = Annotated[str | None, typer.Option(metavar="K/N", help="The Kth of N parts for validation; or a list's fold.")]
Groups = Annotated[
    str | None, typer.Option(metavar="REGEX", help="Videos with one group stay together, with --val-fraction, --fold.")
]
Reader = Annotated[list[str] | None, typer.Option(help="key=value for the format's reader; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that read videos; by default by the machine.")]


def data_source(
    data: str,
    format: str,
    annotations: str | None,
    videos: str | None,
    splits: str | None,
    val_groups: str | None,
    reader: list[str] | None,
    *,
    val_fraction: str | None = None,
    fold: str | None = None,
    groups: str | None = None,
) -> "DataSource":
    """The data that the common options name."""
    from ssan.datasets.source import DataSource

    named = {
        "annotations": annotations, "videos": videos, "splits": splits, "val_groups": val_groups,
        "val_fraction": val_fraction, "fold": fold, "groups": groups,
    }  # fmt: skip
    options = {key: value for key, value in named.items() if value is not None}
    for option in reader or []:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"--reader {option!r}: expected key=value")
        if key in options:
            raise UsageError(f"--reader {option!r}: {key} is given already, as {options[key]!r}; give it once")
        options[key] = value
    return DataSource(data, format, options)


def one_source(argument: str | None, option: str | None) -> str:
    """What is given as the first argument or as ``--data``; both, or neither, are refused."""
    if argument is not None and option is not None:
        raise UsageError(f"the data are given twice, as {argument!r} and as --data {option!r}; give them once")
    if argument is None and option is None:
        raise UsageError("no data are given; name their folder or file, or say --data SOURCE")
    return argument or option or ""


def check_output(option: str, path: str, suffixes: Sequence[str]) -> None:
    """Refuse, before the work, an output of a kind that is not written, or a folder where a file is to be."""
    if os.path.splitext(path)[1].lower() not in suffixes:
        raise UsageError(f"{option} {path}: its name must end in {' or '.join(suffixes)}")
    if os.path.isdir(path):
        raise UsageError(f"{option}: a folder, where a file is to be written; name another place", path=path)


def choose_device(device: str) -> Literal["cpu", "cuda"]:
    """The device to use; ``cuda`` where there is none is refused."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device can be used here; use --device cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def choose_workers(workers: int | None, cores: int | None = None) -> int:
    """Loader processes: as told, or one for each core but one, four at most.

    ``cores`` are all that this process may use, or its share of them.

    On the CPU the threads that compute get the other cores, unless OMP_NUM_THREADS says otherwise: threads that wait
    for a core that a loader process is using cost far more than they bring.
    """
    import torch

    cores = num_cores() if cores is None else cores
    chosen = min(cores - 1, 4) if workers is None else workers
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores - chosen))
    return chosen


def show_json(value: Any, *, indent: int | None = None) -> None:
    """Print one JSON document on standard output; numbers must be finite.

    What a terminal would obey is escaped. A file's name need not be UTF-8; such a document is printed with escapes for
    all but ASCII, which give the name back, byte by byte, to ``os.fsencode``.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    if not is_text(text):
        text = json.dumps(value, allow_nan=False, indent=indent)
    builtins.print(escaped_json(text), flush=True)


def record_evaluation(run: Path, **figures: Any) -> None:
    """Append what was measured to the journal of a run; where that cannot be written, say so and go on."""
    from ssan.training.journal import Journal

    try:
        Journal(run).record("evaluated", **figures)
    except (OSError, SsanError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        print(
            f"ssan: {run / 'journal.jsonl'}: the figures could not be added ({reason}), so a report of the run will "
            "not have them; they are printed all the same",
            file=sys.stderr,
        )


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """A command, of whose parameters those that are dataclasses are groups: each field is an option of its own."""
    groups: dict[str, Callable[..., Any]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        members, kind = [parameter], parameter.annotation
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            members, groups[parameter.name] = list(inspect.signature(kind, eval_str=True).parameters.values()), kind
        parameters += [member.replace(kind=inspect.Parameter.KEYWORD_ONLY) for member in members]

    @functools.wraps(command)
    def of_options(**given: Any) -> int:
        for name, kind in groups.items():
            given[name] = kind(**{member: given.pop(member) for member in inspect.signature(kind).parameters})
        return command(**given)

    # Typer reads the one or the other, depending on its version.
    of_options.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=int)
    of_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return of_options
