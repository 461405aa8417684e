"""The README's first screen: its picture, its table and what its lines of Python print, from what `make demo` left.

make demo && .venv/bin/python -m benchmarks.pages.first_look
"""

import io
import re
from contextlib import chdir, redirect_stdout
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.pages.tables import README, ROOT, between_marks
from ssan.datasets import read
from ssan.files import read_json, replacing, writing
from ssan.models.attended import attended
from ssan.recognition.predict import predict
from ssan.report.overlay import moving_positions, overlay
from ssan.weights.classifier_file import load_labeller

DEMO = ROOT / "demo-out"
NUM_LINES = 3
TITLES = {"tsn_tiny": "TSN: frames one by one", "ssan_tiny": "SSAN: attention within frames, then over them"}


def table(results: dict) -> str:
    lines = [
        f"On {results['num_test']} test videos that a run of it kept apart (`demo-out/results.json`):",
        "",
        "| | top-1 | right pair | right direction within it | frames reversed |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["models"].items():
        within = "" if row["within_pair_top1"] is None else f"{row['within_pair_top1']:.3f}"
        lines.append(
            f"| {TITLES[name]} | {row['top1']:.3f} | {row['pair_top1']:.3f} | {within} | {row['reversed_top1']:.3f} |"
        )
    return "\n".join(lines)


def picture(demo: Path, path: Path) -> None:
    """One unseen clip: its frames, where the last block attends from the moving thing, and what both networks say."""
    labellers = {name: load_labeller(demo / name) for name in TITLES}
    ssan = labellers["ssan_tiny"]
    sample = next(s for s in sorted(read("sthv2", demo / "unseen", "all"), key=lambda s: s.id) if s.label_index == 0)
    views, _ = ssan.preprocess.test_views(sample.path)
    queries = moving_positions(views[0])
    *_, last = attended(ssan.model, views[0], queries)
    assert last.positions is not None
    rows: list[Tensor] = [views[0], overlay(views[0], last.positions, queries)]
    figure = Figure(figsize=(9.6, 3.3))
    for number, frames in enumerate(rows):
        for index, frame in enumerate(frames):
            axes = figure.add_axes((index / 8 + 0.002, 0.63 - 0.36 * number, 0.121, 0.35))
            axes.imshow(frame.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
    said = {name: predict(labeller, sample.path, top=1)["top"][0] for name, labeller in labellers.items()}
    figure.text(0.004, 0.155, f"truth: {sample.label}", fontsize=9.5)
    for index, (name, best) in enumerate(reversed(said.items())):
        right = best["label"] == sample.label
        figure.text(
            0.004 + 0.5 * index, 0.03, f"{name}: {best['label']} ({best['score']:.2f})", fontsize=9,
            color="#1b7a3d" if right else "#b3261e", weight="bold",
        )  # fmt: skip
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def printed(readme: str) -> str:
    """The first lines of what the README's Python prints, run where it is meant to be, in the checkout."""
    found = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert found is not None
    with redirect_stdout(io.StringIO()) as out, chdir(ROOT):
        exec(compile(found[1], "README.md", "exec"), {})
    lines = out.getvalue().splitlines()
    return "\n".join(["```text", *lines[:NUM_LINES], *["..."] * (len(lines) > NUM_LINES), "```"])


def main() -> None:
    readme = README.read_text(encoding="utf-8")
    readme = between_marks(readme, "demo", table(read_json(DEMO / "results.json")))
    readme = between_marks(readme, "python", printed(readme))
    with writing(README) as handle:
        handle.write(readme)
    picture(DEMO, ROOT / "docs" / "first-look.png")


if __name__ == "__main__":
    main()
