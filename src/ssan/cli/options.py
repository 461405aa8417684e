"""Options that mean the same in every command, and what commands do with their answers."""

import builtins
import dataclasses
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssan.cli.screen import print, tell
from ssan.errors import ModelError, SsanError, UsageError, escaped_json
from ssan.files import is_text
from ssan.processes import num_cores

if TYPE_CHECKING:
    from tqdm import tqdm

    from ssan.datasets.samples import Samples
    from ssan.datasets.source import DataSource
    from ssan.weights.fetching import Fetched
    from ssan.weights.labeller import Labeller
    from ssan.weights.named import NamedWeights

DONE, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

Split = Annotated[str, typer.Option(help="train, val, test or all.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
RecipeSeed = Annotated[int | None, typer.Option("--seed", min=0, help="Of every random draw; the recipe's by default.")]
MoreEpochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1_000_000,
        help="With --resume, so many epochs more of a run that has ended, from its last state. The schedule is that of "
        "the new number of epochs: cosine rises to where the longer curve is and falls again, the others go on.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Fetch named weights that are not here, without asking.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
A_MODEL = "A model file, a run's folder, a name of `ssan weights list`, or hf:FOLDER"
Model = Annotated[str, typer.Argument(help=f"{A_MODEL}.")]
ModelOrName = Annotated[str, typer.Argument(help=f"{A_MODEL}; with --init a network's name.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that read videos; by default by the machine.")]
Recipe = Annotated[str | None, typer.Option(help="A YAML file, or a name from `ssan recipes list`.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Change the recipe.")]


# ------------------------------------------------------------------------------------------------- labelled videos

Source = Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="Folder or file of labelled videos.")]
SourceOption = Annotated[str | None, typer.Option("--data", metavar="SOURCE", help="The same as the argument.")]
Data = Annotated[str, typer.Option(help="Folder or file of labelled videos.")]
DataIfAny = Annotated[str | None, typer.Option("--data", help="Folder or file of labelled videos.")]
Captions = Annotated[str, typer.Option(help="Captions: msrvtt, youcook2, howto100m, lsmdc or captions_csv.")]
CaptionsIfAny = Annotated[str | None, typer.Option("--captions", help="Captions, as of `retrieval train`.")]

Format = Annotated[
    str,
    typer.Option(
        help="auto, folder, csv, sthv1, sthv2, jester, kinetics400, ucf101, hmdb51, tsm_list, mmaction2_list, "
        "msrvtt, youcook2, lsmdc, captions_csv, howto100m, label_studio, cvat, elan or via."
    ),
]
FormatOfTable = Annotated[str, typer.Option("--format", help="Of the data; the table's own by default.")]
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

# How labelled videos are read; of captions, those that say which are for validation are none.
OF_CAPTIONS: dict[str, tuple[Any, Any]] = {
    "format": (Format, "auto"), "annotations": (Annotations, None), "videos": (Videos, None), "reader": (Reader, None),
}  # fmt: skip
OF_LABELLED_VIDEOS: dict[str, tuple[Any, Any]] = OF_CAPTIONS | {
    "splits": (Splits, None), "val_groups": (ValGroups, None), "val_fraction": (ValFraction, None),
    "fold": (Fold, None), "groups": (Groups, None),
}  # fmt: skip

Verb = Callable[..., int]


def reads_data(verb: Verb) -> Verb:
    """A verb whose parameter ``source``, a ``DataSource``, is named by ``--data`` and the options of its format."""
    return _with_sources(verb, {"source": {"data": (Data, ...)}}, OF_LABELLED_VIDEOS)


def reads_data_as_argument(verb: Verb) -> Verb:
    """As ``reads_data``, where the data may also be given as the first argument."""
    return _with_sources(
        verb, {"source": {"argument": (Source, None), "data": (SourceOption, None)}}, OF_LABELLED_VIDEOS
    )


def reads_captions(verb: Verb) -> Verb:
    """As ``reads_data``, of captions, which ``--captions`` names."""
    return _with_sources(verb, {"source": {"captions": (Captions, ...)}}, OF_CAPTIONS)


