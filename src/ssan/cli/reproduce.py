"""``ssan reproduce``."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.errors import UsageError, unknown
from ssan.processes import num_cores

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource
    from ssan.reproduce.recognition import RecognitionRequest
    from ssan.reproduce.retrieval import RetrievalRequest
    from ssan.reproduce.runs import Execution
    from ssan.reproduce.table import TableRequest


@dataclass
class TableOptions:
    """How much of a table is made, and where."""

    rows: Annotated[str | None, typer.Option(help="Names of rows, with commas; all by default.")] = None
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings of each row.")] = 1
    mini: Annotated[
        bool, typer.Option("--mini", help="Small networks, on rendered videos unless --data names others.")
    ] = False
    backbone: Annotated[str, typer.Option(help="Of the small networks.")] = "tiny"
    tasks: Annotated[str, typer.Option(help="Of --mini without --data: order, relation or both.")] = "order,relation"
    videos_per_task: Annotated[int | None, typer.Option(min=60, help="Videos rendered for each task.")] = None
    split: Annotated[str, typer.Option(help="What is evaluated, of --data.")] = "val"
    out: Annotated[str, typer.Option(help="Folder for runs, figures and pages.")] = "runs/reproduce"


@dataclass
class ExecutionOptions:
    """By what runs are made."""

    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; by default 1, small ones by the cores.")] = (
        None
    )
    processes: Annotated[int, typer.Option(min=1, help="Processes of each training, one for each GPU.")] = 1
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out videos that cannot be used.")] = False
    device: options.Device = "auto"
    workers: options.Workers = None

    def chosen(self, mini: bool) -> "Execution":
        """Small networks on a CPU are made side by side, each on one thread."""
        from ssan.reproduce.runs import Execution

        small = mini and options.choose_device(self.device) == "cpu"
        workers = 0 if small and self.workers is None else self.workers  # several side by side leave no core idle
        jobs = self.jobs or (num_cores() if small else 1)
        return Execution(jobs, self.processes, self.device, workers, 1 if small else None, self.skip_bad)


@dataclass
class JointOptions:
    """The data of tables 7 and 8 beside captions."""

    features: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH, of tables 7 and 8: ssa, resnext, 2d; once for each.")
    ] = None
    vectors: Annotated[str | None, typer.Option(help="Word vectors, of tables 7 and 8.")] = None
    narrated: Annotated[str | None, typer.Option(help="List of narrated videos, for what is pre-trained.")] = None
    narrations: Annotated[str | None, typer.Option(help="What is said in them.")] = None
    narrated_features: Annotated[list[str] | None, typer.Option(help="NAME=PATH, their features.")] = None


@options.grouped
@options.reads_data_of_a_table
def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="table1 to table8, or choices: what the paper leaves open.")],
    extent: TableOptions,
    execution: ExecutionOptions,
    labelled: "DataSource | None",
    captions: "DataSource | None",
    joint: JointOptions,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value for every recipe.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train and evaluate the rows of a table of the paper, and show ours beside the paper's on one page.

    It goes on where it stopped: what is done is not done again.
    """
    from ssan.reproduce.joint_tables import JOINT_TABLES
    from ssan.reproduce.table import reproduce_table

    asked: tuple[Any, ...] = (
        context, table, extent, overrides or [], execution.chosen(extent.mini), labelled, captions, joint
    )  # fmt: skip
    request: TableRequest[Any, Any] = _retrieval(*asked) if table in JOINT_TABLES else _recognition(*asked)
    answer = reproduce_table(request, quiet=quiet)
    if json:
        options.show_json({"schema": 1, **answer})
    else:
        (_show_recalls if table in JOINT_TABLES else _show_accuracies)(answer)
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['message']}")
        print(f"{answer['seconds']:.0f} s. Open {answer['page']}")
    return options.SOME_FAILED if answer["failed"] else options.DONE


def _claim(context: typer.Context, out: str) -> None:
    """Take the folder for this command alone, and remove what one that was killed was writing."""
    from ssan.files import one_writer, remove_partials

    context.with_resource(one_writer(out, folder=True))
    remove_partials(out)


