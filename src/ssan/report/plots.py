"""Pictures of data and results: balance of classes, large confusion matrices, curves, gains by class, frames."""

import base64
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps, rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssan.files import replacing
from ssan.report.fonts import drawable
from ssan.report.html import as_drawing, as_image, as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

GAIN, LOSS = "#1f6f8b", "#b3541e"
COLOURS = ("#b3541e", "#1f6f8b", "#5a7d2a", "#6b4e8e", "#a8841a", "#a13d63", "#3d5a99", "#5b5b5b")


def matrix_plot(table: np.ndarray, alt: str) -> Markup:
    """A confusion matrix (k, k) of many classes: no names, and shades of each row's shares, small ones made visible."""
    side = 6.4
    figure = Figure(figsize=(side + 1.0, side))
    axes = figure.add_subplot()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    edges = (0.5, len(table) + 0.5, len(table) + 0.5, 0.5)  # classes are counted from 1
    picture = axes.imshow(
        shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest", extent=edges
    )
    axes.set_xlabel("answer, number of the class", fontsize=9)
    axes.set_ylabel("true class, number", fontsize=9)
    axes.tick_params(labelsize=8)
    bar = figure.colorbar(picture, ax=axes, fraction=0.045, pad=0.03, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "0.01", "0.05", "0.1", "0.25", "0.5", "1"], fontsize=8)
    bar.set_label("share of the class's videos", fontsize=9)
    return as_image(figure, alt, dots_per_inch=max(110, min(300, round(3 * len(table) / side))))


@dataclass(frozen=True)
class Line:
    """A curve over epochs: NaN where an epoch has no value.

    :param dashed: 0 for a whole line; other numbers are other dashes.
    :param label: in a legend; none without.
    """

    epochs: Sequence[int]
    values: Sequence[float]
    colour: str
    dashed: int = 0
    label: str | None = None


DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def lines_plot(lines: Sequence[Line], title: str, alt: str, *, share: bool = False) -> Markup:
    """Curves over epochs in one small picture.

    :param share: values are between 0 and 1, and the axis is all of that.
    """
    figure = Figure(figsize=(4.6, 2.6))
    axes = figure.add_axes((0.13, 0.18, 0.85, 0.71))  # the same in all of them, so that their axes stand in line
    for line in lines:
        axes.plot(
            line.epochs, line.values, marker="o" if len(line.epochs) < 30 else "", markersize=3, color=line.colour,
            linestyle=DASHES[line.dashed % len(DASHES)], linewidth=1.4, label=line.label, alpha=0.9,
        )  # fmt: skip
    values = [value for line in lines for value in line.values if value == value]
    if share:
        axes.set_ylim(-0.02, 1.02)
    elif min(values) > 0 and max(values) > 50 * min(values):
        axes.set_yscale("log")
    elif min(values) >= 0:
        axes.set_ylim(0, 1.06 * max(values) or 1)
    if (
        not share and axes.get_yscale() == "linear"
    ):  # a power of ten that all have in common would stand where the title is
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(title, fontsize=10, loc="left")
    _count_epochs(axes, [epoch for line in lines for epoch in line.epochs])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6eaec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    if any(line.label for line in lines):
        axes.legend(fontsize=8.5, frameon=False)
    return as_drawing(figure, alt)


def _count_epochs(axes: "Axes", epochs: Iterable[int]) -> None:
    """Epochs along the axis, whole numbers, also where there is one alone."""
    known = set(epochs)
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(known) == 1:
        axes.set_xlim(min(known) - 1, min(known) + 1)
        axes.set_xticks([min(known)])