def reads_captions_if_any(verb: Verb) -> Verb:
    """As ``reads_captions``; without ``--captions`` the source is None."""
    return _with_sources(verb, {"source": {"captions": (CaptionsIfAny, None)}}, OF_CAPTIONS)


def reads_data_of_a_table(verb: Verb) -> Verb:
    """As ``reads_data``, with ``labelled`` for what ``--data`` names and ``captions`` for what ``--captions`` does.

    Each is None where it is not named; a format that is not said is "", and the table's own.
    """
    named_by = {"labelled": {"data": (DataIfAny, None)}, "captions": {"captions": (CaptionsIfAny, None)}}
    return _with_sources(verb, named_by, OF_LABELLED_VIDEOS | {"format": (FormatOfTable, "")})


def _with_sources(
    verb: Verb, named_by: Mapping[str, Mapping[str, tuple[Any, Any]]], how: Mapping[str, tuple[Any, Any]]
) -> Verb:
    """The verb as typer is to see it.

    :param named_by: of each parameter that is a source the options that name it, which come first.
    :param how: options by which sources are read; they stand where the first of those parameters does.
    """
    parameters = [_parameter(*option) for names in named_by.values() for option in names.items()]
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name == next(iter(named_by)):
            parameters += [_parameter(*option) for option in how.items()]
        elif parameter.name not in named_by:
            parameters.append(parameter.replace(kind=_BY_NAME))

    @functools.wraps(verb)
    def read(**given: Any) -> int:
        roots = {source: [given.pop(name) for name in names] for source, names in named_by.items()}
        read_by = {name: given.pop(name) for name in how}
        for source, found in roots.items():
            root = one_source(*found) if len(found) == 2 else found[0]
            given[source] = None if root is None else data_source(root, **read_by)
        return verb(**given)

    read.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    read.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return read


_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def _parameter(name: str, option: tuple[Any, Any]) -> inspect.Parameter:
    annotation, default = option
    return inspect.Parameter(
        name, _BY_NAME, annotation=annotation, default=inspect.Parameter.empty if default is ... else default
    )


