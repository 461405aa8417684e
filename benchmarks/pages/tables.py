"""docs/measured.md and the README's four headline rows, from the JSON files in benchmarks/results/.

    python -m benchmarks.pages.tables

Writes the page, and what stands between the two marks in README.md; what was not run is blank. One function a file of
results; each takes its content or None.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "measured.md"
HEAD = """# Measured

Made by `python -m benchmarks.pages.tables` from the files in [benchmarks/results](../benchmarks/results), which the
other scripts of [benchmarks](../benchmarks) write. A cell is blank where that was not run.
"""
Content = dict[str, Any] | None

READERS = ["ssan", "ssan, decoder in this process", "PyAV in sequence", "decord", "opencv", "torchcodec"]
LOADERS = ["ssan", "PyAV in sequence", "decord", "torchcodec", "TSM"]
SHAPES = ["Res2", "Res3", "Res3, first block"]
MODELS = ["tsn_r50", "tsm_r50", "ssan_r50", "tsn_tiny", "tsm_tiny", "ssan_tiny"]
PEERS = [
    ("tsn_r50", "ssan"), ("tsm_r50", "ssan"), ("ssan_r50", "ssan"), ("TSM, ResNet-50", "its own"),
    ("TSM, ResNet-50, channels last", "its own"), ("S3D", "torchvision"), ("R3D-18", "torchvision"),
    ("R(2+1)D-18", "torchvision"), ("MViTv2-S", "torchvision"), ("Swin3D-T", "torchvision"),
    ("VideoMAE-B", "transformers"), ("TimeSformer-B", "transformers"),
]  # fmt: skip
VARIANTS = {"bare": "as it is", "ssa": "SSA attached before `layer[12].*.conv2`"}
SHARES = ["top1", "pair_top1", "within_pair_top1", "reversed_top1"]
COMMANDS = ["python -c pass", "import torch", "ssan --help", "ssan predict"]


def line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def heading(*cells: str) -> list[str]:
    return [line(*cells), line(*["---"] * len(cells)).replace(" ", "")]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def processor(content: Content) -> str:
    """The machine of a file of results, as a sentence; the keys of its writers differ."""
    about = (content or {}).get("machine") or {}
    name, torch = about.get("cpu") or about.get("processor"), about.get("torch")
    return "" if not name else f"Measured on {name}, one thread{f', torch {torch}' if torch else ''}."


def decode(content: Content) -> list[str]:
    rows = (content or {}).get("rows", [])
    lines = [
        "**Decoding** eight frames of a clip, each reader in a process of its own, over the time of PyAV in sequence",
        "in the same round: the median of the rounds; of a codec the median over its files (how many) and the range.",
        *filter(None, [processor(content)]),
        "",
        *heading("codec", *READERS),
    ]
    for codec in sorted({kind_of(row) for row in rows}) or ["h264", "mpeg4", "vp9"]:
        own = [row for row in rows if kind_of(row) == codec]
        files = len({row["file"] for row in own})
        cells = []
        for reader in READERS:
            ratios = [row["ratio_median"] for row in own if row["reader"] == reader and row["ratio_median"] is not None]
            spread = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 and min(ratios) != max(ratios) else ""
            cells.append(f"{median(ratios):.2f}{spread}" if ratios else "")
        lines.append(line(f"{codec} ({files})" if files else codec, *cells))
    peaks = []
    for reader in READERS:
        found = [row["peak_mb"] for row in rows if row["reader"] == reader and row.get("peak_mb") is not None]
        peaks.append(f"{max(found):.0f} MB" if found else "")
    large = [
        line(f"`{row['file']}`, {row['num_frames']:,} frames", f"{row['seconds']:.1f} s, {row['peak_mb']:.0f} MB")
        for row in (content or {}).get("large", [])
    ]
    lines += [line("most memory over the base, 1080p", *peaks)]
    if large:
        lines += ["", *heading("large files", "8 frames over the whole file"), *large]
    return lines


def kind_of(row: dict[str, Any]) -> str:
    """The codec, with what decides how much of a file can be left out."""
    pictures = " with B frames" if row.get("b_frames") and row["codec"] == "h264" else ""
    return row["codec"] + pictures + (" in avi" if row.get("container") == "avi" else "")


def loader(content: Content) -> list[str]:
    rows = (content or {}).get("rows", [])
    lines = [
        "**Loading** clips for training, workers and all: clips a second over those with PyAV in sequence (for JPEG",
        "frames TSM's dataset code), the median of the rounds; in brackets the same of the processor time for a clip.",
        f"The last column is what one worker and its decoder hold of their own. {processor(content)}".rstrip(),
        "",
        *heading("files", "workers", *LOADERS, "memory, ssan"),
    ]
    for kind, workers in dict.fromkeys((row["kind"], row["workers"]) for row in rows):
        own = {row["loader"]: row for row in rows if (row["kind"], row["workers"]) == (kind, workers)}
        cells = [
            f"{own[name]['ratio_median']:.2f} ({own[name]['work_median']:.2f})" if name in own else ""
            for name in LOADERS
        ]
        held = own.get("ssan", {}).get("megabytes_per_worker")
        memory = f"{held:.0f} MB" if held else ""
        lines.append(line(kind, workers, *cells, memory))
    return lines


def loader_speed(content: Content) -> list[str]:
    """The least and the most that our loader gains over the usual one, whatever the files and the workers."""
    ratios = [row["ratio_median"] for row in (content or {}).get("rows", []) if row["loader"] == "ssan"]
    text = f"{min(ratios):.2f} to {max(ratios):.2f} times, {median(ratios):.2f} in the median" if ratios else ""
    return [line("clips a second for training, over PyAV in sequence (of JPEG frames TSM's dataset code)", text)]


def exactness(content: Content) -> list[str]:
    text = (
        ""
        if content is None
        else f"{content['files']} files, {content['frames']:,} frames: {content['differences']} differ"
    )
    return [line("frames against a full decoding in sequence", text)]


def block(content: Content) -> list[str]:
    cpu, gpu = (content or {}).get("cpu"), (content or {}).get("gpu")
    lines = [
        "**The SSA block**: its time over that of its matrix products alone (the faster way to take them: 256 rows of",
        "a matrix of positions at a time), its time and its peak memory over those of the form written out with full",
        "matrices. Beside it the products with the exponential of each similarity, once forward and once backward,",
        f"over the form written out. {processor(cpu)}".rstrip(),
        "",
        *heading(
            "features", "forward / products", "forward / written out", "with backward / products",
            "with backward / written out", "products and exponentials / written out", "memory / written out",
        ),
    ]  # fmt: skip
    by_shape = {row["shape"]: row for row in (cpu or {}).get("rows", [])}
    for shape in SHAPES:
        row = by_shape.get(shape)
        if row is None:
            lines.append(line(shape, *[""] * 6))
            continue
        cells = [
            number(row[way][over]["ratio_min"])
            for way in ("forward", "forward_backward")
            for over in ("ours_over_products", "ours_over_naive")
        ]
        cells.append(number(row["forward_backward"].get("products_exponentials_over_naive", {}).get("ratio_min")))
        memory = row["forward_backward"]["extra_memory_mb"]
        share = memory["ours"] / memory["naive"] if memory["ours"] is not None else None
        lines.append(line(f"{shape}, {row['size']}", *cells, number(share)))
    for shape in SHAPES[:2]:
        found = [row for row in (gpu or {}).get("rows", []) if row["shape"] == shape and row["ours"]]
        shares = [row["ours"]["share_of_ceiling"] for row in found if row["pass"] == "forward_backward"]
        text = f"{min(shares):.2f}-{max(shares):.2f}" if shares else ""
        lines.append(line(f"{shape} on a GPU: share of the matrix units' speed, forward and backward", text, *[""] * 5))
    return lines


def step(content: Content) -> list[str]:
    cpu, gpu = (content or {}).get("cpu"), (content or {}).get("gpu")
    lines = [
        "**A training step and an inference** of 8 frames, in the time of TSN on the same backbone.",
        *filter(None, [processor(cpu)]),
        "",
        *heading("network", "training step", "inference", "training on a GPU, clips a second", "inference on a GPU"),
    ]

    def find(part: Content, model: str, work: str) -> dict[str, Any]:
        rows = (part or {}).get("rows", [])
        return next((row for row in rows if (row["model"], row["work"]) == (model, work)), {})

    for model in MODELS:
        ratios = [number(find(cpu, model, work).get("ratio_min")) for work in ("train", "infer")]
        speeds = [number(find(gpu, model, work).get("clips_a_second")) for work in ("train", "infer")]
        lines.append(line(f"`{model}`", *ratios, *speeds))
    return lines


def models(content: Content) -> list[str]:
    """Ours and other projects' networks; of ours also those that were measured and stand in no list here."""
    cpu = (content or {}).get("cpu") or {}
    rows = {row["name"]: row for row in cpu.get("rows", [])}
    listed = {name for name, _ in PEERS}
    more = [(name, row["code"]) for name, row in rows.items() if name not in listed]
    rounds = cpu.get("rounds")
    said = f" {rounds} round{'s' if rounds > 1 else ''}." if rounds else ""
    lines = [
        "**Networks of other projects**, one clip of so many frames at 224 px, in the time of our `tsn_r50`; random",
        f"weights, 174 classes. {processor(cpu)}{said}".rstrip(),
        "",
        *heading("network", "code", "frames", "parameters", "multiply-adds", "training step", "inference"),
    ]
    for name, code in [*PEERS, *more]:
        row = rows.get(name)
        title = f"`{name}`" if code == "ssan" else name
        if row is None:
            lines.append(line(title, code, *[""] * 5))
            continue
        sizes = row["num_frames"], f"{row['params'] / 1e6:.1f} M", f"{row['macs'] / 1e9:.1f} G"
        lines.append(line(title, code, *sizes, *(number(row[work]["ratio_min"]) for work in ("train", "infer"))))
    return lines


