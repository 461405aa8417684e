"""``ssan compare``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import tell


def compare(
    a: Annotated[str, typer.Argument(metavar="A.npz", help="Score file of a model (ssan eval --scores).")],
    b: Annotated[str, typer.Argument(metavar="B.npz", help="Score file of another, on the same videos.")],
    common: Annotated[bool, typer.Option("--common", help="Leave out videos that only one file has.")] = False,
    out: Annotated[
        str | None, typer.Option(help="Folder for gains.png, gains.svg, classes.csv and compare.json.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Gains and losses to show, of each.")] = 15,
    resamples: Annotated[int, typer.Option(min=100, max=10_000_000, help="Draws of the bootstrap.")] = 10_000,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
) -> int:
    """Compare two models on the same videos: B less A, with its interval, McNemar's test and the classes."""
    from ssan.recognition.compare import compare
    from ssan.recognition.score_file import read_scores

    answer = {"schema": 1, **compare(read_scores(a), read_scores(b), common=common, resamples=resamples, seed=seed)}
    if not quiet:
        _warn(answer)
    if out is not None:
        _write(Path(out), answer, top)
    options.show(answer, lambda _: _lines(answer, top), as_json=json)
    return options.DONE


def _warn(answer: dict[str, Any]) -> None:
    left_out = answer["num_only_in_a"] + answer["num_only_in_b"]
    if left_out:
        tell(
            f"{answer['num_videos']} videos are in both files; left out: {answer['num_only_in_a']} that only A has, "
            f"{answer['num_only_in_b']} that only B has"
        )
    if answer["protocol_differences"]:
        each = ", ".join(
            f"{key} {_shown(one)} and {_shown(two)}" for key, (one, two) in answer["protocol_differences"].items()
        )
        tell(f"the protocols differ, so the models are not all that differs: {each}")


def _shown(value: Any) -> str:
    """A setting for people; of a list, such as the members of an ensemble, how many."""
    return f"{len(value)} of them" if isinstance(value, list) else repr(value)


def _write(folder: Path, answer: dict[str, Any], top: int) -> None:
    from ssan.files import write_json
    from ssan.recognition.compare import write_table
    from ssan.report.plots import gains_plot, num_numbered, save_figure

    low, high = (100 * end for end in answer["difference_interval95"])
    title = (
        f"Top-1 by class: {Path(answer['b']['path']).stem} less {Path(answer['a']['path']).stem}\n"
        f"{100 * answer['difference']:+.2f} points over {answer['num_videos']:,} videos, 95 % interval "
        f"[{low:+.2f}, {high:+.2f}]"
    )
    figure = gains_plot(answer["per_class"], title, top=top)
    numbered = num_numbered(row["label"] for row in answer["per_class"] if row["num"])
    if numbered:
        tell(
            f"{folder / 'gains.png'}: {numbered} classes have letters that no font here can draw; the numbers of their "
            "rows in classes.csv stand for them"
        )
    for ending in ("png", "svg"):
        save_figure(figure, folder / f"gains.{ending}")
    write_table(folder / "classes.csv", answer["per_class"])
    write_json(folder / "compare.json", answer)


def _lines(answer: dict[str, Any], top: int) -> Iterator[str]:
    yield (
        f"top-1 of {answer['num_videos']} videos with 95 % intervals, that of the difference by paired bootstrap "
        f"({answer['resamples']} resamples)"
    )
    for letter in "ab":
        low, high = answer[letter]["interval95"]
        yield f"{letter.upper():5}  {answer[letter]['top1']:7.4f} [{low:7.4f}, {high:7.4f}]  {answer[letter]['path']}"
    low, high = answer["difference_interval95"]
    counts, test = answer["counts"], answer["mcnemar"]
    yield f"B - A  {answer['difference']:+7.4f} [{low:+7.4f}, {high:+7.4f}]"
    yield (
        f"right: both {counts['both_right']}, only A {counts['only_a']}, only B {counts['only_b']}, neither "
        f"{counts['neither']}; McNemar p {test['exact_p']:.3g} exact, {test['mid_p']:.3g} mid-p"
    )
    rows = [row for row in answer["per_class"] if row["num"]]
    gains = [row for row in rows if row["difference"] > 0]
    losses = [row for row in rows if row["difference"] < 0]
    yield f"{len(gains)} classes gain, {len(losses)} lose, {len(rows) - len(gains) - len(losses)} stay"
    shown = [*gains[:top], *losses[-top:]]
    if shown:
        yield f"{'B - A':>8} {'A':>7} {'B':>7} {'videos':>7}  class"
    for row in shown:
        yield f"{row['difference']:+8.4f} {row['top1_a']:7.4f} {row['top1_b']:7.4f} {row['num']:7}  {row['label']}"
