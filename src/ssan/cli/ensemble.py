"""``ssan ensemble``."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from ssan.cli import options
from ssan.errors import UsageError


def ensemble(
    files: Annotated[list[str], typer.Argument(metavar="A.npz B.npz...", help="Score files (ssan eval --scores).")],
    weights: Annotated[str | None, typer.Option(help="A number for each file, as 2,1; equal by default.")] = None,
    average: Annotated[
        Literal["logits", "probabilities"], typer.Option(help="What of the members is added.")
    ] = "logits",
    out: Annotated[str | None, typer.Option("--out", "-o", help="Score file to write (.npz).")] = None,
    json: options.Json = False,
) -> int:
    """Add the scores of several models of the same videos."""
    from ssan.recognition.ensemble import ensemble, write_ensemble
    from ssan.recognition.score_file import check_name

    if out is not None:
        check_name(out)
    whole = ensemble(files, weights=None if weights is None else _numbers(weights), average=average)
    if out is not None:
        write_ensemble(out, whole)
    options.show(whole.answer, _lines, as_json=json)
    return options.DONE


def _numbers(weights: str) -> list[float]:
    try:
        return [float(weight) for weight in weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights is {weights!r}; expected a number for each file, as 2,1") from None


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    used, num = answer["protocol"], len(answer["members"])
    of_split = f" of {used['split']}" if used["split"] else ""
    yield f"{answer['num_videos']} videos{of_split}, {used['ensemble']} of {num} models added"
    top5 = answer["top1"] is None or answer["top5"] is not None  # of few classes there is none
    yield f"{'top-1':>6} {'95 % interval':>18}" + (f" {'top-5':>7}" if top5 else "") + f" {'weight':>7}"
    for row in answer["members"]:
        yield f"{_accuracies(row, top5)} {row['weight']:7g}  {row['path']}"
    yield f"{_accuracies(answer, top5)} {'':7}  ensemble"


def _accuracies(row: dict[str, Any], top5: bool) -> str:
    if row["top1"] is None:
        return f"{'-':>6} {'-':>18} {'-':>7}"
    low, high = row["interval95"]
    return f"{row['top1']:.4f} [{low:7.4f}, {high:7.4f}]" + (f" {row['top5']:7.4f}" if top5 else "")
