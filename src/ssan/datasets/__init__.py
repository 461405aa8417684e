"""Lists of labelled videos in the formats people have them in, and the one dataset that reads their clips."""

from ssan.datasets.samples import Sample, Samples
from ssan.datasets.source import FORMATS, detect, read

__all__ = ["FORMATS", "Sample", "Samples", "detect", "read"]
