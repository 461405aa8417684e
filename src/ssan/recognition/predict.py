"""Predictions: videos labelled with a trained classifier."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssan.datasets.tree import Found, is_tree, look_for_videos
from ssan.errors import VideoError
from ssan.models.classifier import VideoNetwork
from ssan.training.batches import Batches, BatchPlan, Draw
from ssan.video.clip import Clip
from ssan.video.container_length import announced_bytes
from ssan.video.preprocess import Preprocess
from ssan.weights.labeller import Labeller


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


def predict(labeller: Labeller, path: str, *, top: int = 5, threshold: float | None = None) -> dict[str, Any]:
    """The likeliest classes of one video, or why there are none; the answer is a line of ``ssan predict --json``.

    :param threshold: the share of the likeliest class below which the video is none of the classes, and ``none`` of the
        answer True; None says nothing of that.
    """
    return label(labeller, path, _read(labeller.preprocess, path), top, threshold)


def predict_each(
    labeller: Labeller, paths: Sequence[str], *, top: int = 5, threshold: float | None = None, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """``predict`` of each video, in order, as it comes; ``workers`` processes read videos ahead of the network."""
    if not paths:
        return
    plan = BatchPlan(len(paths), 1)
    loader = Batches(_Videos(paths, labeller.preprocess), plan, workers=min(workers, len(paths)), collate=list)
    for path, [read] in zip(paths, loader, strict=True):
        yield label(labeller, path, read, top, threshold)


class Look(NamedTuple):
    """A video, or a window of one, as the network is to see it, and what its answer says of it.

    :param views: (1, t, 3, h, w), or why there are none.
    :param bounds: fields that the answer has either way, and ``measured`` those that it has where there are views.
    """

    views: Tensor | VideoError
    bounds: dict[str, float]
    measured: dict[str, float]
    warning: VideoError | None = None


class _Videos(Dataset[Look]):
    """Videos as a loader asks for them; one that cannot be read is its error."""

    def __init__(self, paths: Sequence[str], preprocess: Preprocess) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __getitem__(self, draw: Draw) -> Look:
        return _read(self.preprocess, self.paths[draw.item])


def _read(preprocess: Preprocess, path: str) -> Look:
    try:
        views, clip = preprocess.test_views(path)
    except VideoError as error:
        return Look(error, {}, {})
    measured = {"num_frames": clip.num_frames, "duration_seconds": clip.duration_seconds}
    return Look(views, {}, measured, early_end(path, clip))


def label(labeller: Labeller, path: str, look: Look, top: int, threshold: float | None) -> dict[str, Any]:
    """The answer to what was read of a video, as ``predict`` gives it."""
    try:
        if isinstance(look.views, VideoError):
            raise look.views
        best = likeliest(class_shares(labeller.model, look.views)[0], top, path)
    except VideoError as error:
        return {"path": path, "ok": False, **look.bounds, "error": error.as_dict() | {"path": path}}
    return {
        "path": path,
        "ok": True,
        **look.bounds,
        **look.measured,
        "top": [{"label": labeller.classes[index], "index": index, "score": share} for index, share in best],
        **({} if threshold is None else {"none": best[0][1] < threshold}),
        **({} if look.warning is None else {"warning": look.warning.as_dict()}),
    }


@torch.inference_mode()
def class_shares(model: VideoNetwork, clips: Tensor) -> Tensor:
    """Clips (b, t, 3, h, w) to the softmax of their scores, (b, k) of type float64."""
    return model(clips.to(next(model.parameters()).device)).double().softmax(dim=1)


def likeliest(shares: Tensor, top: int, path: str | None) -> list[tuple[int, float]]:
    """The ``top`` classes of a video's shares (k,), by index, the likeliest first, each with its share.

    :raises VideoError: they are not finite (code ``nan``).
    """
    if not torch.isfinite(shares).all():
        raise VideoError(
            "the model's scores for it are not finite; expected numbers. Look at other videos: if none has any, the "
            "model's weights are unusable",
            code="nan",
            path=path,
        )
    best = shares.topk(min(top, len(shares)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def early_end(path: str, clip: Clip) -> VideoError | None:
    """What to say of a video that was read and is known to end early, which decoding some frames need not show."""
    cut = clip.num_frames < clip.num_promised
    if not cut and not (os.path.isfile(path) and os.stat(path).st_size < (announced_bytes(path) or 0)):
        return None
    return VideoError(
        f"the video ends before its file says it does; it was labelled by the {clip.num_frames} frames that are there. "
        "Copy or download it again",
        code="truncated",
        path=path,
    )
