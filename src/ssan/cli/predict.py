"""``ssan predict``."""

import sys
from typing import Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print


def predict(
    model: Annotated[str, typer.Argument(help="A model file, or a run's folder.")],
    paths: Annotated[list[str], typer.Argument(help="Videos, folders of frames, or folders of videos.")],
    top: Annotated[int, typer.Option(min=1, help="Labels to print of each video.")] = 5,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Label videos."""
    from tqdm import tqdm

    from ssan.processes import processes
    from ssan.recognition.predict import expand
    from ssan.recognition.predict import predict as run
    from ssan.training.together import together
    from ssan.weights.classifier_file import load_labeller

    failed = 0
    with together(processes(alone_without_srun=True)) as group:
        labeller = load_labeller(model, options.choose_device(device))
        videos, notes = group.each(lambda: expand(paths))[0]
        for note in notes if group.first else []:  # not progress: some of what was asked for has no answer
            print(f"ssan: {note}", file=sys.stderr)
        silent = quiet or not group.first or not sys.stderr.isatty() or len(videos) < 2
        answers = group.over(videos, lambda path: run(labeller, path, top=top))
        bar = tqdm(
            answers, desc="labelling", unit="video", total=len(videos), disable=silent, file=sys.stderr, leave=False
        )
        for path, answer in zip(videos, bar, strict=True):
            failed += not answer["ok"]
            if not group.first:
                continue  # the first process speaks for all
            if "warning" in answer and not quiet:
                print(f"ssan: {path}: {answer['warning']['message']}", file=sys.stderr, flush=True)
            if json:
                options.show_json(answer)
            elif answer["ok"]:
                best = ", ".join(f"{best['label']} {best['score']:.3f}" for best in answer["top"])
                print(f"{path}: {best}", flush=True)
            else:
                print(f"{path}: {answer['error']['code']}: {answer['error']['message']}", file=sys.stderr, flush=True)
    return options.SOME_FAILED if failed else options.DONE
