"""``ssan data check``."""

import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.audit import Audit
    from ssan.datasets.samples import Sample
    from ssan.datasets.source import DataSource


@options.reads_data_as_argument
def check(
    source: "DataSource",
    split: options.Split = "all",
    depth: Annotated[
        Literal["whole", "open"], typer.Option(help="Decode every frame, or open each video and decode its first.")
    ] = "whole",
    write_clean: Annotated[
        str | None, typer.Option(metavar="LIST.csv", help="Write a list of the videos with which nothing is wrong.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where to remember what is found; by default in ~/.cache/ssan.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Look at unchanged videos again.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    workers: options.Workers = None,
) -> int:
    """Look at every video and say what is wrong with which, and why.

    What is found is remembered: a check that was interrupted goes on where it was, and a video that has not changed is
    not looked at again. Training looks at its videos in the same way.
    """
    from ssan.datasets.audit import audit
    from ssan.datasets.doubts import doubts

    if write_clean is not None:
        options.check_output("--write-clean", write_clean, [".csv"])
    samples = source.read(split)
    options.refuse_none(samples, split, source)
    if write_clean is not None:
        refuse_captions("--write-clean", samples)
    began = time.perf_counter()
    try:
        found = audit(samples, depth=depth, workers=workers, memory=memory, again=again, compare=True, quiet=quiet)
    except KeyboardInterrupt:
        return options.interrupted("what was found is remembered, the same command goes on from there")
    seconds = time.perf_counter() - began
    if write_clean is not None:
        write_as_list(write_clean, source, found.clean, found.samples, samples.classes, quiet=quiet)
    num_ok = sum(finding.ok for finding in found.findings)
    warnings = doubts(samples)
    answer = {
        "num_checked": len(found.findings),
        "num_ok": num_ok,
        "num_remembered": found.num_remembered,
        "depth": depth,
        "memory": None if found.memory is None else str(found.memory),
        "check_seconds": round(seconds, 3),
        "warnings": warnings,
        "files": [finding.as_dict() for finding in found.findings],
    }
    options.show(answer, lambda _: _lines(found, seconds, warnings), as_json=json)
    return options.DONE if num_ok == len(found.findings) else options.SOME_FAILED


def _lines(found: "Audit", seconds: float, warnings: Sequence[str]) -> Iterator[str]:
    """The counts, and then whatever there is something to say of, one line each."""
    from ssan.errors import printable

    num_ok = sum(finding.ok for finding in found.findings)
    total = len(found.findings)
    known = f", {found.num_remembered} known from before" if found.num_remembered else ""
    yield f"{total} videos: {num_ok} ok, {total - num_ok} with faults ({seconds:.1f} s{known})"
    counts = Counter((finding.ok, finding.code) for finding in found.findings if finding.code)
    for (ok, code), number in sorted(counts.items(), key=lambda pair: (pair[0][0], -pair[1])):
        yield f"  {number:>6}  {code}{' (can be used)' if ok else ''}"
    for finding in sorted((one for one in found.findings if one.code), key=lambda one: one.ok):
        yield f"{printable(finding.path)}: {finding.code}: {' '.join(finding.message.split())}"
    for warning in warnings:
        yield f"warning: {warning}"


def refuse_captions(option: str, samples: "Sequence[Sample]") -> None:
    """Refuse to write captions as a list of labelled videos."""
    if any(sample.video is not None for sample in samples):
        raise UsageError(f"{option} writes lists of labelled videos, and these have captions; leave it out")


def write_as_list(
    path: str,
    source: "DataSource",
    chosen: "Sequence[Sample]",
    samples: "Sequence[Sample]",
    classes: list[str],
    *,
    quiet: bool,
) -> None:
    """Write those of the samples that are chosen as a list, and say on standard error which command reads it."""
    from ssan.datasets.audit import write_list

    left_out = write_list(path, chosen, source.folder)
    if quiet:
        return
    words = ["--data", source.folder, "--annotations", path, "--format", "csv"]
    tell(f"{path}: {len(chosen) - len(left_out)} of {len(samples)}; read it with {shlex.join(words)}")
    if left_out:
        tell(f"{len(left_out)} more are fine and cannot stand in such a list, by their names: {left_out[0].path}")
    kept = {sample.id for sample in left_out}
    labels = {sample.label for sample in chosen if sample.label is not None and sample.id not in kept}
    if sorted(labels) != classes:
        tell("in that list classes are numbered in the order of their names, which is not so in the data")
