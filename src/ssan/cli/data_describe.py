"""``ssan data describe``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import options
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource


@options.reads_data_as_argument
def describe(
    source: "DataSource",
    split: options.Split = "all",
    look: Annotated[int, typer.Option(min=0, help="Open up to so many videos for lengths and sizes.")] = 50,
    plot: Annotated[str | None, typer.Option(metavar="FILE.png", help="Draw the balance of the classes.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Say what there is: videos, classes and their balance, captions, lengths, sizes, mirrored pairs, what is missing.

    Annotations alone are enough.
    """
    from ssan.datasets.describe import count_classes, describe

    if plot is not None:
        options.check_output("--plot", plot, [".png", ".svg", ".pdf"])
    samples = source.read(split)
    options.refuse_none(samples, split, source)
    if plot is not None and not samples.classes:
        raise UsageError("--plot draws classes, and there are none; leave it out", path=source.root)
    found = {"format": source.found_format, **describe(samples, look=look)}
    if plot is not None:
        from ssan.report.plots import balance_plot, save_figure

        save_figure(balance_plot(samples.classes, count_classes(samples)), plot)
    options.show(found, _lines, as_json=json)
    return options.DONE


def _lines(found: dict[str, Any]) -> list[str]:
    """The description for people; what there is none of is left out."""
    from ssan.errors import printable

    classes, look = found["classes"], found["looked_at"]
    lines = [f"format      {found['format']}", f"videos      {_videos(found)}"]
    for split, numbers in found["splits"].items():
        if split or len(found["splits"]) > 1:
            lines.append(f"  {split or 'no split':<10}{_videos(numbers)}")
    lines += [f"missing     {printable(path)}" for path in found["first_missing"]]
    if found["num_missing"] > len(found["first_missing"]):
        lines.append(f"            and {found['num_missing'] - len(found['first_missing'])} more")
    told = found["num_captions"] > 0 and not classes
    if not told:
        lines.append(f"classes     {len(classes)}")
    balance = found["balance"]
    if balance:
        empty = f"; {balance['num_empty']} have none" if balance["num_empty"] else ""
        ratio = f", largest to smallest {balance['ratio']:g}" if balance["ratio"] is not None else ""
        lines.append(f"balance     median {balance['median']:g} a class{ratio}{empty}")
        for key in ("smallest", "largest"):
            lines.append(f"  {key:<10}{balance[key]['num']}  {printable(classes[balance[key]['class']])}")
    if found["num_unlabelled"] and not told:
        lines.append(f"no label    {found['num_unlabelled']}")
    if classes:
        lines.append(f"mirrored    {len(found['flip_pairs'])} pairs of classes that mirroring exchanges")
        lines += [f"  {a} <-> {b}  {classes[a]} <-> {classes[b]}" for a, b in found["flip_pairs"]]
        lines += [f"  {a} has a direction and no partner: {classes[a]}" for a in found["directed_without_partner"]]
    for title, key, unit in (
        ("frames", "num_frames_listed", "frames, as the list says"),
        ("parts", "part_seconds", "s, as the list says"),
        ("parts", "part_frames", "frames, as the list says"),
        ("captions", "caption_words", "words"),
        ("a video has", "captions_per_video", "captions"),
    ):
        lines += _spread(title, found[key], unit)
    if found["num_repeated_captions"]:
        lines.append(f"repeated    {found['num_repeated_captions']} captions that several videos have")
        lines += [f"  {one['num_videos']:<10}{printable(one['caption'])}" for one in found["repeated_captions"]]
    if look["num_videos"]:
        failed = f", of which {look['num_failed']} do not open (ssan data check says why)" if look["num_failed"] else ""
        lines.append(f"looked at   {look['num_videos']} videos{failed}")
        for title, key, unit in (
            ("  frames", "num_frames", ""),
            ("  length", "duration_seconds", "s"),
            ("  rate", "frames_per_second", "frames a second"),
        ):
            lines += _spread(title, look[key], unit)
        sizes = [f"{size['width']}x{size['height']} ({size['num']})" for size in look["sizes_px"][:6]]
        more = f", and {len(look['sizes_px']) - 6} other sizes" if len(look["sizes_px"]) > 6 else ""
        lines += [f"  size      {', '.join(sizes)}{more} px"] if sizes else []
    lines += [f"warning     {warning}" for warning in found["warnings"]]
    return lines


def _videos(numbers: dict[str, Any]) -> str:
    missing = f", {numbers['num_missing']} missing" if numbers["num_missing"] else ""
    several = f" in {numbers['num_samples']} samples" if numbers["num_samples"] != numbers["num_videos"] else ""
    return f"{numbers['num_videos']}{several}{missing}"


def _spread(title: str, values: dict[str, Any] | None, unit: str) -> list[str]:
    if values is None:
        return []
    low, middle, high = (values[key] for key in ("smallest", "median", "largest"))
    return [f"{title:<12}{low:g} to {high:g} {unit}".rstrip() + f", median {middle:g} ({values['num']})"]
