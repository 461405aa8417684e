"""``ssan eval``."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError, printable

if TYPE_CHECKING:
    from ssan.datasets.samples import Samples
    from ssan.datasets.source import DataSource

SHOWN = 5  # wrong answers
MAX_PX, MAX_FRAMES = 8192, 4096  # those of a recipe, whose file takes long to import


@options.reads_data
def evaluate(
    context: typer.Context,
    model: options.Model,
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
    wrong: Annotated[
        str | None, typer.Option(metavar="FILE.csv", help="Write which videos were answered wrongly, the worst first.")
    ] = None,
    choose_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="From which score on `predict` is to answer, so that of the videos that should have no answer at most "
            "this share gets one: of those answered wrongly, or of --none.",
        ),
    ] = None,
    none: Annotated[
        str | None, typer.Option(metavar="DIR", help="Videos of none of the classes, for --choose-threshold.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Keep the chosen threshold in the model's file.")] = False,
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

    With --choose-threshold also from which score on an answer is worth giving; --write keeps that for `ssan predict`.
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
    if wrong is not None:
        options.check_output("--wrong", wrong, [".csv"])
    default = (views, crops, average, resize, size_px, crop_px, num_frames) == (1, 1, "logits", *[None] * 4)
    _check_threshold(model, choose_threshold, none, write=write, default=default)
    options.have(model, yes=yes, quiet=quiet)
    processes_here = processes(alone_without_srun=True)
    for file in (scores, wrong):
        if file is not None and processes_here.first:
            context.with_resource(one_writer(file))
    with together(processes_here) as group:
        labeller = open_classifier(model, options.choose_device(device))
        if labeller.protocol.get("fitted_on") == "all" and processes_here.first:
            measured = labeller.protocol.get("top1")
            tell(
                "warning: the head of this model was fitted on all clips that `ssan probe` was given: on these it is "
                "better than on others"
                + (f", for which the probe measured {measured:.4f}" if isinstance(measured, float) else "")
            )
        samples = source.read(split)
        started = time.monotonic()
        answer = evaluate(
            labeller,
            samples,
            Protocol(views, cast(Literal[1, 3, 10], crops), average, resize, size_px, crop_px, num_frames),
            split=split,
            probe=probe,
            scores_file=scores,
            wrong_file=wrong,
            false_alarms=choose_threshold,
            none=None if none is None else group.each(lambda: _videos_of_none(none))[0],
            batch=batch,
            workers=options.choose_workers(workers, processes_here.cores),
            seed=seed,
            quiet=quiet,
            group=group,
        )
    done = options.SOME_FAILED if answer["failed"] or answer["num_missing"] else options.DONE
    if not processes_here.first:
        return done  # the first process speaks for all
    if write:
        _keep(model, answer["threshold"], answer["protocol"])
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
    options.show(answer, lambda found: _lines(found, wrong), as_json=json)
    return done


def _check_threshold(model: str, share: float | None, none: str | None, *, write: bool, default: bool) -> None:
    """Refuse what goes with no threshold, and a threshold that would not be one of what ``predict`` says."""
    if share is None:
        if none is not None or write:
            raise UsageError(
                f"{'--none' if none is not None else '--write'} goes with a threshold; add --choose-threshold SHARE, "
                "such as 0.05"
            )
        return
    if not 0 < share < 1:
        raise UsageError(f"--choose-threshold is {share:g}; expected a share of false alarms between 0 and 1")
    if not default:
        raise UsageError(
            "a threshold is chosen as `ssan predict` looks at videos, in one view with the model's own sizes; leave "
            "out --views, --crops, --average, --resize, --size-px and --crop-px"
        )
    if write and not Path(model).exists():
        raise UsageError("--write: there is no such file; name a model file or a run's folder", path=model)


def _videos_of_none(folder: str) -> "Samples":
    """All videos of a folder, without labels."""
    from ssan.datasets.samples import Sample, Samples
    from ssan.recognition.predict import expand

    videos, notes = expand([folder])
    for note in notes:
        tell(note)
    return Samples([Sample(path, path) for path in dict.fromkeys(videos)], [], folder)


def _keep(model: str, chosen: dict[str, Any], protocol: dict[str, Any]) -> None:
    from ssan.weights.classifier_file import keep_threshold

    file = Path(model) / "model.safetensors" if Path(model).is_dir() else Path(model)
    keep_threshold(file, {**chosen, "split": protocol["split"]})
    chosen["written"] = str(file)


def _lines(answer: dict[str, Any], wrong: str | None) -> Iterator[str]:
    used, labelled = answer["protocol"], answer["top1"] is not None
    if labelled:
        low, high = answer["interval95"]
        shares = [f"top-1 {answer['top1']:.4f} [{low:.4f}, {high:.4f}]"]
        shares += [] if answer["top5"] is None else [f"top-5 {answer['top5']:.4f}"]
        yield "  ".join([*shares, f"mean class {answer['mean_class_accuracy']:.4f}"])
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
    if wrong is not None:
        yield f"{answer['num_wrong'] or 0} answered wrongly, listed in {printable(wrong)}; the worst:"
        for found in answer["wrong"][:SHOWN]:
            yield (
                f"  {printable(found['path'])}: {found['label']} ({found['probability']:.3f}) taken for "
                f"{found['predicted']} ({found['score']:.3f})"
            )
    if "threshold" in answer:
        yield from _threshold_lines(answer["threshold"])
    for error in answer["failed"]:
        yield f"failed: {error['path']}: {error['code']}: {error['message']}"


def _threshold_lines(chosen: dict[str, Any]) -> Iterator[str]:
    low, high = chosen["interval95"]
    of = "of none of the classes" if chosen["of"] == "none" else "answered wrongly"
    share, wanted, right = chosen["false_alarms"], chosen["false_alarms_wanted"], chosen["right_answered"]
    yield (
        f"threshold {chosen['threshold']:.4f}: {chosen['num_false_alarms']} of {chosen['num']} videos {of} get an "
        f"answer ({share:.4f} [{low:.4f}, {high:.4f}], at most {wanted:g} wanted)"
        + ("" if right is None else f"; {right:.4f} of the right answers are given")
    )
    if "written" in chosen:
        yield f"kept in {printable(chosen['written'])}, where `ssan predict` finds it"
    else:
        yield f"not kept: --write does, or `ssan predict --threshold {chosen['threshold']:.4f}`"
