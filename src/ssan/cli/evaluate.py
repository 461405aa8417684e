"""``ssan eval``."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ssan.cli import options
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource

MAX_PX, MAX_FRAMES = 8192, 4096  # those of a recipe, whose file takes long to import


@options.reads_data
def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model file, a run's folder, or a name of `ssan weights list`.")],
    split: options.Split = "val",
    views: Annotated[int, typer.Option(min=1, max=1000, help="Clips of each video, spread over it.")] = 1,
    crops: Annotated[int, typer.Option(help="1 (centre), 3 (along the longer side) or 10.")] = 1,
    average: Annotated[
        Literal["logits", "probabilities"], typer.Option(help="What views and crops average.")
    ] = "logits",
    resize: Annotated[
        Literal["square", "short_side"] | None, typer.Option(help="Frames to a square, or by their short side.")
    ] = None,
    size_px: Annotated[int | None, typer.Option(min=1, max=MAX_PX, help="Side after resizing.")] = None,
    crop_px: Annotated[int | None, typer.Option(min=1, max=MAX_PX, help="Side of each crop.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=1, max=MAX_FRAMES, help="Frames of each clip.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Also score the frames reversed and shuffled.")] = False,
    scores: Annotated[
        str | None, typer.Option(help="Write a score file (.npz), needed for videos without labels.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 16,
    *,
    source: "DataSource",
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Measure a model on labelled videos, or score videos without labels (with --scores).

    What of --resize, --size-px, --crop-px and --num-frames is not given is the model's own. Of a run's folder, the
    figures also go to its journal.
    """
    from ssan.datasets.fingerprint import fingerprint
    from ssan.files import one_writer
    from ssan.processes import processes
    from ssan.recognition.evaluate import Protocol, evaluate
    from ssan.training.together import together
    from ssan.weights.open_model import open_classifier

    if crops not in (1, 3, 10):
        raise UsageError(f"--crops is {crops}; expected 1, 3 or 10")
    options.have(model, yes=yes, quiet=quiet)
    processes_here = processes(alone_without_srun=True)
    if scores is not None and processes_here.first:
        context.with_resource(one_writer(scores))
    with together(processes_here) as group:
        labeller = open_classifier(model, options.choose_device(device))
        samples = source.read(split)
        started = time.monotonic()
        answer = evaluate(
            labeller,
            samples,
            Protocol(views, cast(Literal[1, 3, 10], crops), average, resize, size_px, crop_px, num_frames),
            split=split,
            probe=probe,
            scores_file=scores,
            batch=batch,
            workers=options.choose_workers(workers, processes_here.cores),
            seed=seed,
            quiet=quiet,
            group=group,
        )
    done = options.SOME_FAILED if answer["num_failed"] or answer["num_missing"] else options.DONE
    if not processes_here.first:
        return done  # the first process speaks for all
    if (Path(model) / "journal.jsonl").is_file():
        listed = fingerprint(samples)
        options.record_evaluation(
            Path(model),
            source,
            split,
            {key: value for key, value in answer.items() if key not in ("failed", "missing")},
            listed=listed,
            list=listed["list"],
            model_hash=labeller.hash,
            seconds=round(time.monotonic() - started, 3),
        )
    options.show(answer, _lines, as_json=json)
    return done


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    used, labelled = answer["protocol"], answer["top1"] is not None
    if labelled:
        low, high = answer["interval95"]
        yield (
            f"top-1 {answer['top1']:.4f} [{low:.4f}, {high:.4f}]  top-5 {answer['top5']:.4f}  mean class "
            f"{answer['mean_class_accuracy']:.4f}"
        )
    else:
        yield "no labels, so no accuracy"
    rate = f" at {used['frames_per_second']:g} a second" if "frames_per_second" in used else ""
    yield (
        f"{answer['num_scored']} videos of {used['split']} scored, {answer['num_missing']} missing, "
        f"{answer['num_failed']} failed; {used['num_frames']} frames{rate}, {used['views']} views x "
        f"{used['crops']} crops of {used['crop_px']} px, resize {used['resize']} {used['size_px']}, "
        f"{used['average']} averaged"
    )
    if "probe" in answer:
        order = answer["probe"]
        right = ""
        if labelled:
            right = f"frames reversed {order['reversed_top1']:.4f}, shuffled {order['shuffled_top1']:.4f}; "
        yield f"{right}{order['reversed_same_prediction']:.4f} of the answers stay the same reversed"
    for error in answer["failed"]:
        yield f"failed: {error['path']}: {error['code']}: {error['message']}"
