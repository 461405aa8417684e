"""How long the command line takes to start: `ssan --help`, and `ssan predict` on one file, each in a new process.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.start

Writes benchmarks/results/start.json. `python -c pass` and `import torch` are timed between them, as what no program of
this kind can go below. The model is an ssan_tiny with random weights, the video 24 rendered frames of 64 px in h264.
Seconds of the wall, and of the processor in the process and its children; files are in the system's cache after a
first run that is not counted.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks.timing import RESULTS, machine, ratio, summary
from ssan.files import write_json
from ssan.recipe import make_recipe
from ssan.weights.classifier_file import build_from, save_labeller

OUT = RESULTS / "start.json"


def make_model(path: Path) -> None:
    """A model file with random weights."""
    recipe = make_recipe({"model": "ssan_tiny", "num_frames": 8, "size_px": 48, "crop_px": 48})
    torch.manual_seed(0)
    save_labeller(path, build_from(recipe, 3), ["left", "right", "up"], recipe, {})


def make_video(path: Path) -> None:
    """Noise that moves one pixel a frame to the right."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def spend(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the wall and of the processor that a new python takes with these arguments."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        model, video = Path(folder) / "model.safetensors", Path(folder) / "video.mp4"
        make_model(model)
        make_video(video)
        commands = {
            "python -c pass": ["-c", "pass"],
            "import torch": ["-c", "import torch"],
            "ssan --help": ["-m", "ssan", "--help"],
            "ssan predict": ["-m", "ssan", "predict", str(model), str(video), "--workers", "0", "--quiet", "--json"],
        }
        wall: dict[str, list[float]] = {name: [] for name in commands}
        processor: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, arguments in commands.items():
                spent = spend(arguments)
                if number:
                    wall[name].append(spent[0])
                    processor[name].append(spent[1])
    rows: list[dict[str, Any]] = [
        {
            "command": name,
            "wall": summary(wall[name]),
            "processor": summary(processor[name]),
            "over_python": ratio(processor, name, "python -c pass"),
            "over_import_torch": ratio(processor, name, "import torch"),
        }
        for name in commands
    ]
    write_json(OUT, {"schema": 1, "machine": machine(), "rounds": rounds, "rows": rows})
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
