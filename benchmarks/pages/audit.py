"""How many exchanged labels `ssan data audit` finds: 10 % of Weizmann's labels exchanged at random, persons as groups.

    python -m benchmarks.pages.audit --data ../shared/data/dataset/weizmann --work runs/audit \
        --init ../shared/data/weights/mobilenet_v2_imagenet_dequantized_torchvision.pth --seeds 10
    python -m benchmarks.pages.audit

The first writes benchmarks/results/audit.json and, from it, what stands between the two marks in docs/audit.md; the
second, which has no data, the page alone. For each seed a tenth of the labels (rounded) are exchanged, each for another
class drawn evenly, and the clips are ranked as the command ranks them. Of as many clips from the top as a tenth of all:
how many are among the exchanged (precision), and how many of the exchanged are among them (recall). Once with the clips
for training alone (all persons but daria, ido and moshe), once with all. The features are those of an ImageNet
MobileNetV2, computed once. Chance is a precision and recall of a tenth.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.tables import ROOT, between_marks, heading, line
from benchmarks.timing import RESULTS
from ssan.datasets.audit import write_list
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.source import DataSource
from ssan.files import write_json, writing
from ssan.probe.label_audit import audit_labels
from ssan.probe.probe import labeller_of_weights
from ssan.weights.labeller import Labeller

OUT = RESULTS / "audit.json"
PAGE = ROOT / "docs" / "audit.md"
PERSON = "^([a-z]+)_"
HELD_OUT = f"{PERSON}=daria,ido,moshe"
SHARE = 0.1


def exchanged(samples: Samples, seed: int) -> tuple[list[Sample], set[str]]:
    """The samples with a tenth of their labels exchanged, and the ids of those."""
    rng = np.random.default_rng([seed, len(samples)])
    chosen = rng.choice(len(samples), round(SHARE * len(samples)), replace=False)
    changed = list(samples)
    for place in chosen:
        others = [label for label in samples.classes if label != samples[place].label]
        changed[place] = replace(samples[place], label=str(rng.choice(others)))
    return changed, {samples[place].id for place in chosen}


def measure(labeller: Labeller, samples: Samples, data: str, work: Path, seed: int) -> dict[str, Any]:
    """Precision and recall of the top of the list with one draw of exchanged labels."""
    changed, wrong = exchanged(samples, seed)
    table = work / "exchanged.csv"
    write_list(table, changed, data)
    source = DataSource(data, "csv", {"annotations": str(table), "groups": PERSON})
    answer = audit_labels(labeller, source, work / "features", quiet=True).as_dict()
    num = round(SHARE * len(samples))
    ranked = [suspect["id"] for suspect in answer["suspects"]]
    found = len(wrong & set(ranked[:num]))
    confident = [suspect["id"] for suspect in answer["suspects"] if suspect["confident"]]
    return {
        "seed": seed,
        "num_clips": len(samples),
        "num_exchanged": len(wrong),
        "num_of_list": num,
        "precision": found / num,
        "recall": found / len(wrong),
        "num_suspects": len(ranked),
        "recall_of_all_suspects": len(wrong & set(ranked)) / len(wrong),
        "num_confident": len(confident),
        "precision_of_confident": len(wrong & set(confident)) / max(1, len(confident)),
        "recall_of_confident": len(wrong & set(confident)) / len(wrong),
        "agreement": answer["agreement"],
        "heads_seconds": answer["seconds"]["heads"],
    }


def table(content: Mapping[str, Any] | None) -> str:
    """How many of the exchanged labels stand on top of the list; blank where that was not run."""
    lines = heading(
        "Weizmann's clips", "draws", "labels exchanged in each", "of as many on top of the list are exchanged",
        "of the exchanged are in doubt", "labels that heads agree with",
    )  # fmt: skip
    rows = content["rows"] if content else []
    for clips, title in (("all", "all"), ("train", "those for training")):
        own = [row for row in rows if row["clips"] == clips]
        if not own:
            lines.append(line(title, *[""] * 5))
            continue
        shares = [[row[key] for row in own] for key in ("precision", "recall_of_all_suspects", "agreement")]
        cells = [f"{np.mean(each):.0%} ({min(each):.0%} to {max(each):.0%})" for each in shares]
        lines.append(line(f"{title}, {own[0]['num_clips']}", len(own), own[0]["num_exchanged"], *cells))
    if content is not None:
        lines += ["", f"Features of `{content['model']}` with ImageNet's weights; persons as groups."]
    return "\n".join(lines)


def page(text: str, results: Path = OUT) -> str:
    """docs/audit.md with the table of the results in it."""
    content = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
    return between_marks(text, "audit", table(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of Weizmann; without it nothing is measured")
    parser.add_argument("--init", help="ImageNet's weights")
    parser.add_argument("--model", default="tsn_mobilenet_v2")
    parser.add_argument("--work", type=Path, default=Path("runs/audit"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.data is not None:
        if arguments.init is None:
            parser.error("--data needs --init, the weights")
        write_results(arguments)
    text = page(PAGE.read_text(encoding="utf-8"))
    with writing(PAGE) as handle:
        handle.write(text)


def write_results(arguments: argparse.Namespace) -> None:
    arguments.work.mkdir(parents=True, exist_ok=True)
    labeller = labeller_of_weights(arguments.model, arguments.init)
    source = DataSource(arguments.data, "folder", {"val_groups": HELD_OUT})
    rows = []
    for name in ("train", "all"):
        samples = source.read(name)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            rows.append({"clips": name, **measure(labeller, samples, arguments.data, arguments.work, seed)})
            print(rows[-1], flush=True)
    means = {
        name: {
            key: round(float(np.mean([row[key] for row in rows if row["clips"] == name])), 4)
            for key in rows[0]
            if key not in ("clips", "seed")
        }
        for name in ("train", "all")
    }
    write_json(
        arguments.out,
        {"data": Path(arguments.data).name, "model": arguments.model, "weights": Path(arguments.init).name,
         "frozen_hash": labeller.hash, "groups": PERSON, "means": means, "rows": rows},
    )  # fmt: skip


if __name__ == "__main__":
    main()
