"""Compare two models on the same labelled videos: how far apart they are, and whether that could be chance.

    python examples/compare_models.py runs/tsn runs/ssan videos val

The videos that exactly one of the two gets right tell them apart: an interval by paired bootstrap, and McNemar's test.
"""

import sys

import ssan
from ssan.recognition.compare import bootstrap_interval, mcnemar


def main(first: str, second: str, data: str, split: str) -> None:
    samples = ssan.read_dataset(data, split)
    right: list[list[bool]] = []
    for path in (first, second):
        answers = ssan.load_model(path).predict(samples, top=1)
        right.append([answer.label == sample.label for answer, sample in zip(answers, samples, strict=True)])
        print(f"{path}: {sum(right[-1])} of {len(samples)} right")
    pairs = list(zip(*right, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    low, high = bootstrap_interval(only_first, only_second, len(samples))
    exact, _ = mcnemar(only_first, only_second)
    print(f"only the first {only_first}, only the second {only_second}")
    print(f"difference {(only_second - only_first) / len(samples):+.3f}, 95 % [{low:+.3f}, {high:+.3f}], p {exact:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
