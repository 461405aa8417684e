"""``ssan data``: render synthetic videos, list real ones, convert them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import data_audit, data_check, data_describe, data_resize, options
from ssan.cli.screen import print, tell
from ssan.errors import UsageError
from ssan.processes import num_cores

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource

app = typer.Typer(help="Labelled videos: make some, or list, describe, check and convert those there are.")
app.command("audit")(data_audit.audit)
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
    from ssan.files import one_writer
    from ssan.synthetic.captions import render_captions
    from ssan.synthetic.dataset import render

    context.with_resource(one_writer(folder, folder=True))
    if task == "captions" and classes is not None:
        raise UsageError("--classes: captioned videos have none; leave it out")
    how: dict[str, Any] = {} if level is None else {"level": level}
    how |= {"size_px": size_px, "workers": num_cores() if workers is None else max(1, workers)}
    with options.progress(total=videos, what="rendering", unit="video", quiet=quiet) as bar:

        def advance(done: int, total: int) -> None:
            bar.update(done - bar.n)

        if task == "captions":
            captioned = render_captions(folder, videos, seed, on_progress=advance, **how)
            answer, of_what = captioned.as_dict(), "captioned videos"
        else:
            labelled = render(folder, task, videos, seed, num_classes=classes, on_progress=advance, **how)
            answer, of_what = labelled.as_dict(), f"videos in {len(labelled.classes)} classes"
    line = f"{{root}}: {{num_videos}} {of_what} ({{num_train}} train, {{num_validation}} validation, {{num_test}} test)"
    options.show(answer, lambda found: [line.format(**found)], as_json=json)
    return options.DONE


@app.command("list")
@options.reads_data_as_argument
def list_data(
    source: "DataSource",
    split: options.Split = "all",
    csv: Annotated[
        str | None, typer.Option("--csv", metavar="LIST.csv", help="Also write them as a list, of --format csv.")
    ] = None,
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

    if csv is not None:
        options.check_output("--csv", csv, [".csv"])
    samples = source.read(split)
    if csv is not None:
        data_check.refuse_captions("--csv", samples)
    for warning in [] if quiet else doubts(samples):
        tell(warning)
    for sample in samples:
        if json:
            options.show_json(sample.as_dict())
        else:
            said = sample.label if sample.label is not None else sample.caption
            said = None if said is None else printable(said)
            missing = "" if sample.exists else "  (missing)"
            print(f"{printable(sample.id)}\t{said}\t{printable(sample.path)}{missing}")
    options.refuse_none(samples, split, source)
    if csv is not None:
        data_check.write_as_list(csv, source, samples, samples, samples.classes, quiet=quiet)
    there = {video_of(sample): sample.exists for sample in samples}
    num_missing = sum(not exists for exists in there.values())
    if num_missing and not quiet:
        tell(f"{num_missing} of {len(there)} videos are missing")
    return options.DONE
