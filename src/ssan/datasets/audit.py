"""Looking at every video of a list before a run depends on it."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ssan.datasets.samples import Sample
from ssan.errors import SsanError, VideoError
from ssan.files import writing
from ssan.video.reader import open_video


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used, and why."""

    sample: Sample
    error: SsanError


def audit(samples: Sequence[Sample], *, quiet: bool = False) -> list[Fault]:
    """Open each video, find its length and decode its first frame; return those where that fails, in their order.

    Damage further inside a file shows only when its frames are read.
    """
    faults = []
    silent = quiet or not sys.stderr.isatty()
    for sample in tqdm(samples, desc="checking videos", unit="video", disable=silent, file=sys.stderr, leave=False):
        try:
            with open_video(sample.path) as video:
                _ = video.size_px
        except VideoError as error:
            faults.append(Fault(sample, error))
    return faults


def write_skipped(path: str | Path, faults: Sequence[Fault]) -> None:
    """Write ``skipped.csv``: one line for each video left out, with its id, path, code and cause."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "path", "code", "message"])
    for fault in faults:
        writer.writerow([fault.sample.id, fault.sample.path, fault.error.code, fault.error.message])
    with writing(path) as handle:
        handle.write(text.getvalue())
