"""Pictures of results: confusion matrices, curves, strips of frames."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import simplejpeg
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from ssan.insight.page import as_image

COLOURS = ("#b3541e", "#1f6f8b", "#5a7d2a", "#6b4e8e")


def confusion_plot(table: np.ndarray, classes: Sequence[str]) -> Markup:
    """A confusion matrix (k, k), rows the true classes, each number a count of videos."""
    size = 1.6 + 0.42 * len(classes)
    figure = Figure(figsize=(size + 2.2, size))
    axes = figure.add_subplot()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            if table[row, column]:
                colour = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(table[row, column]), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(classes)), [str(n + 1) for n in range(len(classes))], fontsize=9)
    axes.set_yticks(range(len(classes)), [f"{label}  {n + 1}" for n, label in enumerate(classes)], fontsize=9)
    axes.set_xlabel("answer", fontsize=9)
    # Classes come in pairs; a line between the pairs shows what stays within one.
    for edge in np.arange(1.5, len(classes) - 1, 2):
        axes.axhline(edge, color="#999999", linewidth=0.6)
        axes.axvline(edge, color="#999999", linewidth=0.6)
    return as_image(figure, "Confusion matrix: rows are true classes, columns answers")


def curves_plot(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """Validation accuracy and training loss over epochs, one line a model, from the journals' ``epoch`` events."""
    figure = Figure(figsize=(8.6, 2.9))
    for place, (key, title) in enumerate([("val_top1", "validation top-1"), ("train_loss", "training loss")]):
        axes = figure.add_subplot(1, 2, place + 1)
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            rows = {row["epoch"]: row[key] for row in history}
            epochs = sorted(rows)
            axes.plot(epochs, [rows[e] for e in epochs], marker="o", markersize=3, color=colour, label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.set_ylim(bottom=0, top=1.02 if key == "val_top1" else None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=9, frameon=False)
    figure.tight_layout()
    return as_image(figure, "Validation accuracy and training loss over epochs")


def frame_strip(frames: Tensor) -> Markup:
    """The frames of a clip (t, 3, h, w), uint8, side by side in time, as an ``img`` element."""
    strip = np.concatenate(list(frames.permute(0, 2, 3, 1).numpy()), axis=1)
    data = base64.b64encode(simplejpeg.encode_jpeg(np.ascontiguousarray(strip), quality=92)).decode("ascii")
    return Markup('<img class="strip" alt="{} frames in time" src="data:image/jpeg;base64,{}">').format(
        len(frames), data
    )
