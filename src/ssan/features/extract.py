"""Features of videos: a frozen network over windows that slide over each, into a store of vectors.

Reference 22 (HowTo100M, Miech et al., ICCV 2019, section 5) describes a video by 2-D features, one a second, and 3-D
features, 1.5 a second; the paper puts its own network in the place of the latter (section 4.2).
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from ssan.datasets.clips import part_of
from ssan.datasets.samples import Sample, Samples
from ssan.errors import AnnotationError, SsanError, UsageError, VideoError, printable
from ssan.features.store import VectorWriter, part_id
from ssan.files import sha256
from ssan.models.catalogue import specification
from ssan.models.classifier import VideoNetwork
from ssan.processes import Processes, terminable
from ssan.training.journal import Journal
from ssan.training.workers import WorkerEndedError, begin, carried, handed_on
from ssan.video.clip import Part
from ssan.video.preprocess import Preprocess
from ssan.weights.initial import build_pretrained, seen_as_published

KIND = "pooled features, mean over the frames of a window"


@dataclass(frozen=True)
class Encoder:
    """A frozen network and what it needs to see a video.

    :param model: in evaluation mode, on the device where it is to compute.
    :param hash: SHA-256 of its tensors, or of the file with its weights.
    :param dim: length of its features.
    """

    model: VideoNetwork
    preprocess: Preprocess
    hash: str
    name: str
    dim: int


@dataclass(frozen=True)
class Rate:
    """How windows slide: each ``window_seconds`` long, one beginning every ``stride_seconds``."""

    window_seconds: float
    stride_seconds: float

    def __post_init__(self) -> None:
        for name in ("window_seconds", "stride_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value:g}; expected a length in seconds above 0")

    @property
    def vectors_per_second(self) -> float:
        return 1 / self.stride_seconds


def usual_rate(preprocess: Preprocess) -> Rate:
    """The rate for a network where none is asked for.

    Unsaid by the paper, our choice: the features take the place of reference 22's 3-D ones, so there are 1.5 a second,
    and of a network of single frames one, as its 2-D ones. A window is what the network was trained on: the frames of a
    dense clip, at its rate or, where it has none, 24 a second; or 4 seconds, a video of Something-Something, where it
    had one frame of each part of a video. Pinned by ``test_the_usual_rates_are_those_of_reference_22``.
    """
    if preprocess.num_frames == 1:
        return Rate(1.0, 1.0)
    dense = preprocess.sampling == "dense"
    per_second = preprocess.frames_per_second or 24
    return Rate(preprocess.num_frames * preprocess.stride / per_second if dense else 4.0, 2 / 3)


def encoder_of_weights(name: str, init: str, device: str = "cpu") -> Encoder:
    """A network by its name in ``ssan models`` with weights from elsewhere, such as ImageNet's, and not trained here.

    Unsaid by the paper, our choice: a network that looks at single frames sees one frame of each window, as reference
    22's ResNet-152 does, any other 8. Pinned by ``test_a_network_of_single_frames_sees_one_of_each_window``.

    :param init: a file of weights, a name of ``ssan weights list``, or ``imagenet``.
    :raises ModelError: weights that leave something of the backbone, or a layer between frames, as it was drawn.
    """
    spec = specification(name)
    model, path = build_pretrained(name, init)
    num_frames = spec.num_frames if spec.knows_order or spec.layers else 1
    preprocess = Preprocess(**seen_as_published(name, num_frames))
    return Encoder(model.to(device), preprocess, sha256(path), name, model.num_features)


@dataclass
class Extraction:
    """What was done, and how long it took.

    ``num_videos`` counts the entries that were made, whole videos or parts of them. ``read_seconds`` is how long videos
    were read, by all reading processes together; ``wait_seconds`` how long the network waited for them.
    """

    dim: int
    num_done_before: int = 0
    num_videos: int = 0
    num_vectors: int = 0
    read_seconds: float = 0.0
    wait_seconds: float = 0.0
    compute_seconds: float = 0.0
    write_seconds: float = 0.0
    seconds: float = 0.0
    failed: list[SsanError] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """The figures, as the journal has them."""
        figures = {name: value for name, value in vars(self).items() if name != "failed"}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}

    def as_dict(self) -> dict[str, Any]:
        """The fields of ``ssan extract --json``."""
        return {**self.counts(), "failed": [error.as_dict() for error in self.failed]}


@dataclass(frozen=True)
class ExtractionJob:
    """An entry to be made: a video, or a part of one."""

    id: str
    path: str
    part: Part | None


def jobs_of(samples: Sequence[Sample], *, whole_videos: bool = False) -> list[ExtractionJob]:
    """Each distinct video, or part of one, once, in the order of the samples.

    :param whole_videos: whole videos, also where the samples are parts of them.
    :raises AnnotationError: one id for two files.
    """
    jobs: dict[str, ExtractionJob] = {}
    for sample in samples:
        part = None if whole_videos else part_of(sample)
        # The id of a part that is counted in frames tells it from the video's other parts.
        seconds = part if isinstance(part, tuple) else (None, None)
        job = ExtractionJob(part_id(sample.video or sample.id, *seconds), sample.path, part)
        other = jobs.setdefault(job.id, job)
        if other.path != job.path:
            raise AnnotationError(
                f"two videos have the id {job.id!r}: {printable(other.path)} and {printable(job.path)}; ids must "
                "differ",
                code="duplicate",
            )
    return list(jobs.values())


def provenance(encoder: Encoder, rate: Rate) -> dict[str, Any]:
    """Where vectors come from: what decides them, beside the video."""
    return {
        "source": "ssan extract",
        "kind": KIND,
        "model": encoder.name,
        "hash": encoder.hash,
        "preprocess": encoder.preprocess.as_dict(),
        "window_seconds": rate.window_seconds,
        "stride_seconds": rate.stride_seconds,
        "vectors_per_second": rate.vectors_per_second,
    }


@dataclass(frozen=True)
class Piece:
    """Some windows of a video, as a reading process hands them on: clips (n, t, 3, h, w), or what went wrong.

    ``job`` counts in the list of jobs; ``last`` is whether nothing more of the video comes.
    """

    job: int
    spans: list[tuple[float, float]]
    clips: Tensor | None
    seconds: float
    last: bool
    error: VideoError | None = None


class Pieces(IterableDataset[Piece]):
    """The windows of videos, at most ``batch`` at a time; of several reading processes each reads videos of its own."""

    def __init__(self, jobs: Sequence[ExtractionJob], preprocess: Preprocess, rate: Rate, batch: int) -> None:
        self.jobs, self.preprocess, self.rate, self.batch = jobs, preprocess, rate, batch

    def __iter__(self) -> Iterator[Piece]:
        worker = get_worker_info()
        mine = range(len(self.jobs)) if worker is None else range(worker.id, len(self.jobs), worker.num_workers)
        for number in mine:
            yield from self._pieces(number)

    def _pieces(self, number: int) -> Iterator[Piece]:
        job, began = self.jobs[number], time.perf_counter()
        spans: list[tuple[float, float]] = []
        clips: list[Tensor] = []
        try:
            for span, clip in self.preprocess.windows(
                job.path,
                window_seconds=self.rate.window_seconds,
                stride_seconds=self.rate.stride_seconds,
                part=job.part,
            ):
                if len(clips) == self.batch:
                    yield Piece(number, spans, torch.stack(clips), time.perf_counter() - began, last=False)
                    spans, clips, began = [], [], time.perf_counter()
                spans.append(span)
                clips.append(clip)
        except VideoError as error:
            yield Piece(number, [], None, time.perf_counter() - began, last=True, error=error)
            return
        yield Piece(number, spans, torch.stack(clips), time.perf_counter() - began, last=True)


def extract(
    encoder: Encoder,
    samples: Samples,
    out: str | Path,
    rate: Rate,
    *,
    whole_videos: bool = False,
    batch: int = 16,
    workers: int = 0,
    processes: Processes | None = None,
    data: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Extraction:
    """Put the features of videos into the store ``out``, those that are not there yet.

    The feature of a window is the mean over its frames of what the network pools, (f,). The windows of a video go
    through the network at most ``batch`` at a time and never with those of another, so that its features depend on
    nothing but the video, however the work is shared. A video that cannot be read whole, or whose features are not
    finite, is listed in ``failed`` and has no entry. Interrupted (Ctrl-C, SIGTERM) it raises ``KeyboardInterrupt``;
    what is in the store stays there, and the next call goes on.

    :param workers: processes that read videos; 0 reads in this one, by turns with the network.
    :param processes: of how many processes this is which one; video i of the list is for process i modulo their number.
    :param data: said about the videos in the journal, ``out/journal.jsonl``.
    :raises UsageError: no videos, or the store has features of another network, preprocessing or rate.
    :raises SsanError: the disk is full (code ``no_space``).
    """
    this = processes or Processes()
    if not samples:
        raise UsageError("there are no videos in it; name another --split, or look at --data", path=samples.source)
    every = jobs_of(samples, whole_videos=whole_videos)
    began = time.perf_counter()
    done = Extraction(encoder.dim)
    origin = provenance(encoder, rate)
    with terminable(), VectorWriter(out, encoder.dim, origin, part=this.rank) as writer:
        mine = every[this.rank :: this.world]
        jobs = [job for job in mine if job.id not in writer.done]
        done.num_done_before = len(mine) - len(jobs)
        journal, share = Journal(out), {"process": this.rank, "processes": this.world}
        device = next(encoder.model.parameters()).device
        journal.record(
            "start", **share, num_videos=len(jobs), num_done_before=done.num_done_before, batch=batch, workers=workers,
            device=str(device), data=data, whole_videos=whole_videos, **origin,
        )  # fmt: skip
        try:
            _run(encoder, jobs, writer, done, Pieces(jobs, encoder.preprocess, rate, batch), workers, quiet)
        except BaseException as error:
            done.seconds = time.perf_counter() - began
            journal.record("stopped", **share, why=type(error).__name__, **done.counts())
            raise
        done.seconds = time.perf_counter() - began
        journal.record("end", **share, num_failed=len(done.failed), **done.counts())
    return done


def _run(
    encoder: Encoder,
    jobs: Sequence[ExtractionJob],
    writer: VectorWriter,
    done: Extraction,
    pieces: Pieces,
    workers: int,
    quiet: bool,
) -> None:
    """Compute and write what the readers hand on, in whatever order the videos come; counts go to ``done``."""
    open_ones: dict[int, tuple[list[np.ndarray], list[tuple[float, float]]]] = {}
    # What waits in memory is bounded: for each worker two pieces, each of a batch of clips.
    loader = DataLoader(
        pieces, batch_size=None, num_workers=min(workers, len(jobs)), collate_fn=carried, worker_init_fn=begin
    )
    silent = quiet or not sys.stderr.isatty()
    with tqdm(total=len(jobs), desc="extracting", unit="video", disable=silent, file=sys.stderr, leave=False) as bar:
        asked = time.perf_counter()
        for piece in _handed_on(loader):
            done.wait_seconds += time.perf_counter() - asked
            done.read_seconds += piece.seconds
            job, (rows, spans) = jobs[piece.job], open_ones.setdefault(piece.job, ([], []))
            error: SsanError | None = piece.error
            if piece.clips is not None:
                began = time.perf_counter()
                rows.append(_features(encoder.model, piece.clips))
                spans += piece.spans
                done.compute_seconds += time.perf_counter() - began
            if piece.last:
                del open_ones[piece.job]
                began = time.perf_counter()
                if error is None:
                    error = _keep(writer, job, np.concatenate(rows), np.array(spans))
                done.write_seconds += time.perf_counter() - began
                if error is None:
                    done.num_videos, done.num_vectors = done.num_videos + 1, done.num_vectors + len(spans)
                else:
                    done.failed.append(_told_of(job, error))
                bar.update()
            asked = time.perf_counter()


def _handed_on(loader: DataLoader[Piece]) -> Iterator[Piece]:
    try:
        yield from handed_on(loader, loader.__iter__)
    except WorkerEndedError as error:
        raise SsanError(
            f"{error}, perhaps because memory ran out; expected it to last. What is in the store is kept: run again "
            "with fewer --workers"
        ) from error


@torch.inference_mode()
def _features(model: VideoNetwork, clips: Tensor) -> np.ndarray:
    """Clips (n, t, 3, h, w) to features (n, f), on the CPU."""
    device = next(model.parameters()).device
    return model.features(clips.to(device, non_blocking=True)).float().cpu().numpy()


def _keep(writer: VectorWriter, job: ExtractionJob, rows: np.ndarray, spans: np.ndarray) -> SsanError | None:
    """Write the features of one video; what makes this very video unusable is returned."""
    try:
        writer.add(job.id, rows, spans, job.path)
    except SsanError as error:
        if error.code != "nan":
            raise
        return error
    return None


def _told_of(job: ExtractionJob, error: SsanError) -> SsanError:
    """The error with the path that the list gives; of a part, it says of which."""
    if job.part is None and error.path == job.path:
        return error
    where = "" if job.part is None else f" (the part {job.id!r})"
    inner = f" ({error.path})" if error.path not in (None, job.path) else ""
    message = f"{error.message}{where}{inner}"
    return VideoError(message, code=error.code, path=job.path)