def growth_plot(points: Sequence[tuple[int, float, tuple[float, float]]], alt: str) -> Markup:
    """Accuracy by the number of clips, which grow by doubling along the axis, each with its interval."""
    figure = Figure(figsize=(4.6, 2.6))
    axes = figure.add_axes((0.13, 0.18, 0.85, 0.71))
    nums, shares = [num for num, _, _ in points], [top1 for _, top1, _ in points]
    # Resampled intervals need not hold the share itself.
    below = [max(top1 - low, 0.0) for _, top1, (low, _) in points]
    above = [max(high - top1, 0.0) for _, top1, (_, high) in points]
    axes.errorbar(
        nums, shares, yerr=(below, above), color=COLOURS[1], ecolor="#8fb3bf", marker="o", markersize=4, linewidth=1.4,
        capsize=3,
    )  # fmt: skip
    for num, top1 in zip(nums, shares, strict=True):
        axes.annotate(f"{top1:.2f}", (num, top1), (5, -11), textcoords="offset points", fontsize=8, color="#444444")
    axes.set_xscale("log", base=2)
    axes.set_xlim(nums[0] / 1.3, nums[-1] * 1.3)
    axes.set_xticks(nums, [f"{num:,}" for num in nums])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("top-1 by the number of clips", fontsize=10, loc="left")
    axes.set_xlabel("clips for the head", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6eaec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    return as_drawing(figure, alt)


def curves_plot(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """Validation accuracy and training loss over epochs, one line a model, from the journals' ``epoch`` events."""
    figure = Figure(figsize=(8.6, 2.9))
    for number, (key, title) in enumerate([("val_top1", "validation top-1"), ("train_loss", "training loss")], start=1):
        axes = figure.add_subplot(1, 2, number)
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            rows = {row["epoch"]: row[key] for row in history if row.get(key) is not None}
            epochs = sorted(rows)
            axes.plot(epochs, [rows[e] for e in epochs], marker="o", markersize=3, color=colour, label=name)
        axes.set_title(title, fontsize=10)
        _count_epochs(axes, [row["epoch"] for history in histories.values() for row in history])
        axes.set_ylim(bottom=0, top=1.02 if key == "val_top1" else None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=9, frameon=False)
    figure.tight_layout()
    return as_image(figure, "Validation accuracy and training loss over epochs")


def gains_plot(rows: Sequence[Mapping[str, Any]], title: str, *, top: int = 15) -> Figure:
    """Gains and losses of top-1 by class, largest gain on top, as figure 4 of the SSAN paper shows them.

    Above, the ``top`` largest gains and losses with their names, the number of videos in brackets; where that is not
    all of them, below, all classes side by side in the same order, so that what is not named is not hidden.

    :param rows: of ``recognition.compare``, sorted by gain; those without a video are left out. A name that no font
        here can draw is that of its row in them, counted from 1 (``num_numbered``).
    :param title: a line of its own above the bars.
    """
    rows = [row for row in rows if row["num"]]
    left_out = len(rows) > 2 * top
    named: list[Mapping[str, Any] | None] = list(rows)
    if left_out:
        gains = [row for row in rows if row["difference"] > 0][:top]
        losses = [row for row in rows if row["difference"] < 0][-top:]
        named = [*gains, None, *losses]
    points = np.array([100 * row["difference"] for row in rows])
    reach = 1.18 * max(1.0, float(np.abs(points).max()))

    inches = 0.27 * len(named) + 0.3
    figure = Figure(figsize=(9.6, inches + (2.3 if left_out else 0.9)), layout="constrained")
    if left_out:
        axes, strip = figure.subplots(2, 1, height_ratios=[inches, 1.0])
    else:
        axes, strip = figure.subplots(), None
    for y, row in enumerate(named):
        if row is not None:
            value = 100 * row["difference"]
            axes.barh(y, value, height=0.72, color=GAIN if value > 0 else LOSS)
            axes.annotate(
                f"{value:+.1f}", (value, y), (3 if value >= 0 else -3, 0), textcoords="offset points",
                ha="left" if value >= 0 else "right", va="center", fontsize=8, color="#444444",
            )  # fmt: skip
    shown, fonts, _ = drawable([_short(row["label"]) for row in rows], lambda index: f"class in row {index + 1}")
    indices = (
        [*range(len(rows))] if not left_out else [*range(len(gains)), None, *range(len(rows) - len(losses), len(rows))]
    )
    names = ["" if index is None else f"{shown[index]}  ({rows[index]['num']})" for index in indices]
    axes.set_yticks(range(len(named)), names, fontsize=8.5, parse_math=False, fontfamily=fonts)
    if left_out:
        hidden = len(rows) - len(named) + 1
        axes.text(
            0, named.index(None), f"{hidden} classes between", ha="center", va="center", fontsize=8, color="#666666",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )  # fmt: skip
    axes.set_ylim(len(named) - 0.4, -0.6)
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color="#444444", linewidth=0.8)
    lines, fonts, _ = drawable([_short(line, 100) for line in title.split("\n")], lambda _: "Top-1 by class")
    axes.set_title("\n".join(lines), fontsize=10.5, loc="left", parse_math=False, fontfamily=fonts)
    better, worse = int((points > 0).sum()), int((points < 0).sum())
    summary = f"all {len(points)} classes: {better} gain, {worse} lose, {len(points) - better - worse} stay"
    unit = "difference of top-1 in percentage points"
    axes.set_xlabel(unit if left_out else f"{unit}; {summary}", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if strip is not None:
        strip.bar(range(len(points)), points, width=1.0, color=[GAIN if value > 0 else LOSS for value in points])
        strip.axhline(0, color="#444444", linewidth=0.8)
        strip.set_xlabel(summary, fontsize=9)
        strip.set_xlim(-0.6, len(points) - 0.4)
        strip.set_xticks([])
        strip.tick_params(labelsize=8)
        strip.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def num_numbered(names: Iterable[str]) -> int:
    """How many of these names no font here can draw, so that numbers stand for them in a picture."""
    return drawable([_short(name) for name in names], str)[2]


def balance_plot(classes: Sequence[str], counts: Sequence[int], *, named: int = 30) -> Figure:
    """The number of videos of each class, the largest on top.

    Of more classes than ``named`` the largest and the smallest half of so many have their names; below, all classes
    stand side by side in the same order, so that what is not named is not hidden.
    """
    order = sorted(range(len(counts)), key=lambda index: (-counts[index], index))
    left_out = len(order) > named
    rows: list[int | None] = [*order]
    if left_out:
        rows = [*order[: named // 2], None, *order[-(named // 2) :]]
    inches = 0.27 * len(rows) + 0.3
    figure = Figure(figsize=(9.6, inches + (2.3 if left_out else 0.9)), layout="constrained")
    if left_out:
        axes, strip = figure.subplots(2, 1, height_ratios=[inches, 1.0])
    else:
        axes, strip = figure.subplots(), None
    reach = 1.1 * max(1, *counts)
    middle = float(np.median(counts))
    for y, index in enumerate(rows):
        if index is not None:
            axes.barh(y, counts[index], height=0.72, color=LOSS if counts[index] == 0 else GAIN)
            axes.annotate(
                f"{counts[index]:,}", (counts[index], y), (3, 0), textcoords="offset points",
                ha="left", va="center", fontsize=8, color="#444444",
            )  # fmt: skip
    shown, fonts, _ = drawable([_short(label) for label in classes], lambda index: f"class {index + 1}")
    names = ["" if index is None else shown[index] for index in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8.5, parse_math=False, fontfamily=fonts)
    if left_out:
        axes.text(
            reach / 2, rows.index(None), f"{len(order) - len(rows) + 1} classes between", ha="center", va="center",
            fontsize=8, color="#666666",
        )  # fmt: skip
    axes.axvline(middle, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, reach)
    empty = sum(count == 0 for count in counts)
    title = f"{sum(counts):,} videos in {len(counts)} classes, median {middle:,g} (dashed)"
    axes.set_title(title + (f", {empty} without any" if empty else ""), fontsize=10.5, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if strip is not None:
        strip.bar(range(len(order)), [counts[index] for index in order], width=1.0, color=GAIN)
        strip.axhline(middle, color="#999999", linewidth=0.8, linestyle="--")
        strip.set_xlabel(f"all {len(order)} classes, from {max(counts):,} to {min(counts):,} videos", fontsize=9)
        strip.set_xlim(-0.6, len(order) - 0.4)
        strip.set_xticks([])
        strip.tick_params(labelsize=8)
        strip.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: str | Path, *, dots_per_inch: int = 150) -> None:
    """Write a figure, whole or not at all, in the format of the name's ending; the same figure gives the same bytes."""
    ending = Path(path).suffix[1:]
    with rc_context({"svg.hashsalt": "ssan"}), replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(partial, format=ending, dpi=dots_per_inch, metadata={"Date": None} if ending == "svg" else {})


def _short(label: str, most: int = 62) -> str:
    """A class's name on one line, the middle of a long one left out: the ends of Something-Something's tell them apart.

    What no font shows stands as its escape.
    """
    plain = str(as_text(label))
    if len(plain) <= most:
        return plain
    head, tail = plain[: most * 6 // 10], plain[-(most * 4 // 10 - 5) :]
    return f"{head.rpartition(' ')[0] or head} ... {tail.partition(' ')[2] or tail}"


def frame_strip(frames: "Tensor") -> Markup:
    """The frames of a clip (t, 3, h, w), uint8, side by side in time, as an ``img`` element."""
    import simplejpeg

    strip = np.concatenate(list(frames.permute(0, 2, 3, 1).numpy()), axis=1)
    data = base64.b64encode(simplejpeg.encode_jpeg(np.ascontiguousarray(strip), quality=92)).decode("ascii")
    return Markup('<img class="strip" alt="{} frames in time" src="data:image/jpeg;base64,{}">').format(
        len(frames), data
    )


def seeds_plot(curves: Mapping[str, Sequence[Mapping[int, float]]], title: str) -> Markup:
    """Curves over epochs, one colour a name: the mean over its runs, and from the lowest to the highest as a band."""
    figure = Figure(figsize=(9.6, 3.6))
    axes = figure.add_subplot()
    colours = colormaps["tab20"].colors if len(curves) > 10 else colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (name, runs) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        epochs = sorted(set.intersection(*(set(run) for run in runs)))
        values = np.array([[run[epoch] for epoch in epochs] for run in runs])
        axes.plot(epochs, values.mean(axis=0), marker="o", markersize=3, color=colour, label=name)
        if len(runs) > 1:
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set_title(title, fontsize=10)
    _count_epochs(axes, [epoch for runs in curves.values() for run in runs for epoch in run])
    axes.set_ylim(0, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return as_image(figure, f"{title}: {', '.join(curves)}")
