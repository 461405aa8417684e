"""The page of a table: ours beside the paper's, with protocol, spread, cost and curves; blank where it was not run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssan.report.html import render_page
from ssan.report.plots import seeds_plot
from ssan.reproduce.results import agreed, as_percent


def page(
    answer: Mapping[str, Any], curves: Mapping[str, Mapping[str, Sequence[Mapping[int, float]]]], out: Path
) -> str:
    """One self-contained HTML page about a table's figures, as ``ssan.reproduce.table.write`` collects them."""
    sets = []
    for data in answer["data"]:
        drawn = {title: lines for title, lines in curves[data["name"]].items() if lines}
        rows = [_cells(row, out) for row in data["rows"]]
        seeds = [figures for row in data["rows"] for figures in row["seeds"]]
        sets.append(
            {
                **data,
                "rows": rows,
                "plot": seeds_plot(drawn, "validation top-1 by epoch") if drawn else None,
                "protocol": agreed([_without_split(figures["protocol"]) for figures in seeds if "run" in figures]),
                "has_pairs": any(row.get("pair_top1") is not None for row in data["rows"]),
                "num_done": len(seeds),
                "num_missing": max((figures.get("num_missing", 0) for figures in seeds), default=0),
                "num_failed": max((figures.get("num_failed", 0) for figures in seeds), default=0),
            }
        )
    notes = [{"title": row["title"], "note": row["note"]} for row in answer["data"][0]["rows"] if row["note"]]
    return render_page("table.html.j2", table=answer, sets=sets, notes=notes)


def _without_split(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key not in ("split", "num_frames", "members")}


def _cells(row: Mapping[str, Any], out: Path) -> dict[str, Any]:
    seeds = row["seeds"]
    costs = [figures for figures in seeds if "run" in figures]
    params, macs = (agreed([figures[key] for figures in costs]) for key in ("params", "macs"))
    hours = [figures["train_seconds"] * figures["processes"] / 3600 for figures in costs]
    return {
        **row,
        "paper_top1": as_percent(row["paper"]["top1"]),
        "paper_top5": as_percent(row["paper"]["top5"]),
        **{
            key: spread(row[key], row[f"{key}_std"])
            for key in ("top1", "top5", "pair_top1", "within_pair_top1", "reversed_top1", "shuffled_top1")
        },
        "num": row["num_seeds"] or "",
        "params": f"{params / 1e6:.2f}" if params else "",
        "macs": f"{macs / 1e9:.1f}" if macs and macs >= 5e8 else f"{macs / 1e9:.3f}" if macs else "",
        "hours": f"{sum(hours) / len(hours):.2f}" if hours else "",
        "links": [(figures["seed"], os.path.relpath(_best_link(Path(figures["run"])), out)) for figures in costs],
    }


def _best_link(run: Path) -> Path:
    report = run / "report.html"
    return report if report.exists() else run / "journal.jsonl"


def spread(mean: float | None, std: float | None) -> str:
    """A mean over seeds in percent, with its standard deviation where there are several; blank where it was not run."""
    text = as_percent(mean)
    return text if std is None or not text else f"{text} ± {as_percent(std)}"
