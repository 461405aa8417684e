"""Labelling videos with a trained classifier."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from ssan.datasets.tree import Found, is_tree, look_for_videos
from ssan.errors import VideoError
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
    device = next(labeller.model.parameters()).device
    try:
        views, clip = labeller.preprocess.test_views(path)
    except VideoError as error:
        return {"path": path, "ok": False, "error": error.as_dict() | {"path": path}}
    with torch.inference_mode():
        shares = labeller.model(views.to(device))[0].double().softmax(dim=0)
    if not torch.isfinite(shares).all():
        unusable = VideoError(
            "the model's scores for it are not finite; expected numbers. Look at other videos: if none has any, the "
            "model's weights are unusable",
            code="nan",
            path=path,
        )
        return {"path": path, "ok": False, "error": unusable.as_dict()}
    best = shares.topk(min(top, len(labeller.classes)))
    cut = {"warning": _cut_off(path, clip)} if _is_cut_off(path, clip) else {}
    return {
        "path": path,
        "ok": True,
        "num_frames": clip.num_frames,
        "duration_seconds": clip.duration_seconds,
        "top": [
            {"label": labeller.classes[index], "index": index, "score": value}
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ],
        **cut,
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
