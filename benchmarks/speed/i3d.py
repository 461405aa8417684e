"""I3D of 64 frames of 224 px: our forward pass against that of a port of its authors' code, with the same weights.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.i3d --pytorch-i3d CHECKOUT [--threads 1 2] [--rounds 5]

``CHECKOUT`` is a checkout of piergiaj/pytorch-i3d. The weights are random: time does not depend on them, and the
outputs are compared all the same. Ours have their weights with the channels last, as where a model file is loaded, and
pixels as they come from the reader; the port has the memory that its own code gives it. Each round makes both calls,
one after the other; the figure is the median of the rounds' ratios of processor time. Writes
benchmarks/results/i3d.json.
"""

import argparse
import json

import torch

from benchmarks.parity.i3d_parity import HALF, pytorch_i3d
from benchmarks.timing import RESULTS, interleaved, machine, ratio, summary
from ssan.files import write_json
from ssan.models.catalogue import build, channels_last
from ssan.video.preprocess import normalise

OUT = RESULTS / "i3d.json"
NUM_FRAMES, SIZE_PX, NUM_CLASSES = 64, 224, 400


def measure(checkout: str, threads: int, rounds: int, num_frames: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = channels_last(build("i3d", NUM_CLASSES)).eval()
    port = pytorch_i3d(checkout, model)  # type: ignore[arg-type]
    pixels = torch.randint(256, (1, num_frames, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    clip = normalise(pixels.contiguous(), HALF, HALF)
    with torch.inference_mode():
        gap = (model(pixels) - port(clip)).abs().max() / port(clip).abs().max()
        calls = {"ours": lambda: model(pixels), "port": lambda: port(clip)}
        seconds = interleaved(calls, rounds)
    row = {"threads": threads, "num_frames": num_frames, "rounds": rounds, "difference": float(gap)}
    return row | ratio(seconds, "ours", "port") | {name: summary(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pytorch-i3d", required=True, metavar="CHECKOUT")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-frames", type=int, default=NUM_FRAMES)
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        rows.append(measure(options.pytorch_i3d, threads, options.rounds, options.num_frames))
        print(json.dumps(rows[-1]), flush=True)
    write_json(OUT, {"schema": 1, "machine": machine(), "size_px": SIZE_PX, "rows": rows})


if __name__ == "__main__":
    main()
