"""``ssan predict``."""

import sys
from typing import Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print, tell


def predict(
    model: Annotated[str, typer.Argument(help="A model file, a run's folder, or a name of `ssan weights list`.")],
    paths: Annotated[list[str], typer.Argument(help="Videos, folders of frames, or folders of videos.")],
    top: Annotated[int, typer.Option(min=1, help="Labels to print of each video.")] = 5,
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

    failed = 0
    options.have(model, yes=yes, quiet=quiet)
    processes_here = processes(alone_without_srun=True)
    with together(processes_here) as group:
        labeller = open_classifier(model, options.choose_device(device))
        videos, notes = group.each(lambda: expand(paths))[0]
        for note in notes if group.first else []:  # not progress: some of what was asked for has no answer
            tell(note)
        # A single video is read here: a process for it takes longer to start than to read most.
        readers = options.choose_workers(workers, processes_here.cores) if workers or len(videos) > 1 else 0
        own = predict_each(labeller, group.mine(videos), top=top, workers=readers)
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
                print(f"{path}: {best}", flush=True)
            else:
                print(f"{path}: {answer['error']['code']}: {answer['error']['message']}", file=sys.stderr, flush=True)
    return options.SOME_FAILED if failed else options.DONE
