"""The page of a table: ours beside the paper's, with protocol, spread and curves; blank where it was not run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from ssan.report.html import render_page
from ssan.report.plots import seeds_plot
from ssan.reproduce.results import as_percent, spread


class Column(NamedTuple):
    """A column of the table.

    :param title: its lines, one below the other.
    :param show: what stands in it, of a row.
    :param style: a class of the style sheet: ``left`` for text, ``own`` for figures of ours.
    """

    title: str
    show: Callable[[Mapping[str, Any]], object]
    style: str = ""


def papers(title: str, key: str) -> Column:
    """A figure of the paper, in percent."""
    return Column(f"paper\n{title}", lambda row: as_percent(row["paper"][key]))


def ours(title: str, key: str, style: str = "", *, percent: bool = True) -> Column:
    """A figure of ours with its spread over seeds."""
    return Column(title, lambda row: spread(row[key], row[f"{key}_std"], percent=percent), style)


def by_recipe(title: str, key: str, otherwise: Callable[[Mapping[str, Any]], str] = lambda row: "") -> Column:
    """The name of a recipe; where a row has none, something else."""
    return Column(title, lambda row: Markup("<code>{}</code>").format(row[key]) if row[key] else otherwise(row), "left")


SEEDS = Column("seeds", lambda row: row["num_seeds"] or "")


def page(template: str, answer: Mapping[str, Any], sections: Sequence[Mapping[str, Any]]) -> str:
    """One self-contained HTML page about a table's figures, as ``ssan.reproduce.table.write`` collects them.

    :param template: one that extends ``table_page.html.j2``.
    :param sections: the figures on each set of data, with what ``TableRequest.section`` gives.
    """
    drawn = []
    for section in sections:
        every = {title: [curve for curve in curves if curve] for title, curves in section["curves"].items()}
        curves = {title: found for title, found in every.items() if found}
        plot = seeds_plot(curves, f"{section['watched']} by epoch") if curves else None
        rows = [{**row, "cells": [column.show(row) for column in section["columns"]]} for row in section["rows"]]
        drawn.append({**section, "rows": rows, "plot": plot})
    notes = [{"title": row["title"], "note": row["note"]} for row in sections[0]["rows"] if row["note"]]
    return render_page(template, table=answer, sections=drawn, notes=notes)
