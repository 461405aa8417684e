"""``ssan data resize``, ``frames`` and ``flow``: a data set converted once, to be read quickly ever after."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.processes import num_cores

if TYPE_CHECKING:
    from ssan.convert.forms import Settings

Source = Annotated[str, typer.Argument(help="Folder of videos (files, folders of frames), or a clip file.")]
Dest = Annotated[str, typer.Argument(help="Folder for the copies, which have the names that the videos have.")]
Quality = Annotated[int | None, typer.Option(help="Of JPEG, 1 to 100.  [default: 95]", show_default=False)]
ShortSide = Annotated[
    int | None,
    typer.Option(min=8, help="Length of the shorter side in pixels; smaller pictures are never enlarged.  [default: "
                 "as it is]", show_default=False),
]  # fmt: skip


def resize(
    source: Source,
    dest: Annotated[str, typer.Argument(help="Folder for the copies; with --to clips a file, NAME.clips.")],
    short_side: Annotated[
        int, typer.Option(min=8, help="Length of the shorter side in pixels; smaller pictures are never enlarged.")
    ] = 256,
    to: Annotated[
        Literal["video", "jpeg", "clips"],
        typer.Option(help="H.264 files, folders of JPEG frames, or one file with all pixels."),
    ] = "video",
    quality: Annotated[
        int | None,
        typer.Option(
            help="Of video the constant rate factor, 0 to 51, less is better; of JPEG 1 to 100.  [default: 18; 95]",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    workers: options.Workers = None,
) -> int:
    """Make a smaller copy of a data set, which is compared with the videos and reads like them.

    Annotations beside the videos are copied along. Run again, it converts what is new or has changed.
    """
    from ssan.convert.forms import Settings

    return _run(source, dest, Settings(to, short_side_px=short_side, quality=quality), workers, json, quiet)


def frames(
    source: Source,
    dest: Dest,
    height: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Of the frames in pixels, never enlarged; Something-Something V1 has 100.  [default: as it is]",
            show_default=False,
        ),
    ] = None,
    quality: Quality = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    workers: options.Workers = None,
) -> int:
    """Extract the frames of videos as JPEG, DEST/NAME/00001.jpg and so on, as Something-Something V1 has them."""
    from ssan.convert.forms import Settings

    return _run(source, dest, Settings("jpeg", height_px=height, quality=quality), workers, json, quiet)


def flow(
    source: Source,
    dest: Dest,
    method: Annotated[
        Literal["dis", "tvl1", "farneback"], typer.Option(help="dis is quick; TSN used tvl1, which is slow.")
    ] = "dis",
    bound: Annotated[float, typer.Option(help="Motion in pixels that becomes white; its opposite becomes black.")] = 20,
    short_side: ShortSide = None,
    quality: Quality = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    workers: options.Workers = None,
) -> int:
    """Compute optical flow with OpenCV: flow_x_00001.jpg and flow_y_00001.jpg are from frame 1 to frame 2.

    Needs pip install 'ssan[flow]'.
    """
    from ssan.convert.forms import Settings

    settings = Settings("flow", short_side_px=short_side, quality=quality, method=method, bound=bound)
    return _run(source, dest, settings, workers, json, quiet)


def _run(source: str, dest: str, settings: "Settings", workers: int | None, json: bool, quiet: bool) -> int:
    from ssan.convert.convert import convert

    workers = num_cores() if workers is None else workers
    try:
        summary = convert(source, dest, settings, workers=workers, quiet=quiet)
    except KeyboardInterrupt:
        print("ssan: interrupted; what is converted is kept, the same command goes on from there", file=sys.stderr)
        return options.INTERRUPTED
    if json:
        options.show_json({"schema": 1, **summary.as_dict()})
    else:
        for error in [*summary.failed, *summary.truncated, *summary.not_copied]:
            print(f"ssan: {error.code or 'not copied'}: {error}", file=sys.stderr)
        print(
            f"{dest}: {summary.num_converted} of {summary.num_videos} videos converted, {summary.num_unchanged} were "
            f"there, {len(summary.failed)} failed, {len(summary.truncated)} are truncated; {summary.bytes:,} bytes"
        )
    return options.SOME_FAILED if summary.failed or summary.truncated or summary.not_copied else options.DONE
