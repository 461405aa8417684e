"""A trained classifier as an object: what ``ssan.load_model`` gives."""

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssan.datasets.clips import part_of
from ssan.datasets.samples import Sample
from ssan.errors import UsageError, VideoError, first_line, quoted, unknown
from ssan.models.catalogue import MODELS
from ssan.models.classifier import Classifier, VideoNetwork
from ssan.recipe import Recipe
from ssan.recognition.predict import class_shares, early_end, expand, likeliest
from ssan.recognition.predict_windows import checked_step
from ssan.video.clip import Clip
from ssan.video.frame_array import FrameArray, frame_arrays
from ssan.weights.fetching import fetch as fetch_weights
from ssan.weights.labeller import Labeller
from ssan.weights.named import NAMED
from ssan.weights.open_model import open_model

OneVideo = str | os.PathLike[str] | Sample | np.ndarray | Tensor
"""A file, a folder of frames, a folder that is walked; a sample of ``ssan.read_dataset``; frames in memory."""

Videos = OneVideo | Iterable[OneVideo]


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    :param path: of the video; None of frames in memory.
    :param top: the likeliest classes, the likeliest first, each with its share: the softmax of the scores, in 0..1.
    :param error: why there is no answer, with a ``code`` (docs/python.md lists them) and a ``message``; None where
        there is one.
    :param warning: that the video ends before its file says it does, although it was labelled.
    :param num_frames: of the video, or of the part of it that the sample is.
    :param duration_seconds: of the same; None of frames in memory, of a window, and where there is no answer.
    :param start_seconds: of a window, where it begins, from the beginning of the video, and ``end_seconds`` where it
        ends; None where the whole video is answered, or cannot be opened.
    """

    path: str | None
    top: list[tuple[str, float]] = field(default_factory=list)
    error: VideoError | None = None
    warning: VideoError | None = None
    num_frames: int | None = None
    duration_seconds: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.error is None

    @property
    def label(self) -> str | None:
        """The likeliest class; None where there is no answer."""
        return self.top[0][0] if self.top else None


@dataclass(frozen=True)
class _Seen:
    """A video, or a window of one, on its way to the network: a clip (1, t, 3, h, w), or why there is none."""

    path: str | None
    clip: Tensor | None = None
    decoded: Clip | None = None
    num_frames: int | None = None
    error: VideoError | None = None
    window: tuple[float, float] | None = None


class VideoModel:
    """A classifier of videos with its classes, its preprocessing and the protocol by which it was measured.

    Wherever it takes ``videos``, these are one or many of: the path of a video file, of a folder of JPEG or PNG frames,
    or of any other folder, which is walked for the videos in it; a sample of ``ssan.read_dataset``; an array of numpy
    or a tensor of uint8 frames in RGB, (t, h, w, 3) or (t, 3, h, w), or (b, t, h, w, 3) for b videos. Many are any
    iterable of these, also a generator, which is read no further ahead than ``batch`` videos.

    Of each video one clip is looked at, the middle of the video's parts, as ``ssan predict`` does. The answer to a
    video does not depend on the others; with a ``batch`` above 1, which pays on a GPU, sums are rounded otherwise in
    the last digits.

    :param network: in evaluation mode, on the device where it is to compute.
    :param classes: names of the classes, in the order of its scores.
    :param protocol: how its accuracy was measured, and the accuracy.
    :param recipe: how it was built and trained; None where nothing of ours describes it.
    :param name: of its network, or of its weights.
    :param hash: SHA-256 of its tensors.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._preprocess = labeller.preprocess
        self.network: VideoNetwork = labeller.model
        self.classes: list[str] = labeller.classes
        self.protocol: dict[str, Any] = labeller.protocol
        self.recipe: Recipe | None = labeller.recipe
        self.name: str = labeller.name
        self.hash: str = labeller.hash

    def __repr__(self) -> str:
        clip = f"{self._preprocess.num_frames} frames of {self._preprocess.crop_px} px"
        return f"<VideoModel {self.name}: {len(self.classes)} classes, {clip}, on {self.device}>"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def predict(
        self,
        videos: Videos,
        top: int = 5,
        *,
        batch: int = 1,
        windows: float | None = None,
        step: float | None = None,
    ) -> list[Prediction]:
        """Label videos: an answer for each, in their order; a list also for a single one.

        A video that cannot be read is an answer with ``ok`` False, and the others are labelled all the same. An answer
        to a file is the one that ``ssan predict`` gives; frames in memory are answered as a folder of these pictures.

        :param top: classes in each answer, or as many as there are.
        :param batch: videos, or windows, that go through the network together.
        :param windows: seconds; label windows so long that slide over each video, an answer each, as
            ``ssan predict --windows`` does. A long video is read window by window.
        :param step: seconds from one window's beginning to that of the next; ``windows`` unless given.
        :raises UsageError: what was given is no video: another type, shape or element type. Of a list all are looked at
            before the first is read. Also where the model has no classes, and with ``windows`` frames in memory, of
            which no time is known.
        """
        if not self.classes:
            raise UsageError(f"{self.name} describes videos by features and has no classes; use features(videos)")
        if top < 1:
            raise UsageError(f"top is {top}; expected 1 or more classes")
        if windows is None and step is not None:
            raise UsageError("step is how far windows are apart, and there are none; give windows=SECONDS too")
        slide = None if windows is None else (windows, checked_step(windows, step))
        answers: list[Prediction] = []
        for group in self._groups(videos, batch, slide):
            clips = [seen.clip for seen in group if seen.clip is not None]
            shares = iter(class_shares(self.network, torch.cat(clips))) if clips else iter(())
            answers += [self._answer(seen, None if seen.clip is None else next(shares), top) for seen in group]
        return answers

    def _answer(self, seen: _Seen, shares: Tensor | None, top: int) -> Prediction:
        error, best = seen.error, []
        if shares is not None:
            try:
                best = likeliest(shares, top, seen.path)
            except VideoError as unusable:
                error = unusable
        start, end = seen.window or (None, None)
        if error is not None:
            return Prediction(seen.path, error=error, start_seconds=start, end_seconds=end)
        warning = early_end(seen.path, seen.decoded) if seen.path is not None and seen.decoded is not None else None
        lasts = None if seen.decoded is None or seen.window else seen.decoded.duration_seconds
        named = [(self.classes[index], share) for index, share in best]
        return Prediction(seen.path, named, None, warning, seen.num_frames, lasts, start, end)

    def features(self, videos: Videos, *, batch: int = 1, on_error: Literal["raise", "nan"] = "raise") -> np.ndarray:
        """Describe videos: an array (n, d) of type float32 with a row for each, in their order.

        A row is the mean over the clip's frames of what the linear layer takes: what ``ssan extract`` keeps of a window
        as long as the video. Videos that look alike to the network have rows that point the same way. The videos of a
        folder are in the order of their paths.

        :param on_error: what a video that cannot be read is: an error, or a row of NaN.
        :raises VideoError: a video cannot be read, and ``on_error`` is ``raise``; also scores that are not finite.
        :raises UsageError: as of ``predict``.
        """
        if on_error not in ("raise", "nan"):
            raise UsageError(unknown("on_error", str(on_error), ("raise", "nan")))
        dim = self.network.num_features
        rows = [np.empty((0, dim), np.float32)]
        for group in self._groups(videos, batch):
            of_group = np.full((len(group), dim), np.nan, np.float32)
            there = [number for number, seen in enumerate(group) if seen.clip is not None]
            if there:
                clips = torch.cat([seen.clip for seen in group if seen.clip is not None])
                with torch.inference_mode():
                    of_group[there] = self.network.features(clips.to(self.device)).float().cpu().numpy()
            for seen, row in zip(group, of_group, strict=True):
                if on_error == "raise" and not np.isfinite(row).all():
                    raise seen.error or VideoError(
                        "the model's features of it are not finite; expected numbers. Look at other videos: if none "
                        "has any, the model's weights are unusable",
                        code="nan",
                        path=seen.path,
                    )
            rows.append(of_group)
        return np.concatenate(rows)

    def _groups(self, videos: Videos, batch: int, slide: tuple[float, float] | None = None) -> Iterator[list[_Seen]]:
        """The videos, or the windows that slide over them, read, at most ``batch`` at a time."""
        if batch < 1:
            raise UsageError(f"batch is {batch}; expected 1 or more videos")
        found = _each(videos)
        if not isinstance(videos, Iterator):
            found = iter(list(found))  # so that a mistake is told before the work
        seen: Iterator[_Seen] = map(self._see, found)
        if slide is not None:
            seen = (window for video in found for window in self._windows(video, *slide))
        while group := list(islice(seen, batch)):
            yield group

    def _see(self, video: str | Sample | FrameArray) -> _Seen:
        path = None if isinstance(video, FrameArray) else video.path if isinstance(video, Sample) else video
        try:
            if isinstance(video, FrameArray):
                return _Seen(None, self._preprocess.test_clip(video), num_frames=video.num_frames)
            part = part_of(video) if isinstance(video, Sample) else None
            clip, decoded = self._preprocess.test_views(str(path), part=part)
        except VideoError as error:
            return _Seen(path, error=error)
        return _Seen(path, clip, decoded, decoded.num_frames)

    def _windows(self, video: str | Sample | FrameArray, window_seconds: float, step_seconds: float) -> Iterator[_Seen]:
        if isinstance(video, FrameArray):
            raise UsageError("frames in memory have no times, so there are no windows of them; give a file or a folder")
        path, part = (video.path, part_of(video)) if isinstance(video, Sample) else (video, None)
        try:
            for window in self._preprocess.each_window(
                path, window_seconds=window_seconds, stride_seconds=step_seconds, part=part
            ):
                bounds = window.start_seconds, window.end_seconds
                if isinstance(window.decoded, VideoError):
                    yield _Seen(path, error=window.decoded, window=bounds)
                    continue
                # The last one says whether the video ends before its file says so.
                decoded = window.decoded if window.number + 1 == window.num_windows else None
                yield _Seen(path, window.views, decoded, window.num_frames, window=bounds)
        except VideoError as error:
            yield _Seen(path, error=error)


