"""``ssan data resize``, ``frames`` and ``flow``: a data set converted once, to be read quickly ever after."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError
from ssan.processes import num_cores

if TYPE_CHECKING:
    from ssan.convert.forms import Settings

Source = Annotated[
    str, typer.Argument(metavar="[SOURCE]", help="Folder of videos (files, folders of frames), or a clip file.")
]
Dest = Annotated[
    str | None,
    typer.Argument(
        metavar="DEST", show_default=False, help="Folder for the copies, which have the names that the videos have."
    ),
]
SourceOption = Annotated[str | None, typer.Option("--data", metavar="SOURCE", help="The same as the first argument.")]
Quality = Annotated[int | None, typer.Option(help="Of JPEG, 1 to 100.  [default: 95]", show_default=False)]
ShortSide = Annotated[
    int | None,
    typer.Option(min=8, help="Length of the shorter side in pixels; smaller pictures are never enlarged.  [default: "
                 "as it is]", show_default=False),
]  # fmt: skip


def resize(
    source: Source,
    dest: Annotated[
        str | None,
        typer.Argument(
            metavar="DEST", show_default=False, help="Folder for the copies; with --to clips a file, NAME.clips."
        ),
    ] = None,
    data: SourceOption = None,
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

    return _convert(
        _both(source, dest, data), Settings(to, short_side_px=short_side, quality=quality), workers, json, quiet
    )


def frames(
    source: Source,
    dest: Dest = None,
    data: SourceOption = None,
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

    return _convert(
        _both(source, dest, data), Settings("jpeg", height_px=height, quality=quality), workers, json, quiet
    )


def flow(
    source: Source,
    dest: Dest = None,
    data: SourceOption = None,
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
    return _convert(_both(source, dest, data), settings, workers, json, quiet)


def _both(first: str, second: str | None, data: str | None) -> tuple[str, str]:
    """Source and destination: two arguments, or ``--data`` and one."""
    if data is not None and second is not None:
        raise UsageError(f"the data are given twice, as {first!r} and as --data {data!r}; give them once")
    if data is not None:
        return data, first
    if second is None:
        raise UsageError(f"there is one folder, {first!r}; name the videos and, after them, the folder for the copies")
    return first, second


def _convert(folders: tuple[str, str], settings: "Settings", workers: int | None, json: bool, quiet: bool) -> int:
    from ssan.convert.convert import convert

    source, dest = folders
    try:
        summary = convert(source, dest, settings, workers=num_cores() if workers is None else workers, quiet=quiet)
    except KeyboardInterrupt:
        return options.interrupted("what is converted is kept, the same command goes on from there")
    faults = [*summary.failed, *summary.truncated, *summary.not_copied]
    for error in faults if not json else ():
        tell(f"{error.code or 'not copied'}: {error}")
    line = (
        f"{dest}: {summary.num_converted} of {summary.num_videos} videos converted, {summary.num_unchanged} were "
        f"there, {len(summary.failed)} failed, {len(summary.truncated)} are truncated; {summary.bytes:,} bytes"
    )
    options.show(summary.as_dict(), lambda _: [line], as_json=json)
    return options.SOME_FAILED if faults else options.DONE
