"""Labelling videos with a trained classifier."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssan.datasets.tree import Found, is_tree, look_for_videos
from ssan.errors import VideoError
from ssan.training.batches import Batches, BatchPlan, Draw
from ssan.video.clip import Clip
from ssan.video.container_length import announced_bytes
from ssan.video.preprocess import Preprocess
from ssan.weights.classifier_file import Labeller


def expand(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The videos that paths stand for, in order, and in a line each what was left out on the way.

    A folder that directly holds pictures and no videos is one video, any other is walked, and so is a clip file. A
    folder without any video stands for itself, so that the answer says that it is empty; so does a clip file that
    cannot be read.
    """
    videos, left_out = [], Found()
    for path in paths:
        try:
            found = look_for_videos(path) if is_tree(path) else Found([path])
        except VideoError:
            found = Found([path])
        videos += found.videos or [path]
        left_out.add(found)
    return videos, left_out.notes()


def predict(labeller: Labeller, path: str, *, top: int = 5) -> dict[str, Any]:
    """The likeliest classes of one video, or why there are none; the answer is a line of ``ssan predict --json``."""
    return _label(labeller, path, _read(labeller.preprocess, path), top)


def predict_each(
    labeller: Labeller, paths: Sequence[str], *, top: int = 5, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """``predict`` of each video, in order, as it comes; ``workers`` processes read videos ahead of the network."""
    if not paths:
        return
    plan = BatchPlan(len(paths), 1)
    loader = Batches(_Videos(paths, labeller.preprocess), plan, workers=min(workers, len(paths)), collate=list)
    for path, [read] in zip(paths, loader, strict=True):
        yield _label(labeller, path, read, top)


class _Look(NamedTuple):
    """A video as the network is to see it, and what its answer says of it."""

    views: Tensor
    num_frames: int
    duration_seconds: float
    warning: dict[str, Any] | None


class _Videos(Dataset["_Look | VideoError"]):
    """Videos as a loader asks for them; one that cannot be read is its error."""

    def __init__(self, paths: Sequence[str], preprocess: Preprocess) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __getitem__(self, draw: Draw) -> _Look | VideoError:
        return _read(self.preprocess, self.paths[draw.item])


def _read(preprocess: Preprocess, path: str) -> _Look | VideoError:
    try:
        views, clip = preprocess.test_views(path)
    except VideoError as error:
        return error
    warning = _cut_off(path, clip) if _is_cut_off(path, clip) else None
    return _Look(views, clip.num_frames, clip.duration_seconds, warning)


def _label(labeller: Labeller, path: str, read: _Look | VideoError, top: int) -> dict[str, Any]:
    if isinstance(read, VideoError):
        return {"path": path, "ok": False, "error": read.as_dict() | {"path": path}}
    device = next(labeller.model.parameters()).device
    with torch.inference_mode():
        shares = labeller.model(read.views.to(device))[0].double().softmax(dim=0)
    if not torch.isfinite(shares).all():
        unusable = VideoError(
            "the model's scores for it are not finite; expected numbers. Look at other videos: if none has any, the "
            "model's weights are unusable",
            code="nan",
            path=path,
        )
        return {"path": path, "ok": False, "error": unusable.as_dict()}
    best = shares.topk(min(top, len(labeller.classes)))
    return {
        "path": path,
        "ok": True,
        "num_frames": read.num_frames,
        "duration_seconds": read.duration_seconds,
        "top": [
            {"label": labeller.classes[index], "index": index, "score": value}
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ],
        **({} if read.warning is None else {"warning": read.warning}),
    }


def _is_cut_off(path: str, clip: Clip) -> bool:
    """Whether a video that was labelled is known to end early, which decoding some frames of it need not show."""
    if clip.num_frames < clip.num_promised:
        return True
    return os.path.isfile(path) and os.stat(path).st_size < (announced_bytes(path) or 0)


def _cut_off(path: str, clip: Clip) -> dict[str, Any]:
    return VideoError(
        f"the video ends before its file says it does; it was labelled by the {clip.num_frames} frames that are there. "
        "Copy or download it again",
        code="truncated",
        path=path,
    ).as_dict()
