"""``ssan submission``."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from ssan.cli import options


def submission(
    scores: Annotated[str, typer.Argument(metavar="SCORES.npz", help="Scores of the test split (ssan eval --scores).")],
    format: Annotated[Literal["sthv1", "sthv2"], typer.Option(help="Whose leaderboard.")],
    annotations: Annotated[str, typer.Option(help="The official test list, or the folder with it and the labels.")],
    out: Annotated[str, typer.Option("--out", "-o", help="File to write.")],
    json: options.Json = False,
) -> int:
    """Write the file that a leaderboard of Something-Something takes.

    It is written only if the scores are of exactly the videos of the official list. Of classes with equal scores, the
    one that stands first in the labels file goes first.
    """
    from ssan.recognition.score_file import read_scores
    from ssan.recognition.submission import write_submission

    answer = write_submission(out, read_scores(scores), format, annotations)
    options.show(answer, lambda _: _lines(answer, format), as_json=json)
    return options.DONE


def _lines(answer: dict[str, Any], format: str) -> Iterator[str]:
    yield f"{answer['path']}: {answer['num_videos']} videos, {answer['num_classes']} classes, as {format}"
    if answer["num_ties"]:
        yield f"{answer['num_ties']} videos have equal scores among the best, taken in the order of the labels"