def attach(content: Content) -> list[str]:
    """A network from elsewhere with and without attached layers, as shares of the answers."""
    content = content or {}
    rows = {row["variant"]: row for row in content.get("runs", [])}
    about = ""
    if rows:
        run = next(iter(rows.values()))
        about = (
            f"{content['network']}, random weights: {run['epochs']} epochs on {run['num_train']} videos, "
            f"{run['num_test']} test videos, {content['classes']} classes, seed {content['seed']}."
        )
    lines = [
        "**A network from elsewhere**, bare and with a layer attached, on rendered videos of classes in pairs that",
        "differ by direction alone; shares of the test videos.",
        *filter(None, [about]),
        "",
        *heading("network", "parameters", "top-1", "right pair", "right direction within it", "frames reversed"),
    ]
    for variant, title in VARIANTS.items():
        row = rows.get(variant)
        shares = [f"{row[key]:.3f}" for key in SHARES] if row else [""] * len(SHARES)
        lines.append(line(title, f"{row['params'] / 1e6:.2f} M" if row else "", *shares))
    return lines


def start(content: Content) -> list[str]:
    rows = {row["command"]: row for row in (content or {}).get("rows", [])}
    lines = [
        "**Starting**, each in a new process.",
        *filter(None, [processor(content)]),
        "",
        *heading("command", "seconds, least", "seconds, median", "processor time over that of `import torch`"),
    ]
    for command in COMMANDS:
        row = rows.get(command)
        wall = [number(row["wall"][key]) for key in ("seconds_min", "seconds_median")] if row else ["", ""]
        lines.append(line(f"`{command}`", *wall, number(row["over_import_torch"]["ratio_min"]) if row else ""))
    return lines


