"""docs/retrieval.md: its head, what came of the small version of table 7, and what was measured beside others' code.

    python -m benchmarks.pages.retrieval --work runs/evidence          trains what is lacking, three seeds
    python -m benchmarks.pages.retrieval --work runs/evidence --page   the page alone, of what was run

Classifiers that `benchmarks.pages.evidence` has trained in the same folder are not trained again. The figures go to
benchmarks/results/retrieval.json, and from there to the page, with those of howto100m.py, retrieval_training.py and
score_matrix.py; nothing is typed, and what was not run is blank.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import heading, line
from benchmarks.timing import RESULTS
from ssan.files import read_json, write_json, writing
from ssan.processes import num_cores
from ssan.reproduce.joint_tables import JOINT_TABLES
from ssan.reproduce.results import difference
from ssan.reproduce.retrieval import RetrievalRequest, small_captions
from ssan.reproduce.runs import Execution
from ssan.reproduce.table import collect, reproduce_table

ROOT = Path(__file__).parents[2]
HEAD, PAGE = ROOT / "docs" / "retrieval.head.md", ROOT / "docs" / "retrieval.md"
ROWS = ["ssa", "tsn"]


def results(name: str) -> Any:
    """A file of results; None where there is none."""
    path = RESULTS / f"{name}.json"
    return read_json(path) if path.exists() else None


def asked(work: Path, seeds: int) -> RetrievalRequest:
    table = JOINT_TABLES["table7"]
    execution = Execution(jobs=num_cores(), device="cpu", workers=0, threads=1)
    return RetrievalRequest(
        table, table.chosen(ROWS), [small_captions(work)], work, seeds, mini="tiny", execution=execution
    )


def figures(order: RetrievalRequest) -> dict[str, Any]:
    """The rows that are trained here, without the paths of this machine, and how far SSA is from TSN."""
    rows = [row for row in collect(order, order.data[0])["rows"] if row["row"] in ROWS]
    seeds = {row["row"]: row["seeds"] for row in rows}
    found = {
        "rows": rows,
        "differences": {key: difference(seeds["ssa"], seeds["tsn"], key) for key in order.measures},
    }
    for row in rows:
        for of_seed in row["seeds"]:
            of_seed.pop("run", None)
            of_seed.pop("curve", None)
    return found


def share(value: float | None, std: float | None = None, *, digits: int = 3) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" if std is None else f"{value:.{digits}f} ± {std:.{digits}f}"


def small_table(content: Mapping[str, Any] | None) -> list[str]:
    titles = {
        "r1": "R@1", "r5": "R@5", "r10": "R@10", "median_rank": "median rank", "back_r1": "video to text R@1",
        "direction": "direction told apart", "object": "object told apart",
    }  # fmt: skip
    lines = heading("features", "seeds", *titles.values())
    rows = {row["row"]: row for row in (content or {}).get("rows", [])}
    for name, title in (("tsn", "TSN"), ("ssa", "SSA")):
        row = rows.get(name, {})
        cells = [share(row.get(key), row.get(f"{key}_std"), digits=1 if "rank" in key else 3) for key in titles]
        lines.append(line(title, row.get("num_seeds") or "", *cells))
    queries = [of_seed["num_queries"] for row in rows.values() for of_seed in row["seeds"]]
    lines += [
        "",
        f"Means over seeds and standard deviations between them (n - 1). {queries[0] if queries else ''} captions, as "
        "many candidates; guessing tells apart a half.",
    ]
    apart = (content or {}).get("differences", {})
    told = [
        f"{title} {found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
        for key, title in titles.items()
        if key != "median_rank" and (found := apart.get(key, {})).get("low") is not None
    ]
    if told:
        lines += ["", f"SSA less TSN, paired by seed, with the 95 % interval (Student's t): {'; '.join(told)}."]
    return lines


def beside_others() -> list[str]:
    parity, network, training, matrix = map(
        results, ("howto100m", "howto100m_network", "retrieval_training", "score_matrix")
    )
    lines = ["## Beside the code of reference 22", ""]
    for loss, title in (
        ("max_margin", "max-margin, reference 22's own code"),
        ("mil_nce", "MIL-NCE, its authors' code"),
    ):
        rows = [row for row in (parity or {}).get("losses", []) if row["loss"] == loss]
        if rows:
            value, slope = (max(row[key] for row in rows) for key in ("difference", "slope_difference"))
            lines.append(
                f"- Loss: {title}, {len(rows)} sizes of batch: value {value:.1e} apart at most, slope {slope:.1e}."
            )
    if network:
        lines.append(
            f"- Network with their weights: similarities {network['similarities']:.1e} apart, relative, gradients "
            f"{network['gradients']:.1e}."
        )
    metrics = (parity or {}).get("metrics", [])
    equal = sum(row["equal"] for row in metrics)
    if metrics:
        lines.append(f"- Recalls and median ranks: equal to their `compute_metrics` on {equal} matrices without ties.")
    for row in metrics:
        if not row["equal"]:
            ours = row["ours"] if isinstance(row["ours"], str) else f"R@1 {row['ours']['R1']:.2f}"
            lines.append(f"- On {row['matrix']}: theirs R@1 {row['theirs']['R1']:.2f}; ours: {ours}.")
    lines += [
        "",
        "Training, pairs a second over theirs: their loader, network, loss and optimizer, the same random features and",
        "captions, `maxpool` text tower, a step each in turn.",
        "",
        *heading("setting", "width", "batch", "pairs a second", "of processor time", "MB, ours", "MB, theirs"),
    ]
    for row in (training or {}).get("rows", []):
        cells = (f"{row['pairs_a_second_over_theirs']:.2f}", f"{row['of_processor_seconds']:.2f}")
        lines.append(line(row["setting"], row["dim"], row["batch"], *cells, row["mb"]["ours"], row["mb"]["theirs"]))
    lines += [
        "",
        "`ssan retrieval eval --scores`: both directions, ties, and intervals from 1,000 draws.",
        "",
        *heading("matrix", "numbers", "order", "processor seconds", "seconds", "MB beside the mapped file"),
    ]
    for row in (matrix or {}).get("rows", []):
        size = f"{row['num']:,} x {row['num']:,}"
        lines.append(line(size, row["dtype"], row["order"], row["seconds"], row["wall_seconds"], row["peak_mb"]))
    return lines


def page() -> str:
    content = results("retrieval")
    return (
        "\n".join([HEAD.read_text(encoding="utf-8").rstrip(), "", *small_table(content), "", *beside_others()]) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    order = asked(arguments.work, arguments.seeds)
    if not arguments.page:
        for error in reproduce_table(order)["failed"]:
            print(f"failed: {error['path']}: {error['message']}", file=sys.stderr)
    found = figures(order)
    if any(row["seeds"] for row in found["rows"]):
        write_json(RESULTS / "retrieval.json", found)
    with writing(PAGE) as handle:
        handle.write(page())


if __name__ == "__main__":
    main()
