"""``ssan eval``."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.errors import UsageError

MAX_PX = 8192  # that of a recipe, whose file takes long to import


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model file, or a run's folder.")],
    data: options.Data,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "val",
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
    probe: Annotated[bool, typer.Option("--probe", help="Also score the frames reversed and shuffled.")] = False,
    scores: Annotated[
        str | None, typer.Option(help="Write a score file (.npz), needed for videos without labels.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 16,
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
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Measure a model on labelled videos, or score videos without labels (with --scores).

    What of --resize, --size-px and --crop-px is not given is the model's own. Of a run's folder, the figures also go
    to its journal.
    """
    from ssan.datasets.fingerprint import fingerprint
    from ssan.files import one_writer
    from ssan.processes import processes
    from ssan.recognition.evaluate import Protocol
    from ssan.recognition.evaluate import evaluate as run
    from ssan.training.together import together
    from ssan.weights.classifier_file import load_labeller

    if crops not in (1, 3, 10):
        raise UsageError(f"--crops is {crops}; expected 1, 3 or 10")
    place = processes(alone_without_srun=True)
    if scores is not None and place.first:
        context.with_resource(one_writer(scores))
    with together(place) as group:
        labeller = load_labeller(model, options.choose_device(device))
        source = options.data_source(
            data, format, annotations, videos, splits, val_groups, reader, val_fraction=val_fraction, fold=fold,
            groups=groups,
        )  # fmt: skip
        samples = source.read(split)
        started = time.monotonic()
        answer = run(
            labeller,
            samples,
            Protocol(views, cast(Literal[1, 3, 10], crops), average, resize, size_px, crop_px),
            split=split,
            probe=probe,
            scores_file=scores,
            batch=batch,
            workers=options.choose_workers(workers, place.cores),
            seed=seed,
            quiet=quiet,
            group=group,
        )
    done = options.SOME_FAILED if answer["num_failed"] or answer["num_missing"] else options.DONE
    if not place.first:
        return done  # the first process speaks for all
    if (Path(model) / "journal.jsonl").is_file():
        listed = fingerprint(samples)
        options.record_evaluation(
            Path(model),
            **{key: value for key, value in answer.items() if key not in ("failed", "missing")},
            split=split,
            data={"root": source.root, "format": source.format, "options": source.options},
            listed=listed,
            list=listed["list"],
            model_hash=labeller.hash,
            seconds=round(time.monotonic() - started, 3),
        )
    if json:
        options.show_json({"schema": 1, **answer})
    else:
        _show(answer)
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['code']}: {error['message']}")
    return done


def _show(answer: dict[str, Any]) -> None:
    used, labelled = answer["protocol"], answer["top1"] is not None
    if labelled:
        low, high = answer["interval95"]
        print(
            f"top-1 {answer['top1']:.4f} [{low:.4f}, {high:.4f}]  top-5 {answer['top5']:.4f}  mean class "
            f"{answer['mean_class_accuracy']:.4f}"
        )
    else:
        print("no labels, so no accuracy")
    print(
        f"{answer['num_scored']} videos of {used['split']} scored, {answer['num_missing']} missing, "
        f"{answer['num_failed']} failed; {used['num_frames']} frames, {used['views']} views x {used['crops']} crops of "
        f"{used['crop_px']} px, resize {used['resize']} {used['size_px']}, {used['average']} averaged"
    )
    if "probe" in answer:
        order = answer["probe"]
        if labelled:
            print(f"frames reversed {order['reversed_top1']:.4f}, shuffled {order['shuffled_top1']:.4f}; ", end="")
        print(f"{order['reversed_same_prediction']:.4f} of the answers stay the same reversed")
