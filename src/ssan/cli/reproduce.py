"""``ssan reproduce``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.errors import UsageError, unknown
from ssan.processes import num_cores

if TYPE_CHECKING:
    from ssan.reproduce.runs import Means


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="table1 to table8, or choices: what the paper leaves open.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value for every recipe.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder or file of labelled videos.")] = None,
    rows: Annotated[str | None, typer.Option(help="Names of rows, with commas; all by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings of each row.")] = 1,
    mini: Annotated[
        bool, typer.Option("--mini", help="Small networks, on rendered videos unless --data names others.")
    ] = False,
    backbone: Annotated[str, typer.Option(help="Of the small networks.")] = "tiny",
    tasks: Annotated[str, typer.Option(help="Of --mini without --data: order, relation or both.")] = "order,relation",
    videos_per_task: Annotated[int | None, typer.Option(min=60, help="Videos rendered for each task.")] = None,
    out: Annotated[str, typer.Option(help="Folder for runs, figures and pages.")] = "runs/reproduce",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default 1, small ones by the cores.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes of each training, one for each GPU.")] = 1,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out videos that cannot be used.")] = False,
    split: Annotated[str, typer.Option(help="What is evaluated, of --data.")] = "val",
    captions: Annotated[str | None, typer.Option(help="Captions, of tables 7 and 8.")] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH, of tables 7 and 8: ssa, resnext, 2d; once for each.")
    ] = None,
    vectors: Annotated[str | None, typer.Option(help="Word vectors, of tables 7 and 8.")] = None,
    narrated: Annotated[str | None, typer.Option(help="List of narrated videos, for what is pre-trained.")] = None,
    narrations: Annotated[str | None, typer.Option(help="What is said in them.")] = None,
    narrated_features: Annotated[list[str] | None, typer.Option(help="NAME=PATH, their features.")] = None,
    format: Annotated[str, typer.Option(help="Of --data; the table's own by default.")] = "",
    annotations: options.Annotations = None,
    videos: options.Videos = None,
    splits: options.Splits = None,
    val_groups: options.ValGroups = None,
    reader: options.Reader = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Train and evaluate the rows of a table of the paper, and show ours beside the paper's on one page.

    It goes on where it stopped: what is done is not done again.
    """
    from ssan.files import one_writer, remove_partials
    from ssan.reproduce.joint_tables import JOINT_TABLES
    from ssan.reproduce.plan import TASKS, Data, check_rows
    from ssan.reproduce.results import as_percent
    from ssan.reproduce.sameness import see
    from ssan.reproduce.table import Order, rendered
    from ssan.reproduce.table import reproduce as run
    from ssan.reproduce.tables import TABLES, find_table

    small = mini and options.choose_device(device) == "cpu"
    if table in JOINT_TABLES:
        if data is not None:
            raise UsageError(f"{table} is of captions and features: name them with --captions and --features")
        said = {"--captions": captions, "--features": features, "--vectors": vectors, "--narrated": narrated}
        if mini and any(said.values()):
            given = ", ".join(option for option, value in said.items() if value)
            raise UsageError(f"--mini of {table} is on rendered videos; leave out {given}")
        context.with_resource(one_writer(out, folder=True))
        remove_partials(out)  # of a command that was killed
        return _joint(
            table, rows, overrides or [], Path(out), seeds, mini=mini, captions=captions, features=features,
            vectors=vectors, narrated=narrated, narrations=narrations, narrated_features=narrated_features,
            format=format, annotations=annotations, reader=reader, json=json, quiet=quiet,
            means=_means(small, jobs, processes, device, workers, skip_bad), num_videos=videos_per_task,
        )  # fmt: skip
    if captions is not None or features or narrated is not None:
        raise UsageError(f"--captions, --features and --narrated are of {' and '.join(JOINT_TABLES)}, not of {table}")
    if table not in TABLES:
        raise UsageError(unknown("table", table, [*TABLES, *JOINT_TABLES]))
    found = find_table(table)
    chosen = found.chosen(_words(rows) if rows else None)
    if data is None and not mini:
        raise UsageError(
            f"{table} wants its data: name them with --data (format {found.format}), or add --mini for small networks "
            "on rendered videos"
        )
    check_rows(chosen, overrides or [], mini=backbone if mini else None)
    context.with_resource(one_writer(out, folder=True))
    remove_partials(out)
    if data is None:
        named = _words(tasks)
        if not named:
            raise UsageError(f"--tasks names none; expected {' or '.join(TASKS)}")
        for name in named:
            if name not in TASKS:
                raise UsageError(f"--tasks: there is no task {name!r}; expected {' or '.join(TASKS)}")
        sets = rendered(Path(out), named, num_videos=videos_per_task, workers=num_cores())
    else:
        words = ["--data", data, "--format", format or ("auto" if mini else found.format)]
        for option, value in [
            ("--annotations", annotations), ("--videos", videos), ("--splits", splits), ("--val-groups", val_groups),
            *(("--reader", word) for word in reader or []),
        ]:  # fmt: skip
            words += [option, value] if value is not None else []
        sets = [Data(words[3], tuple(words), split, seen=see(words, split))]
    means = _means(small, jobs, processes, device, workers, skip_bad)
    order = Order(found, chosen, sets, Path(out), seeds, backbone if mini else None, overrides or [], means)
    answer = run(order, quiet=quiet)
    if json:
        options.show_json({"schema": 1, **answer})
    else:
        for one in answer["data"]:
            print(f"{one['name']}: {one['split']}, {one['num_scored'] or ''} videos scored")
            print(f"  {'':32} {'frames':>7} {'paper':>7} {'ours':>7} {'spread':>7} {'seeds':>6}")
            for row in one["rows"]:
                cells = [as_percent(share) for share in (row["paper"]["top1"], row["top1"], row["top1_std"])]
                print(
                    f"  {row['title']:32} {row['frames']:>7} {cells[0]:>7} {cells[1]:>7} {cells[2]:>7} "
                    f"{row['num_seeds'] or '':>6}"
                )
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['message']}")
        print(f"{answer['seconds']:.0f} s. Open {answer['page']}")
    return options.SOME_FAILED if answer["failed"] else options.DONE


