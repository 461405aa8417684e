"""``ssan predict``."""

import sys
from typing import Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print, tell
from ssan.errors import UsageError, quoted


def predict(
    model: Annotated[str, typer.Argument(help="A model file, a run's folder, or a name of `ssan weights list`.")],
    paths: Annotated[list[str], typer.Argument(help="Videos, folders of frames, or folders of videos.")],
    top: Annotated[int, typer.Option(min=1, help="Labels to print of each video.")] = 5,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE|file",
            help="Videos whose best score is below are none of the classes.  [default: the model file's own, if any]",
            show_default=False,
        ),
    ] = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Label videos."""
    from ssan.processes import processes
    from ssan.recognition.predict import expand, predict_each
    from ssan.training.together import together
    from ssan.weights.open_model import open_classifier

    failed, given = 0, _given(threshold)
    options.have(model, yes=yes, quiet=quiet)
    processes_here = processes(alone_without_srun=True)
    with together(processes_here) as group:
        labeller = open_classifier(model, options.choose_device(device))
        least = labeller.threshold if given is None else given
        if threshold is not None and least is None:
            raise UsageError(
                "its file has no threshold; choose one with `ssan eval ... --choose-threshold SHARE --write`, or give "
                "a number",
                path=model,
            )
        videos, notes = group.each(lambda: expand(paths))[0]
        for note in notes if group.first else []:  # not progress: some of what was asked for has no answer
            tell(note)
        # A single video is read here: a process for it takes longer to start than to read most.
        readers = options.choose_workers(workers, processes_here.cores) if workers or len(videos) > 1 else 0
        own = predict_each(labeller, group.mine(videos), top=top, threshold=least, workers=readers)
        answers = group.over(videos, lambda _: next(own))
        silent = quiet or not group.first or len(videos) < 2
        bar = options.progress(answers, total=len(videos), what="labelling", unit="video", quiet=silent)
        for path, answer in zip(videos, bar, strict=True):
            failed += not answer["ok"]
            if not group.first:
                continue  # the first process speaks for all
            if "warning" in answer and not quiet:
                tell(f"{path}: {answer['warning']['message']}")
            if json:
                options.show_json(answer)
            elif answer["ok"]:
                best = ", ".join(f"{best['label']} {best['score']:.3f}" for best in answer["top"])
                print(f"{path}: {'none of these: ' if answer.get('none') else ''}{best}", flush=True)
            else:
                print(f"{path}: {answer['error']['code']}: {answer['error']['message']}", file=sys.stderr, flush=True)
    return options.SOME_FAILED if failed else options.DONE


def _given(threshold: str | None) -> float | None:
    """The number that is given as a threshold; None of the model file's own."""
    if threshold is None or threshold == "file":
        return None
    try:
        value = float(threshold)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(
            f"--threshold is {quoted(threshold, 40)}; expected a score from 0 to 1, or `file` for the model file's own"
        )
    return value