def _each(videos: Videos) -> Iterator[str | Sample | FrameArray]:
    """One video after another, folders walked and arrays of several videos taken apart."""
    if isinstance(videos, str | os.PathLike | Sample | np.ndarray | Tensor):
        yield from _those_of(videos, "the array")
    elif isinstance(videos, Iterable) and not isinstance(videos, bytes | dict):
        for number, video in enumerate(videos):
            yield from _those_of(video, f"array {number} of those given")
    else:
        raise _no_video(videos)


def _those_of(video: Any, name: str) -> Iterator[str | Sample | FrameArray]:
    if isinstance(video, np.ndarray | Tensor):
        yield from frame_arrays(video, name)
    elif isinstance(video, Sample):
        yield video
    elif isinstance(video, str | os.PathLike):
        paths, notes = expand([os.fspath(video)])
        for note in notes:
            warnings.warn(note, stacklevel=2)
        yield from paths
    else:
        raise _no_video(video)


def _no_video(given: object) -> UsageError:
    return UsageError(
        f"a {type(given).__name__} was given for a video; expected a path, a sample of ssan.read_dataset, an array or "
        "a tensor of uint8 frames (t, h, w, 3), or a list of these"
    )


def load_model(
    path: str | os.PathLike[str], device: str = "auto", *, model: Classifier | None = None, fetch: bool = False
) -> VideoModel:
    """Load a trained classifier of videos, or a network that describes them.

    ::

        model = load_model("runs/mine")
        for answer in model.predict("inbox"):
            print(answer.path, answer.label if answer.ok else answer.error)

    :param path: a model file (``ssan train``, ``ssan import``); a run's folder, whose best model it is; a name of
        ``ssan weights list``; or ``hf:`` and a folder of the transformers library's.
    :param device: ``cpu``, ``cuda`` or another name of torch's; ``auto`` is the GPU where there is one.
    :param model: of a network of one's own, that network, made once more; the file's weights are loaded into it.
    :param fetch: of a name whose file is not on this machine: fetch it, once, which is otherwise refused.
    :raises ModelError: the file is missing, damaged, or no classifier of ours (code ``wrong_model``); the weights have
        not been fetched, or cannot be (``not_fetched``).
    :raises UsageError: there is no such device.
    """
    name = os.fspath(path)
    if name in MODELS and not os.path.exists(name):
        raise UsageError(
            f"{name} is the name of a network without weights; name a model file or a run's folder, or make a network "
            f'that is to be trained by create_model("{name}", num_classes)'
        )
    if name in NAMED and not os.path.exists(name) and fetch:
        fetch_weights(NAMED[name])
    return VideoModel(open_model(name, choose_device(device), model=model))


def choose_device(device: str) -> str:
    """A device of torch's by its name, which can compute here; ``auto`` is a GPU where there is one.

    :raises UsageError: there is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device is {quoted(device)}, which cannot be used here ({first_line(error)}); use cpu, or auto"
        ) from error
    return device
