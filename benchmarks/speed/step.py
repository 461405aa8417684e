"""One training step and one inference of our networks against each other, as ratios to TSN on the same backbone.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.step
    python -m benchmarks.speed.step --device cuda --batch 16 --dtype bf16

The first writes the rows of the CPU into benchmarks/results/step.json, the second those of the GPU; each leaves the
others' rows as they are. Random weights and clips in channels-last memory, as training has them; a step is forward,
cross entropy, backward and SGD with momentum. On the CPU processor time of one thread, the networks interleaved.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.timing import RESULTS, interleaved, ratio, store, summary
from ssan.models.catalogue import MODELS, build

OUT = RESULTS / "step.json"
BACKBONES = {"tiny": 8, "r50": 1}  # and the clips in a batch on the CPU
FAMILIES = ["tsn", "tsm", "ssan"]
NUM_CLASSES = 174
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_calls(name: str, batch: int, device: str, dtype: str) -> dict[str, Callable[[], Any]]:
    """A training step and an inference of the named model, each on its own copy of it."""
    spec = MODELS[name]
    torch.manual_seed(0)
    clips = torch.randn(batch, spec.num_frames, 3, spec.size_px, spec.size_px, device=device)
    clips = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, clips.shape[:2])
    labels = torch.randint(NUM_CLASSES, (batch,), device=device)
    training = build(name, NUM_CLASSES).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inference = build(name, NUM_CLASSES).to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(training.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def cast() -> torch.autocast:
        return torch.autocast(device, DTYPES[dtype], enabled=dtype != "fp32")

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with cast():
            loss = F.cross_entropy(training(clips), labels)
        loss.backward()
        optimizer.step()

    def infer() -> None:
        with torch.inference_mode(), cast():
            inference(clips)

    return {"train": train, "infer": infer}


def measure(backbone: str, batch: int, rounds: int, device: str, dtype: str) -> list[dict[str, Any]]:
    calls = {name: make_calls(name, batch, device, dtype) for name in (f"{family}_{backbone}" for family in FAMILIES)}
    rows = []
    for work in ("train", "infer"):
        seconds = interleaved({name: each[work] for name, each in calls.items()}, rounds, device)
        for name, values in seconds.items():
            spec = MODELS[name]
            row = {
                "model": name,
                "work": work,
                "batch": batch,
                "num_frames": spec.num_frames,
                "size_px": spec.size_px,
                **ratio(seconds, name, f"tsn_{backbone}"),
                **summary(values),
                "clips_a_second": round(batch / min(values), 3),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--batch", type=int, help="clips; without it 8 tiny ones or 1 large")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for backbone, batch in BACKBONES.items()
        for row in measure(backbone, arguments.batch or batch, arguments.rounds, arguments.device, arguments.dtype)
    ]
    store(OUT, arguments.device, {"dtype": arguments.dtype, "rounds": arguments.rounds}, rows)


if __name__ == "__main__":
    main()
