"""What fine-tuning and a frozen network give on small sets, and whether the layer between frames takes part.

    python -m benchmarks.pages.small_sets --shared ../shared/data --work runs/small_sets [--only order,ceiling_video]
    python -m benchmarks.pages.small_sets --collect --work runs/small_sets

Trains what is not done yet, each run in a folder of its own with its answer beside it, so that the same command goes on
after an interruption and several may share the work by ``--only``. ``--collect`` writes
benchmarks/results/small_sets.json and docs/small-sets.md from the answers; what was not run is blank.

The sets, and what is held out of each:

``order``          rendered videos of twelve classes, drawn by the seed: 60 to learn from, 32 to choose by, 64 held out;
``ceiling_video``  parts of ``ceiling_room`` that go down or up: a third of the videos is held out, another each seed;
``ceiling_layout`` the same parts: layout 01 to learn from, layout 02 held out;
``weizmann``       ten actions; the persons daria, ido and moshe are held out.

Rendered videos are seen at 64 px, as they are, in place of the recipes' 112.

Of the rest, two videos (of Weizmann a person) are for validation, by which the epoch is chosen. The recipes were chosen
on ``order`` with seeds from 100 on, which are not among those that are reported. ``before`` is the recipe as it was
when its layer started as the identity and stayed it.

A probe leaves one person of Weizmann out at a time, and is what ``ssan probe`` prints.
"""

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.pages.tables import heading, line, number
from benchmarks.timing import RESULTS, machine
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.source import DataSource, read
from ssan.datasets.tables import table_with_header
from ssan.files import read_json, write_json, writing
from ssan.recipe import Recipe, make_recipe, read_recipe
from ssan.recognition.evaluate import reversal
from ssan.recognition.train import train
from ssan.shipped import shipped
from ssan.synthetic.dataset import render
from ssan.weights.classifier_file import load_labeller

