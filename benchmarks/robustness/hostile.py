"""What `ssan predict` and `ssan train` answer to hostile files.

    python -m benchmarks.robustness.hostile --work runs/hostile --seed 0

Makes the files and runs the commands on them (see tests/hostile_runs.py). Writes benchmarks/results/hostile.json. Exits
with 1 if anything ended in a traceback, a hang, a crash, a missing answer or a wrong one, opened a port or a file
elsewhere, or left a process or shared memory.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.hostile_files import pick, plans, real
from tests.hostile_runs import bad, run_hostile

from ssan.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "hostile.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/hostile"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-least", type=int, default=700, help="files")
    parser.add_argument("--only", type=int, help="so many of the files, every kind if possible")
    parser.add_argument("--sources", type=Path, help="a folder of whole videos, to be damaged too")
    parser.add_argument("--seconds", type=float, default=60, help="without an answer are a hang")
    parser.add_argument("--memory-gb", type=float, default=12, help="address space of each process")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    hostile = plans(real(arguments.sources) if arguments.sources else None, at_least=arguments.at_least)
    if arguments.only:
        hostile = pick(hostile, arguments.only, arguments.seed)
    results = run_hostile(
        hostile,
        arguments.work.resolve(),
        seed=arguments.seed,
        seconds=arguments.seconds,
        memory_gb=arguments.memory_gb,
    )
    write_json(arguments.out, results)
    print(json.dumps({key: results[key] for key in ("files", "tracebacks", "hangs", "crashes", "wrong", "codes")}))
    for text in results["problems"]:
        print(text, file=sys.stderr)
    sys.exit(1 if bad(results) else 0)


if __name__ == "__main__":
    main()
