"""The picture and the table on the README's first screen, made from what `make demo` left.

make demo && .venv/bin/python -m benchmarks.pages.first_look demo-out
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from ssan.datasets import read
from ssan.files import read_json, replacing, writing
from ssan.models.attended import attended
from ssan.recognition.predict import predict
from ssan.report.overlay import moving_places, overlay
from ssan.weights.classifier_file import load_labeller

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"
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
    places = moving_places(views[0])
    *_, last = attended(ssan.model, views[0], places)
    assert last.positions is not None
    rows: list[Tensor] = [views[0], overlay(views[0], last.positions, places)]
    figure = Figure(figsize=(9.6, 3.3))
    for number, frames in enumerate(rows):
        for place, frame in enumerate(frames):
            axes = figure.add_axes((place / 8 + 0.002, 0.63 - 0.36 * number, 0.121, 0.35))
            axes.imshow(frame.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
    said = {name: predict(labeller, sample.path, top=1)["top"][0] for name, labeller in labellers.items()}
    figure.text(0.004, 0.155, f"truth: {sample.label}", fontsize=9.5)
    for place, (name, best) in enumerate(reversed(said.items())):
        right = best["label"] == sample.label
        figure.text(
            0.004 + 0.5 * place, 0.03, f"{name}: {best['label']} ({best['score']:.2f})", fontsize=9,
            color="#1b7a3d" if right else "#b3261e", weight="bold",
        )  # fmt: skip
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    with writing(readme) as handle:
        handle.write(f"{before}{BEGIN}\n{table(read_json(demo / 'results.json'))}\n{END}{after}")
    picture(demo, ROOT / "docs" / "first-look.png")


if __name__ == "__main__":
    main()