OUT = RESULTS / "small_sets.json"
PAGE = Path(__file__).parents[2] / "docs" / "small-sets.md"
MOBILENET = "weights/mobilenet_v2_imagenet_dequantized_torchvision.pth"
SEEDS = (0, 1, 2)
CHOSEN_FROM = 100
# The recipe finetune/ssan_mobilenet_v2 as it was: what the layer between frames does not have to begin with.
BEFORE: dict[str, Any] = {
    "layer": {"identity_start": True}, "freeze_bn": True, "new_norm_lr_scale": 1.0, "new_norm_weight_decay": None,
    "epochs": 12, "backbone_lr_scale": 0.02, "lr": 0.005, "frozen_epochs": 0,
}  # fmt: skip
TITLES = {
    "order": "`order`, 60 rendered videos of 12 classes",
    "ceiling_video": "`ceiling_room`, down or up, other videos",
    "ceiling_layout": "`ceiling_room`, down or up, the other layout",
    "weizmann": "Weizmann, ten actions, other persons",
}
PROBED = {
    "mobilenet_v2": "MobileNetV2 of ImageNet", "efficientnet_lite0": "EfficientNet-Lite0 of ImageNet",
    "i3d": "I3D of ImageNet and Kinetics-400",
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """Three lists of a set."""

    train: Samples
    val: Samples
    test: Samples


def order(shared: Path, work: Path, seed: int) -> Parts:
    root = work / "sets" / f"order_{seed}"
    render(str(root), "order", 156, seed, splits=(60, 32, 64))
    source = DataSource(str(root))
    return Parts(source.read("train"), source.read("val"), source.read("test"))


def _parts_of_the_room(shared: Path) -> tuple[list[Sample], dict[str, str]]:
    """The parts that go down or up, and the layout of each video."""
    root = shared / "dataset" / "ceiling_room"
    samples, layouts = [], {}
    for number_of_row, row in table_with_header(str(root / "segments.csv"), ["video", "direction"]):
        if not row["direction"]:
            continue
        layouts[row["video"]] = row["layout"]
        samples.append(
            Sample(
                id=f"{row['video']}#{number_of_row}", path=str(root / "videos" / row["video"]), label=row["direction"],
                label_index=("down", "up").index(row["direction"]), start_seconds=float(row["start_seconds"]),
                end_seconds=float(row["end_seconds"]), video=row["video"],
            )
        )  # fmt: skip
    return samples, layouts


def _dealt(samples: Sequence[Sample], held_out: Sequence[str], watched: Sequence[str], source: str) -> Parts:
    """Deal samples by what ``video`` says of each."""
    classes = sorted({sample.label or "" for sample in samples})

    def those(keep: Any) -> Samples:
        return Samples([sample for sample in samples if keep(sample.video)], classes, source)

    return Parts(
        those(lambda name: name not in held_out and name not in watched),
        those(lambda name: name in watched),
        those(lambda name: name in held_out),
    )


def ceiling_video(shared: Path, work: Path, seed: int) -> Parts:
    samples, layouts = _parts_of_the_room(shared)
    videos = sorted(layouts)
    held_out = videos[seed % 3 :: 3]
    rest = [name for name in videos if name not in held_out]
    return _dealt(samples, held_out, [rest[seed % 3], rest[-1 - seed % 3]], str(shared))


def ceiling_layout(shared: Path, work: Path, seed: int) -> Parts:
    samples, layouts = _parts_of_the_room(shared)
    first = sorted(name for name in layouts if layouts[name] == "01")
    held_out = [name for name in layouts if layouts[name] == "02"]
    return _dealt(samples, held_out, [first[seed % 3], first[-1 - seed % 3]], str(shared))


def weizmann(shared: Path, work: Path, seed: int) -> Parts:
    whole = read("folder", str(shared / "dataset" / "weizmann"), "all")
    persons = [replace(sample, video=Path(sample.path).name.split("_")[0]) for sample in whole]
    names = sorted({sample.video or "" for sample in persons} - {"daria", "ido", "moshe"})
    return _dealt(persons, ["daria", "ido", "moshe"], [names[seed % 3]], str(shared))


SETS = {"order": order, "ceiling_video": ceiling_video, "ceiling_layout": ceiling_layout, "weizmann": weizmann}


def recipes(shared: Path) -> dict[str, Recipe]:
    """What is compared, by a name for each."""

    def of(name: str, **changes: Any) -> Recipe:
        return make_recipe({**read_recipe(shipped()[f"finetune/{name}"]).model_dump(), **changes})

    found = {
        "ssan_mobilenet_v2": of("ssan_mobilenet_v2", init=str(shared / MOBILENET)),
        "before": of("ssan_mobilenet_v2", init=str(shared / MOBILENET), **BEFORE),
        "tsn_mobilenet_v2": of("tsn_mobilenet_v2", init=str(shared / MOBILENET)),
    }
    for family in ("ssan", "tsm", "tsn"):
        found[f"{family}_efficientnet_lite0"] = of(f"{family}_efficientnet_lite0")
    return found


WANTED = [
    *((name, "before") for name in ("order", "ceiling_video", "ceiling_layout")),
    *((name, "ssan_mobilenet_v2") for name in ("order", "ceiling_video", "ceiling_layout")),
    *((name, "tsn_mobilenet_v2") for name in ("order", "ceiling_video")),
    *((name, f"{family}_efficientnet_lite0") for name in ("order", "weizmann") for family in ("ssan", "tsm", "tsn")),
]  # fmt: skip


def run(name: str, recipe_name: str, seed: int, shared: Path, work: Path) -> None:
    """Train and test once, where that is not done yet."""
    out = work / f"{name}-{recipe_name}-{seed}"
    if (out / "answer.json").is_file():
        return
    shutil.rmtree(out, ignore_errors=True)
    parts = SETS[name](shared, work, seed)
    recipe = recipes(shared)[recipe_name]
    small = {"size_px": 64, "crop_px": 64} if name == "order" else {}
    recipe = make_recipe({**recipe.model_dump(), **small, "seed": seed})
    began = time.process_time()
    answer = train(recipe, (parts.train, parts.val), out, quiet=True)
    seconds = time.process_time() - began
    looked = reversal(load_labeller(out / "model.safetensors"), parts.test, most=len(parts.test), quiet=True)
    assert looked is not None
    row = {
        "set": name, "recipe": recipe_name, "seed": seed, "num_train": len(parts.train), "num_val": len(parts.val),
        "num_test": looked.num, "num_classes": len(parts.train.classes), "epochs": recipe.epochs,
        "best_epoch": answer["best_epoch"], "top1": looked.top1, "reversed_top1": looked.reversed_top1,
        "changed": 1 - looked.same_prediction, "processor_seconds": round(seconds, 1),
    }  # fmt: skip
    write_json(out / "answer.json", row)
    print(row, flush=True)


def collect(work: Path) -> dict[str, Any]:
    rows = [read_json(path) for path in sorted(work.glob("*/answer.json"))]
    probes = {name: read_json(path) for name in PROBED if (path := work / f"probe-{name}.json").is_file()}
    return {"machine": machine(), "rows": rows, "probes": probes}


def page(content: Mapping[str, Any]) -> str:
    lines = [
        "# What small sets give",
        "",
        "Made by `python -m benchmarks.pages.small_sets --collect` from benchmarks/results/small_sets.json; what was",
        "not run is blank. How the sets are split stands at the head of the script. The share that changes is that of",
        "held-out videos with another answer when their frames are reversed: a network of single frames has none.",
        "Each figure is the mean of the seeds, then the seeds. Frames have 112 px, those of `order` 64.",
        "",
        *heading(
            "set, held out", "recipe", "train / test", "top-1", "top-1, reversed", "share that changes", "CPU seconds"
        ),
    ]
    for name, recipe in WANTED:
        rows = [row for row in content["rows"] if (row["set"], row["recipe"]) == (name, recipe)]
        title = "finetune/ssan_mobilenet_v2 as it was" if recipe == "before" else f"finetune/{recipe}"
        sizes = f"{rows[0]['num_train']} / {rows[0]['num_test']}" if rows else ""
        if len({(row["num_train"], row["num_test"]) for row in rows}) > 1:
            sizes = "by seed"
        cells = [_seeds([row[key] for row in rows]) for key in ("top1", "reversed_top1", "changed")]
        seconds = f"{mean(row['processor_seconds'] for row in rows):.0f}" if rows else ""
        lines.append(line(TITLES[name], f"`{title}`" if recipe != "before" else title, sizes, *cells, seconds))
    lines += [
        "",
        "A frozen network with a linear head (`ssan probe`), each of Weizmann's nine persons left out in turn; the",
        "interval resamples persons:",
        "",
        *heading("features", "top-1", "95 %", "seconds for features", "seconds for heads"),
    ]
    for name, title in PROBED.items():
        answer = content["probes"].get(name)
        if answer is None:
            lines.append(line(title, "", "", "", ""))
            continue
        low, high = answer["interval95"]
        took = answer["seconds"]
        lines.append(
            line(
                title,
                number(answer["top1"]),
                f"{low:.2f} to {high:.2f}",
                f"{took['features']:.0f}",
                f"{took['head']:.0f}",
            )
        )
    lines += ["", f"Measured on {content['machine'].get('cpu') or content['machine'].get('processor')}.", ""]
    return "\n".join(lines)


def _seeds(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="Sets, or SET:RECIPE, with commas between.")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--collect", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if arguments.collect:
        content = collect(arguments.work)
        write_json(OUT, content)
        with writing(PAGE) as handle:
            handle.write(page(content))
        return
    asked = [word for word in arguments.only.split(",") if word]
    for seed in map(int, arguments.seeds.split(",")):
        for name, recipe in WANTED:
            if not asked or name in asked or f"{name}:{recipe}" in asked:
                run(name, recipe, seed, arguments.shared, arguments.work)


if __name__ == "__main__":
    main()
