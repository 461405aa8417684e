"""``ssan eval``."""

from typing import Annotated, Literal, cast

import typer

from ssan.cli import options
from ssan.errors import UsageError


def evaluate(
    model: Annotated[str, typer.Argument(help="A model file, or a run's folder.")],
    data: options.Data,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "val",
    views: Annotated[int, typer.Option(min=1, help="Clips of each video.")] = 1,
    crops: Annotated[int, typer.Option(help="1 (centre), 3 (along the longer side) or 10.")] = 1,
    average: Annotated[
        Literal["logits", "probabilities"], typer.Option(help="What views and crops average.")
    ] = "logits",
    probe: Annotated[bool, typer.Option("--probe", help="Also score the frames reversed and shuffled.")] = False,
    scores: Annotated[str | None, typer.Option(help="Write a score file (.npz).")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 16,
    format: options.Format = "auto",
    annotations: options.Annotations = None,
    videos: options.Videos = None,
    splits: options.Splits = None,
    val_groups: options.ValGroups = None,
    reader: options.Reader = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Measure a model on labelled videos."""
    from ssan.recognition.evaluate import Protocol
    from ssan.recognition.evaluate import evaluate as run
    from ssan.recognition.model_file import load_labeller

    if crops not in (1, 3, 10):
        raise UsageError(f"--crops is {crops}; expected 1, 3 or 10")
    labeller = load_labeller(model, options.choose_device(device))
    source = options.data_source(data, format, annotations, videos, splits, val_groups, reader)
    answer = run(
        labeller,
        source.read(split),
        Protocol(views, cast(Literal[1, 3, 10], crops), average),
        split=split,
        probe=probe,
        scores_file=scores,
        batch=batch,
        workers=options.choose_workers(workers),
        seed=seed,
        quiet=quiet,
    )
    if json:
        options.show_json({"schema": 1, **answer})
    else:
        low, high = answer["interval95"]
        used = answer["protocol"]
        print(
            f"top-1 {answer['top1']:.4f} [{low:.4f}, {high:.4f}]  top-5 {answer['top5']:.4f}  mean class "
            f"{answer['mean_class_accuracy']:.4f}"
        )
        print(
            f"{answer['num_scored']} videos of {split} scored, {answer['num_missing']} missing, {answer['num_failed']} "
            f"failed; {used['num_frames']} frames, {used['views']} views x {used['crops']} crops of {used['crop_px']} "
            f"px, resize {used['resize']} {used['size_px']}, {used['average']} averaged"
        )
        if probe:
            order = answer["probe"]
            print(
                f"frames reversed {order['reversed_top1']:.4f}, shuffled {order['shuffled_top1']:.4f}; "
                f"{order['reversed_same_prediction']:.4f} of the answers stay the same reversed"
            )
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['code']}: {error['message']}")
    return options.SOME_FAILED if answer["num_failed"] or answer["num_missing"] else options.DONE
