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

    from ssan.recognition.model_file import load_labeller
    from ssan.recognition.predict import expand
    from ssan.recognition.predict import predict as run

    labeller = load_labeller(model, options.choose_device(device))
    videos = list(expand(paths))
    failed = 0
    silent = quiet or not sys.stderr.isatty() or len(videos) < 2
    for path in tqdm(videos, desc="labelling", unit="video", disable=silent, file=sys.stderr, leave=False):
        answer = run(labeller, path, top=top)
        failed += not answer["ok"]
        if json:
            options.show_json(answer)
        elif answer["ok"]:
            print(f"{path}: " + ", ".join(f"{best['label']} {best['score']:.3f}" for best in answer["top"]), flush=True)
        else:
            print(f"{path}: {answer['error']['code']}: {answer['error']['message']}", file=sys.stderr, flush=True)
    return options.SOME_FAILED if failed else options.DONE