def _recognition(
    context: typer.Context,
    name: str,
    extent: TableOptions,
    overrides: list[str],
    execution: "Execution",
    labelled: "DataSource | None",
    captions: "DataSource | None",
    joint: JointOptions,
) -> "RecognitionRequest":
    from ssan.reproduce.joint_tables import JOINT_TABLES
    from ssan.reproduce.plan import TASKS, Data, check_rows
    from ssan.reproduce.recognition import RecognitionRequest, rendered
    from ssan.reproduce.sameness import see, words_of
    from ssan.reproduce.tables import TABLES

    if captions is not None or joint.features or joint.narrated is not None:
        raise UsageError(f"--captions, --features and --narrated are of {' and '.join(JOINT_TABLES)}, not of {name}")
    if name not in TABLES:
        raise UsageError(unknown("table", name, [*TABLES, *JOINT_TABLES]))
    table, out, mini = TABLES[name], Path(extent.out), extent.backbone if extent.mini else None
    rows = table.chosen(_words(extent.rows))
    if labelled is None and not mini:
        raise UsageError(
            f"{name} wants its data: name them with --data (format {table.format}), or add --mini for small networks "
            "on rendered videos"
        )
    check_rows(rows, overrides, mini=mini)
    _claim(context, extent.out)
    if labelled is None:
        tasks = _words(extent.tasks)
        if not tasks:
            raise UsageError(f"--tasks names none; expected {' or '.join(TASKS)}")
        for task in tasks:
            if task not in TASKS:
                raise UsageError(f"--tasks: there is no task {task!r}; expected {' or '.join(TASKS)}")
        sets = rendered(out, tasks, num_videos=extent.videos_per_task, workers=num_cores())
    else:
        source = replace(labelled, format=labelled.format or ("auto" if mini else table.format))
        words = words_of(source)
        sets = [Data(source.format, words, extent.split, seen=see(words, extent.split))]
    return RecognitionRequest(table, rows, sets, out, extent.seeds, mini, overrides, execution)


def _retrieval(
    context: typer.Context,
    name: str,
    extent: TableOptions,
    overrides: list[str],
    execution: "Execution",
    labelled: "DataSource | None",
    captions: "DataSource | None",
    joint: JointOptions,
) -> "RetrievalRequest":
    from ssan.reproduce.joint_tables import JOINT_TABLES
    from ssan.reproduce.plan import Data
    from ssan.reproduce.retrieval import RetrievalInputs, RetrievalRequest, small_captions
    from ssan.reproduce.sameness import OPTIONS, words_of

    if labelled is not None:
        raise UsageError(f"{name} is of captions and features: name them with --captions and --features")
    said = {"captions": captions, **asdict(joint)}
    given = ", ".join(f"--{key}" for key in ("captions", "features", "vectors", "narrated") if said[key])
    if extent.mini and given:
        raise UsageError(f"--mini of {name} is on rendered videos; leave out {given}")
    _claim(context, extent.out)
    table, out = JOINT_TABLES[name], Path(extent.out)
    if captions is None and not extent.mini:
        raise UsageError(
            f"{name} wants its captions and features: name them with --captions (format {table.format}) and "
            "--features NAME=PATH, or add --mini for small networks on rendered videos"
        )
    inputs = RetrievalInputs(_paths(joint.features, "--features"), joint.vectors)
    data = small_captions(out)
    if captions is not None:
        read_by = captions.options
        if not {*read_by} - {*OPTIONS}:  # no option of the reader's own
            read_by = read_by | dict(option.split("=", 1) for option in table.options)
        source = replace(captions, format=captions.format or table.format, options=read_by)
        source.read("train")  # what cannot be read is told before anything is made
        data = Data(source.format, words_of(source, "--captions"), table.split)
    if joint.narrated is not None and joint.narrations is not None:
        inputs.narrations = ("--captions", joint.narrated, "--format", "howto100m", "--narrations", joint.narrations)
        inputs.narrated = _paths(joint.narrated_features, "--narrated-features")
    request = RetrievalRequest(
        table, table.chosen(_words(extent.rows)), [data], out, extent.seeds, "tiny" if extent.mini else None,
        overrides, execution, inputs, num_videos=extent.videos_per_task,
    )  # fmt: skip
    request.check()
    return request


def _show_accuracies(answer: dict[str, Any]) -> None:
    from ssan.reproduce.results import as_percent

    for one in answer["data"]:
        print(f"{one['name']}: {one['split']}, {one['num_scored'] or ''} videos scored")
        print(f"  {'':32} {'frames':>7} {'paper':>7} {'ours':>7} {'spread':>7} {'seeds':>6}")
        for row in one["rows"]:
            shares = [as_percent(share) for share in (row["paper"]["top1"], row["top1"], row["top1_std"])]
            shown = " ".join(f"{share:>7}" for share in shares)
            print(f"  {row['title']:32} {row['frames']:>7} {shown} {row['num_seeds'] or '':>6}")


def _show_recalls(answer: dict[str, Any]) -> None:
    from ssan.reproduce.results import as_percent

    print(f"  {'':32} {'paper R@1':>10} {'R@1':>7} {'R@5':>7} {'R@10':>7} {'seeds':>6}")
    for row in answer["rows"]:
        paper, *shares = (as_percent(share) for share in (row["paper"]["r1"], row["r1"], row["r5"], row["r10"]))
        shown = " ".join(f"{share:>7}" for share in shares)
        print(f"  {row['title']:32} {paper:>10} {shown} {row['num_seeds'] or '':>6}")


def _paths(named: list[str] | None, option: str) -> dict[str, str]:
    """``NAME=PATH`` words as a dict."""
    found = {}
    for word in named or []:
        name, equals, path = word.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"{option} {word!r}: expected NAME=PATH, such as ssa=features/ssa")
        found[name] = path
    return found


def _words(text: str | None) -> list[str]:
    return [word for word in (part.strip() for part in (text or "").split(",")) if word]
