"""``ssan data``: render synthetic videos, list real ones, convert them."""

import sys
from typing import Annotated, Any

import typer

from ssan.cli import data_check, data_describe, data_resize, options
from ssan.cli.screen import print
from ssan.errors import UsageError
from ssan.processes import num_cores

app = typer.Typer(help="Labelled videos: make some, or list, describe, check and convert those there are.")
app.command("check")(data_check.check)
app.command("describe")(data_describe.describe)
app.command("resize")(data_resize.resize)
app.command("frames")(data_resize.frames)
app.command("flow")(data_resize.flow)


@app.command("synth")
def synth(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="Folder to render into.")],
    task: Annotated[str, typer.Option(help="order, relation, or captions.")],
    videos: Annotated[int, typer.Option(min=1, help="Number of videos.")],
    level: Annotated[str | None, typer.Option(help="Difficulty; the task's first by default.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes; all of the task's by default.")] = None,
    size_px: Annotated[int, typer.Option(min=16, max=96, help="Side of the square picture.")] = 64,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    workers: options.Workers = None,
) -> int:
    """Render labelled, captioned videos in Something-Something V2's layout.

    With --task captions: videos whose captions all differ, in pairs by direction or object alone, as captions_csv.
    """
    from tqdm import tqdm

    from ssan.files import one_writer
    from ssan.synthetic.captions import render_captions
    from ssan.synthetic.dataset import render

    context.with_resource(one_writer(folder, folder=True))
    silent = quiet or not sys.stderr.isatty()
    with tqdm(total=videos, desc="rendering", unit="video", disable=silent, file=sys.stderr, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.update(done - bar.n)

        extra: dict[str, Any] = {} if level is None else {"level": level}
        if task == "captions":
            if classes is not None:
                raise UsageError("--classes: captioned videos have none; leave it out")
            captioned = render_captions(
                folder,
                videos,
                seed,
                size_px=size_px,
                workers=num_cores() if workers is None else max(1, workers),
                on_progress=advance,
                **extra,
            )
            if json:
                options.show_json({"schema": 1, **captioned.as_dict()})
            else:
                print(
                    f"{captioned.root}: {captioned.num_videos} captioned videos ({captioned.num_train} train, "
                    f"{captioned.num_validation} validation, {captioned.num_test} test)"
                )
            return options.DONE
        summary = render(
            folder,
            task,
            videos,
            seed,
            num_classes=classes,
            size_px=size_px,
            workers=num_cores() if workers is None else max(1, workers),
            on_progress=advance,
            **extra,
        )
    if json:
        options.show_json({"schema": 1, **summary.as_dict()})
    else:
        print(
            f"{summary.root}: {summary.num_videos} videos in {len(summary.classes)} classes "
            f"({summary.num_train} train, {summary.num_validation} validation, {summary.num_test} test)"
        )
    return options.DONE


@app.command("list")
def list_data(
    source: options.Source = None,
    data: options.SourceOption = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    format: options.Format = "auto",
    annotations: options.Annotations = None,
    videos: options.Videos = None,
    splits: options.Splits = None,
    val_groups: options.ValGroups = None,
    val_fraction: options.ValFraction = None,
    fold: options.Fold = None,
    groups: options.Groups = None,
    reader: options.Reader = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """List the samples of labelled or captioned videos, one a line: id, label (or caption), path.

    With --json each is an object: id, path, label, label_index, start_seconds, end_seconds, num_frames, caption,
    exists, split, and video, the id of the features that a caption belongs to. Several captions can be of one video.
    """
    from ssan.datasets.describe import video_of
    from ssan.datasets.doubts import doubts
    from ssan.errors import printable

    place = options.one_source(source, data)
    found_at = options.data_source(
        place, format, annotations, videos, splits, val_groups, reader, val_fraction=val_fraction, fold=fold,
        groups=groups,
    )  # fmt: skip
    samples = found_at.read(split)
    for warning in [] if quiet else doubts(samples):
        print(f"ssan: {warning}", file=sys.stderr)
    for sample in samples:
        if json:
            options.show_json(sample.as_dict())
        else:
            said = sample.label if sample.label is not None else sample.caption
            said = None if said is None else printable(said)
            missing = "" if sample.exists else "  (missing)"
            print(f"{printable(sample.id)}\t{said}\t{printable(sample.path)}{missing}")
    if not samples:
        raise UsageError(f"there are no videos in the split {split!r}; --split all shows every one", path=place)
    there = {video_of(sample): sample.exists for sample in samples}
    num_missing = sum(not exists for exists in there.values())
    if num_missing and not quiet:
        print(f"ssan: {num_missing} of {len(there)} videos are missing", file=sys.stderr)
    return options.DONE
