"""What ``ssan retrieval eval --scores`` takes for a large matrix: seconds and memory, by layout and precision.

    python -m benchmarks.speed.score_matrix

Writes random matrices of 20,000 x 20,000 scores into a temporary folder, one at a time, and evaluates each in a process
of its own with the intervals of 1,000 draws; the best of ``--rounds``. The seconds are those of the processor, which
others on the machine disturb least, and those of the wall, without the interpreter's start and imports. Memory is what
the process holds at its peak over what it held before: of its own (looked at every 2 ms), and with the pages of the
mapped file, which the system takes back when it needs them. Results go to benchmarks/results/score_matrix.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import RESULTS, machine
from ssan.files import write_json
from ssan.retrieval.matrix import evaluate_matrix

ROWS = [("float32", "C"), ("float32", "F"), ("float16", "C"), ("float64", "C")]


def write_matrix(path: Path, num: int, dtype: str, order: Any) -> None:
    """A matrix of noise, in which what is right stands a little out."""
    scores = np.lib.format.open_memmap(path, "w+", dtype, (num, num), fortran_order=order == "F")
    lines = scores.T if order == "F" else scores
    rng = np.random.default_rng(0)
    for index in range(num):
        lines[index] = rng.standard_normal(num, dtype=np.float32)
        lines[index, index] += 3
    scores.flush()


def held(what: str) -> float:
    """Megabytes of this process: "RssAnon", its own; "VmHWM", the most at any time, with mapped files."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what)) / 1e6


def print_one(scores: str, truth: str) -> None:
    """Evaluate one matrix in this process."""
    own, whole, done = held("RssAnon"), held("VmHWM"), threading.Event()
    peaks = [own]

    def look() -> None:
        while not done.wait(0.002):
            peaks.append(held("RssAnon"))

    watch = threading.Thread(target=look)
    watch.start()
    start, cpu_start = time.perf_counter(), time.process_time()
    answer = evaluate_matrix(scores, truth)
    seconds, wall_seconds = time.process_time() - cpu_start, time.perf_counter() - start
    done.set()
    watch.join()
    found = {
        "seconds": round(seconds, 2),
        "wall_seconds": round(wall_seconds, 2),
        "peak_mb": round(max(peaks) - own, 1),
        "peak_mb_with_mapped_pages": round(held("VmHWM") - whole, 1),
        "r1": answer["text_to_video"]["r1"],
    }
    print(json.dumps(found))


def measure(folder: Path, num: int, dtype: str, order: str, rounds: int) -> dict[str, Any]:
    scores, truth = folder / "scores.npy", folder / "truth.csv"
    write_matrix(scores, num, dtype, order)
    truth.write_text("query_row,video_column\n" + "".join(f"{row},{row}\n" for row in range(num)), encoding="utf-8")
    runs = []
    for _ in range(rounds):
        command = [sys.executable, "-m", "benchmarks.speed.score_matrix", "--one", str(scores), str(truth)]
        runs.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    file_mb = round(scores.stat().st_size / 1e6, 1)
    scores.unlink()
    best = min(runs, key=lambda run: run["seconds"])
    peaks = {key: max(run[key] for run in runs) for key in ("peak_mb", "peak_mb_with_mapped_pages")}
    return {"num": num, "dtype": dtype, "order": order, "file_mb": file_mb, **best, **peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=20_000, help="rows and columns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print_one(*arguments.one)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype, order in ROWS:
            rows.append(measure(Path(folder), arguments.num, dtype, order, arguments.rounds))
            print(json.dumps(rows[-1]), flush=True)
    write_json(RESULTS / "score_matrix.json", {"schema": 1, "machine": machine(), "bootstrap": 1000, "rows": rows})


if __name__ == "__main__":
    main()
