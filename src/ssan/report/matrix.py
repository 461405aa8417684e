"""A confusion matrix of few classes as a table of a page: its names are text, in whatever letters they are written."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ssan.report.html import as_text

STRONG = 0.83
"""From this share on a cell is so dark that white is easier to read on it than the ink of the page."""


def confusion_table(counts: np.ndarray, classes: Sequence[str], *, paired: bool = False) -> Markup:
    """Counts (k, k), rows the true classes; a cell is as dark as its share of its row.

    :param paired: whether classes 0 and 1, 2 and 3 and so on are pairs, with lines between them.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    within = [index for index in range(1, len(classes) - 1, 2) if paired]
    heads = Markup("").join(
        Markup('<th scope="col" dir="auto"{}>{}</th>').format(_class("edge" if n in within else ""), as_text(name))
        for n, name in enumerate(classes)
    )
    rows = []
    for n, name in enumerate(classes):
        cells = Markup("").join(
            Markup("<td{}{}>{}</td>").format(
                _class("edge" if m in within else "", "strong" if shares[n, m] > STRONG else ""),
                Markup(' style="background:rgb(31 111 139/{})"').format(f"{shares[n, m]:.2f}") if counts[n, m] else "",
                f"{counts[n, m]:,}" if counts[n, m] else "",
            )
            for m in range(len(classes))
        )
        rows.append(
            Markup('<tr{}><th scope="row" dir="auto">{}</th>{}</tr>').format(
                _class("below" if n in within else ""), as_text(name), cells
            )
        )
    return Markup(
        '<table class="confusion"><thead><tr><th scope="col">true class, by the answer</th>{}</tr>'
        "</thead><tbody>{}</tbody></table>"
    ).format(heads, Markup("").join(rows))


def _class(*names: str) -> Markup | str:
    chosen = " ".join(name for name in names if name)
    return Markup(' class="{}"').format(chosen) if chosen else ""