def soak(content: Content) -> list[str]:
    text = ""
    if content is not None:
        text = f"{content['kills']} kills in {content['runs']} runs: final weights of {content['differences']} differ"
    return [line("training runs killed at random moments and resumed", text)]


def hostile(content: Content) -> list[str]:
    text = ""
    if content is not None:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(content["codes"].items()))
        text = f"{content['files']} files: {content['tracebacks']} tracebacks, {content['hangs']} hangs ({codes})"
    return [line("damaged and hostile files", text)]


def parity(content: Content) -> list[str]:
    text = ""
    if content is not None:
        placed = [row for row in content["rows"] if "refused" not in row]
        worst = max(row["largest_difference"] for row in placed)
        num_refused = len(content["rows"]) - len(placed)
        text = f"{len(placed)} networks: logits differ by {worst:.0e} at most; {num_refused} refused"
    return [line("other toolkits' own networks, imported, against themselves", text)]


def i3d(content: Content) -> list[str]:
    """Our I3D's forward pass over that of a port of its authors' code; a line for each number of threads."""
    content = content or {}
    cells = [
        f"{row['ratio_median']:.2f} of its processor time ({row['num_frames']} frames of {content['size_px']} px, "
        f"{row['threads']} thread{'s' * (row['threads'] > 1)} of {content['machine']['cpu']}, median of "
        f"{row['rounds']} rounds)"
        for row in content.get("rows", [])
    ]
    return [line("I3D's forward pass, over a port of its authors' code", cell) for cell in cells or [""]]