def _means(small: bool, jobs: int | None, processes: int, device: str, workers: int | None, skip_bad: bool) -> "Means":
    """By what runs are made; small networks on a CPU side by side, each on one thread."""
    from ssan.reproduce.runs import Means

    if small and workers is None:
        workers = 0  # several runs side by side leave no core idle
    return Means(
        jobs=jobs or (num_cores() if small else 1),
        processes=processes,
        words=("--device", device, *(["--workers", str(workers)] if workers is not None else [])),
        threads=1 if small else None,
        skip_bad=skip_bad,
    )


def _joint(
    table: str,
    rows: str | None,
    overrides: list[str],
    out: Path,
    seeds: int,
    *,
    mini: bool,
    captions: str | None,
    features: list[str] | None,
    vectors: str | None,
    narrated: str | None,
    narrations: str | None,
    narrated_features: list[str] | None,
    format: str,
    annotations: str | None,
    reader: list[str] | None,
    means: "Means",
    num_videos: int | None,
    json: bool,
    quiet: bool,
) -> int:
    """Tables 7 and 8: joint spaces of texts and videos."""
    from ssan.reproduce.joint import JointOrder, Words, check, reproduce_joint
    from ssan.reproduce.joint_tables import JOINT_TABLES
    from ssan.reproduce.results import as_percent

    found = JOINT_TABLES[table]
    format = format or found.format
    if captions is None and not mini:
        raise UsageError(
            f"{table} wants its captions and features: name them with --captions (format {found.format}) and "
            "--features NAME=PATH, or add --mini for small networks on rendered videos"
        )
    words = Words(features=_paths(features, "--features"), vectors=vectors)
    if captions is not None:
        given = [*(["--annotations", annotations] if annotations else [])]
        given += [word for option in (reader or list(found.options)) for word in ("--reader", option)]
        words.captions = ("--captions", captions, "--format", format, *given)
        options.data_source(captions, format, annotations, None, None, None, reader or list(found.options)).read(
            "train"
        )
    if narrated is not None and narrations is not None:
        words.narrations = ("--captions", narrated, "--format", "howto100m", "--narrations", narrations)
        words.narrated = _paths(narrated_features, "--narrated-features")
    name = "captions" if mini else format
    order = JointOrder(
        found, found.chosen(_words(rows) if rows else None), out, name, words, seeds, mini, overrides, means
    )
    order.num_videos = num_videos
    check(order)
    answer = reproduce_joint(order, quiet=quiet)
    if json:
        options.show_json({"schema": 1, **answer})
    else:
        print(f"  {'':32} {'paper R@1':>10} {'R@1':>7} {'R@5':>7} {'R@10':>7} {'seeds':>6}")
        for row in answer["rows"]:
            cells = [as_percent(share) for share in (row["paper"]["r1"], row["r1"], row["r5"], row["r10"])]
            shown = f"{cells[0]:>10} {cells[1]:>7} {cells[2]:>7} {cells[3]:>7}"
            print(f"  {row['title']:32} {shown} {row['num_seeds'] or '':>6}")
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['message']}")
        print(f"{answer['seconds']:.0f} s. Open {answer['page']}")
    return options.SOME_FAILED if answer["failed"] else options.DONE


def _paths(named: list[str] | None, option: str) -> dict[str, str]:
    """``NAME=PATH`` words as a dict."""
    found = {}
    for word in named or []:
        name, equals, path = word.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"{option} {word!r}: expected NAME=PATH, such as ssa=features/ssa")
        found[name] = path
    return found


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]
