"""``ssan report``."""

import os
from typing import Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The page, an HTML file; of one run RUN/report.html by default.")
    ] = None,
    strips: Annotated[
        int,
        typer.Option(min=0, max=1000, help="Film strips of wrong answers, of one run, where the videos still are."),
    ] = 24,
    json: options.Json = False,
) -> int:
    """Make one page of a run, or of several side by side, from their journals.

    The page of one run also shows some of the videos that `ssan eval` found to be answered wrongly (--strips 0: none).
    """
    if out is None and len(runs) > 1:
        raise UsageError(f"{len(runs)} runs go on one page that belongs to none of them; say where with -o FILE.html")
    page = os.path.join(runs[0], "report.html") if out is None else out
    if os.path.isdir(page):
        raise UsageError("it is a folder; name a file for the page, such as -o report.html", path=page)
    if not page.lower().endswith((".html", ".htm")):
        raise UsageError("a page's name ends in .html; name it so, such as -o report.html", path=page)

    from ssan.report.report import report

    answer = report(runs, page, num_strips=strips)
    options.show(answer, lambda _: [*map(_line, answer["runs"]), f"Open {page}"], as_json=json)
    for warning in answer["warnings"] if not json else ():
        tell(warning)
    return options.DONE


def _line(row: dict[str, Any]) -> str:
    best = "no epoch yet"
    if row.get("task") == "retrieval":
        best = _recalls(row)
    elif row.get("task") == "probe":
        best = "no result yet" if row["top1"] is None else f"{row['top1']:.4f} top-1 of a head on frozen features"
    elif row["val_top1"] is not None:
        best = f"{row['val_top1']:.4f} top-1 on {row['num_val']} validation videos, epoch {row['best_epoch']}"
    return f"{row['run']}: {row['status']}, {best}"


def _recalls(row: dict[str, Any]) -> str:
    """The last evaluation of a joint space."""
    for found in row["evaluations"]:
        ways = [("text to video", found["text_to_video"]["r1"]), ("video to text", found["video_to_text"]["r1"])]
        said = [f"{way} R@1 {recall:.4f}" for way, recall in ways if recall is not None]
        if said:
            return f"{', '.join(said)} on {found['split']}"
    return f"{row['epochs']} epochs, not evaluated"
