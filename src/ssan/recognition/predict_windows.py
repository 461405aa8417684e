"""Predictions of windows: long videos labelled stretch by stretch, and tables of such labels."""

import math
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ssan.datasets.audit import as_csv
from ssan.errors import SsanError, UsageError, VideoError
from ssan.recognition.predict import Look, early_end, label
from ssan.training.workers import WorkerEndedError, begin, carried, handed_on
from ssan.video.preprocess import Preprocess, Window
from ssan.weights.labeller import Labeller

COLUMNS = ("path", "start_seconds", "end_seconds", "label", "score")


class WindowAnswer(NamedTuple):
    """An answer, a line of ``ssan predict --windows --json``, of the ``video``-th video, which has so many windows."""

    video: int
    num_windows: int
    line: dict[str, Any]


def predict_windows(
    labeller: Labeller,
    paths: Sequence[str],
    *,
    window_seconds: float,
    step_seconds: float | None = None,
    top: int = 5,
    threshold: float | None = None,
    workers: int = 0,
) -> Iterator[WindowAnswer]:
    """Label each window that slides over each video, video by video and window by window, as they come.

    The network sees of a window what ``predict`` lets it see of a video that is that window alone, one window at a
    time. Of a long video no more is in memory than the windows that are being read. A window that cannot be read has
    an answer that says why; so has, in one answer without bounds, a video that cannot be opened.

    :param step_seconds: from the beginning of a window to that of the next; ``window_seconds`` unless given.
    :param workers: processes that read, each videos of its own; what comes before its turn waits as an answer.
    :raises UsageError: lengths that are none.
    """
    step = checked_step(window_seconds, step_seconds)
    windows = _Windows(paths, labeller.preprocess, window_seconds, step)
    return _in_order(labeller, paths, windows, top, threshold, workers)


def checked_step(window_seconds: float, step_seconds: float | None) -> float:
    """The step, or the window's length unless given.

    :raises UsageError: lengths that are none.
    """
    step = window_seconds if step_seconds is None else step_seconds
    for name, value in (("windows", window_seconds), ("step", step)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}; expected a length in seconds above 0")
    return step


class _Piece(NamedTuple):
    """A window as a reading process hands it on."""

    video: int
    num_windows: int
    last: bool
    look: Look


class _Windows(IterableDataset[_Piece]):
    """The windows of videos, one after another; of several reading processes each reads videos of its own."""

    def __init__(
        self, paths: Sequence[str], preprocess: Preprocess, window_seconds: float, step_seconds: float
    ) -> None:
        self.paths, self.preprocess = paths, preprocess
        self.window_seconds, self.step_seconds = window_seconds, step_seconds

    def __iter__(self) -> Iterator[_Piece]:
        worker = get_worker_info()
        mine = range(len(self.paths)) if worker is None else range(worker.id, len(self.paths), worker.num_workers)
        for video in mine:
            try:
                for window in self.preprocess.each_window(
                    self.paths[video], window_seconds=self.window_seconds, stride_seconds=self.step_seconds
                ):
                    last = window.number + 1 == window.num_windows
                    yield _Piece(video, window.num_windows, last, look_of(self.paths[video], window))
            except VideoError as error:
                yield _Piece(video, 1, True, Look(error, {}, {}))


def look_of(path: str, window: Window) -> Look:
    """A window on its way to the network; the last one says whether the video ends before its file says so."""
    bounds = {"start_seconds": window.start_seconds, "end_seconds": window.end_seconds}
    if isinstance(window.decoded, VideoError):
        return Look(window.decoded, bounds, {})
    assert window.views is not None
    last = window.number + 1 == window.num_windows
    warning = early_end(path, window.decoded) if last else None
    return Look(window.views, bounds, {"num_frames": window.num_frames}, warning)


def _in_order(
    labeller: Labeller, paths: Sequence[str], windows: _Windows, top: int, threshold: float | None, workers: int
) -> Iterator[WindowAnswer]:
    if not paths:
        return
    loader = DataLoader(
        windows, batch_size=None, num_workers=min(workers, len(paths)), collate_fn=carried, worker_init_fn=begin
    )
    turn, early = 0, dict[int, list[WindowAnswer]]()
    ended: set[int] = set()
    for piece in _handed_on(loader):
        answer = WindowAnswer(
            piece.video, piece.num_windows, label(labeller, paths[piece.video], piece.look, top, threshold)
        )
        if piece.last:
            ended.add(piece.video)
        if piece.video != turn:
            early.setdefault(piece.video, []).append(answer)
            continue
        yield answer
        while turn in ended:
            turn += 1
            yield from early.pop(turn, [])


def _handed_on(loader: "DataLoader[_Piece]") -> Iterator[_Piece]:
    try:
        yield from handed_on(loader, loader.__iter__)
    except WorkerEndedError as error:
        raise SsanError(
            f"{error}, perhaps because memory ran out; expected it to last. Run again with fewer --workers (0 reads in "
            "this process)"
        ) from error


def as_row(line: dict[str, Any]) -> str:
    """An answer as a line of the table with ``COLUMNS``: its likeliest label, none where it is below the threshold.

    A whole video is a row from 0 to its end. What has no answer has neither label nor score.
    """
    start, end = line.get("start_seconds", ""), line.get("end_seconds", "")
    best: dict[str, Any] = {"label": "", "score": ""}
    if line["ok"]:
        best = line["top"][0]
        if "duration_seconds" in line:
            start, end = 0.0, line["duration_seconds"]
    return as_csv([[line["path"], start, end, "" if line.get("none") else best["label"], best["score"]]])


def begin_table(handle: IO[str]) -> None:
    """Write the names of the columns."""
    handle.write(as_csv([COLUMNS]))
