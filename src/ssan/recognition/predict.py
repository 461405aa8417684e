"""Labelling videos with a trained classifier."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssan.datasets.tree import Found, is_tree, look_for_videos
from ssan.errors import VideoError
from ssan.models.classifier import Classifier
from ssan.video.clip import Clip
from ssan.video.container_length import announced_bytes
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
    try:
        views, clip = labeller.preprocess.test_views(path)
        best = likeliest(class_shares(labeller.model, views)[0], top, path)
    except VideoError as error:
        return {"path": path, "ok": False, "error": error.as_dict() | {"path": path}}
    warning = early_end(path, clip)
    return {
        "path": path,
        "ok": True,
        "num_frames": clip.num_frames,
        "duration_seconds": clip.duration_seconds,
        "top": [{"label": labeller.classes[index], "index": index, "score": share} for index, share in best],
        **({} if warning is None else {"warning": warning.as_dict()}),
    }


@torch.inference_mode()
def class_shares(model: Classifier, clips: Tensor) -> Tensor:
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