def data_source(
    data: str,
    format: str,
    annotations: str | None = None,
    videos: str | None = None,
    splits: str | None = None,
    val_groups: str | None = None,
    reader: list[str] | None = None,
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


def refuse_none(samples: "Samples", split: str, source: "DataSource") -> None:
    """Refuse a split in which there is no video."""
    if not samples:
        raise UsageError(f"there are no videos in the split {split!r}; --split all shows every one", path=source.root)


def described(source: "DataSource") -> dict[str, Any]:
    """The data, for a record of what was done with them."""
    return {"root": source.root, "format": source.format, "options": source.options}


# --------------------------------------------------------------------------------------------------- other options


def check_output(option: str, path: str, suffixes: Sequence[str]) -> None:
    """Refuse, before the work, an output of a kind that is not written, or a folder where a file is to be."""
    if os.path.splitext(path)[1].lower() not in suffixes:
        raise UsageError(f"{option} {path}: its name must end in {' or '.join(suffixes)}")
    if os.path.isdir(path):
        raise UsageError(f"{option}: a folder, where a file is to be written; name another file", path=path)


def have(model: str | None, *, yes: bool, quiet: bool) -> None:
    """See that the file is here of what a model argument names, if that is named weights; anything else is left alone.

    Nothing is fetched unasked: a person at a terminal is told how much, from where and by which licence, and asked;
    elsewhere ``--yes`` or ``SSAN_FETCH=yes`` has to say so.

    :raises ModelError: it is not here and may not be fetched, or cannot be (code ``not_fetched``).
    """
    from ssan.weights.named import NAMED, is_here

    if model is not None and model.startswith("hf://"):
        _have_from_hub(model, yes=yes, quiet=quiet)
    if model in NAMED and not os.path.exists(model) and not is_here(NAMED[model]):
        fetch(NAMED[model], yes=yes, quiet=quiet)


def _have_from_hub(model: str, *, yes: bool, quiet: bool) -> None:
    """As ``have``, of ``hf://user/name``: what is here is not asked for again."""
    from ssan.weights.fetching import agreed
    from ssan.weights.hub_files import fetch_from_hub, local_folder

    def consents(name: str, num_bytes: int) -> bool:
        what = f"{num_bytes / 1e6:.1f} MB of {name} from the hub"
        if yes or agreed():
            if not quiet:
                tell(f"fetching {what}")
            return True
        tell(what)
        return typer.confirm(f"ssan: fetch {name}?", err=True)

    try:
        local_folder(model)
    except ModelError:
        if not (yes or agreed() or sys.stdin.isatty()):
            raise
        fetch_from_hub(model, consents)


def fetch(weights: "NamedWeights", *, yes: bool, quiet: bool) -> "Fetched":
    """Fetch named weights, unless their file is here, if the user agrees; see ``have``."""
    from ssan.weights.fetching import agreed, lies_beside
    from ssan.weights.fetching import fetch as fetch_weights
    from ssan.weights.named import file_of, is_whole

    allowed, here = yes or agreed(), is_whole(weights) or lies_beside(weights)
    if not here and not allowed:
        if not sys.stdin.isatty():
            file_of(weights)  # refuses, and says how to agree
        tell(weights.terms)
        if not typer.confirm(f"ssan: fetch {weights.name}?", err=True):
            file_of(weights)
        allowed = True
    elif not here and not quiet:
        tell(f"fetching {weights.terms}")
    with progress(total=weights.fetched_bytes, what=weights.name, unit="B", quiet=quiet or here, scale=True) as bar:
        return fetch_weights(
            weights,
            elsewhere=allowed,
            told=bar.update,
            wait=lambda who: tell(f"{who} is fetching it; waiting"),
        )


def open_network(model: str, init: str | None, device: str, *, yes: bool, quiet: bool) -> "Labeller":
    """The network that the words name: a file of ours, or a name with weights from elsewhere."""
    from ssan.models.catalogue import MODELS
    from ssan.probe.probe import labeller_of_weights
    from ssan.weights.open_model import open_model

    if init is not None:
        if model.startswith("hf:") or (os.path.exists(model) and model not in MODELS):
            what = "a model of transformers" if model.startswith("hf:") else "a model file"
            raise UsageError(f"{what} has its weights already; leave out --init", path=model)
        have(init, yes=yes, quiet=quiet)
        return labeller_of_weights(model, init, device)
    have(model, yes=yes, quiet=quiet)
    return open_model(model, device)


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


# --------------------------------------------------------------------------------------------------------- answers


def show_json(value: Any) -> None:
    """Print one JSON document on standard output; numbers must be finite.

    What a terminal would obey is escaped. A file's name need not be UTF-8; such a document is printed with escapes for
    all but ASCII, which give the name back, byte by byte, to ``os.fsencode``.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not is_text(text):
        text = json.dumps(value, allow_nan=False)
    builtins.print(escaped_json(text), flush=True)


def show(answer: Mapping[str, Any], in_words: Callable[[Any], Iterable[str]], *, as_json: bool) -> None:
    """Print an answer on standard output: as one JSON document, or by the lines that ``in_words`` makes of it."""
    if as_json:
        show_json({"schema": 1, **answer})
        return
    for line in in_words(answer):
        print(line)


def progress(
    items: Iterable[Any] | None = None, *, total: int, what: str, unit: str, quiet: bool, scale: bool = False
) -> "tqdm[Any]":
    """A bar on standard error that says how far the work has come; nothing where that is no terminal."""
    from tqdm import tqdm

    silent = quiet or not sys.stderr.isatty()
    return tqdm(
        items, desc=what, unit=unit, total=total, disable=silent, file=sys.stderr, leave=False, unit_scale=scale
    )


def interrupted(kept: str) -> int:
    """Say that the command was interrupted and what is kept; the exit status."""
    tell(f"interrupted; {kept}")
    return INTERRUPTED


def record_evaluation(run: Path, source: "DataSource", split: str, figures: Mapping[str, Any], **more: Any) -> None:
    """Append what was measured to the journal of a run; where that cannot be written, say so and go on."""
    from ssan.training.journal import Journal

    try:
        Journal(run).record("evaluated", **figures, split=split, data=described(source), **more)
    except (OSError, SsanError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        tell(
            f"{run / 'journal.jsonl'}: the figures could not be added ({reason}), so a report of the run will not have "
            "them; they are printed all the same"
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
