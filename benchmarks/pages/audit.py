"""How many exchanged labels `ssan data audit` finds: 10 % of Weizmann's labels exchanged at random, persons as groups.

    python -m benchmarks.pages.audit --data ../shared/data/dataset/weizmann --work runs/audit \
        --init ../shared/data/weights/mobilenet_v2_imagenet_dequantized_torchvision.pth --seeds 10

Writes benchmarks/results/audit.json. For each seed a tenth of the labels (rounded) are exchanged, each for another
class drawn evenly, and the clips are ranked as the command ranks them. Of as many clips from the top as a tenth of all:
how many are among the exchanged (precision), and how many of the exchanged are among them (recall). Once with the clips
for training alone (all persons but daria, ido and moshe), once with all. The features are those of an ImageNet
MobileNetV2, computed once. Chance is a precision and recall of a tenth.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import RESULTS
from ssan.datasets.audit import write_list
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.source import DataSource
from ssan.files import write_json
from ssan.probe.label_audit import audit_labels
from ssan.probe.probe import labeller_of_weights
from ssan.weights.labeller import Labeller

OUT = RESULTS / "audit.json"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--init", required=True)
    parser.add_argument("--model", default="tsn_mobilenet_v2")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
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