def i3d_parity(content: Content) -> list[str]:
    rows = (content or {}).get("rows", [])
    text = ""
    if rows:
        worst = max(gap / row["largest_logit"] for row in rows for gap in row["largest_difference"].values())
        ports = {port for row in rows for port in row["largest_difference"]}
        videos = {row["video"] for row in rows}
        text = (
            f"{len(ports)} port{'s' * (len(ports) > 1)}, {len(rows)} clips of {len(videos)} videos: logits differ by "
            f"{worst:.0e} of the largest at most"
        )
    return [line("I3D with its released weights, against ports of its authors' code", text)]


# Files of results of networks beside those of their authors, with the same random weights.
SAME_WEIGHTS = {
    "blvnet_parity": "bLVNet-TAM, against its authors' own networks, in float64",
    "bninception_parity": "BN-Inception, without shift and with it, against TSM's own, in float64",
}


def same_weights(title: str, content: Content) -> list[str]:
    text = ""
    if content is not None:
        worst = max(row["largest_difference"] / row["largest_score"] for row in content["rows"])
        text = f"{len(content['rows'])} clips: scores differ by {worst:.0e} of the largest at most"
        if worst == 0:
            text = f"{len(content['rows'])} clips: scores are equal in every digit"
    return [line(title, text)]


def from_results(make: Callable[[Content], list[str]], results: Path, name: str = "") -> list[str]:
    """What ``make`` makes of the file of results of that name, its own by default, or of None where there is none."""
    path = results / f"{name or make.__name__}.json"
    return make(json.loads(path.read_text(encoding="utf-8")) if path.exists() else None)


def page(results: Path = RESULTS) -> str:
    """docs/measured.md."""
    tables = [from_results(make, results) for make in (decode, loader, block, step, models, attach, start)]
    counts = ["**Counted.**", "", *heading("", "result")]
    for make in (exactness, soak, hostile, parity, i3d_parity, i3d):
        counts += from_results(make, results)
    for name, title in SAME_WEIGHTS.items():
        counts += from_results(partial(same_weights, title), results, name)
    return "\n".join([HEAD, *("\n".join([*lines, ""]) for lines in [*tables, counts])])


def headline(results: Path = RESULTS) -> str:
    """The README's rows, without the marks."""
    rows = [*heading("", "result"), *from_results(loader_speed, results, "loader")]
    return "\n".join(rows + [row for make in (exactness, soak, parity) for row in from_results(make, results)])


def between_marks(page: str, name: str, text: str) -> str:
    """A page with ``text`` between the two marks of that name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"the page lacks the marks {begin} and {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(between_marks(README.read_text(encoding="utf-8"), "headline", headline()), encoding="utf-8")


if __name__ == "__main__":
    main()
