"""``ssan import``."""

from typing import Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import tell


def import_(
    file: Annotated[str, typer.Argument(help="Weights of torchvision, TSM's repository, mmaction2, an I3D or S3D.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The network, a name from `ssan models`.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The model file to write.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Change the recipe, such as num_frames=16.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names in the order of the scores: one a line, .csv or .json.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Make a model file of weights that another toolkit released.

    Every tensor is placed, or the file is refused and the names that have no counterpart are told.
    """
    from ssan.weights.imported import import_weights

    released = import_weights(file, name, out, classes=classes, overrides=overrides or [])
    for note in released.notes if not quiet else []:
        tell(note)
    line = (
        f"{released.file}: {released.model}, {released.matched} tensors by the names of {released.layout}, "
        f"{len(released.classes)} classes"
    )
    options.show(released.as_dict(), lambda _: [line], as_json=json)
    return options.DONE
