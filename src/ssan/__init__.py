"""Video understanding with separable self-attention (SSAN, CVPR 2021, arXiv 2105.13033).

``load_model`` labels videos and describes them by features, ``create_model`` makes a named network, ``train`` trains
one; ``attach``, ``detach`` and ``video_classifier`` are for networks from elsewhere, ``layers`` for networks of one's
own; ``open_video`` and ``read_dataset`` read what is fed to them. All of it is told on one page, ``docs/python.md``.
Each is imported when it is first asked for, and torch with it.

Letters used for axes everywhere in this package: ``b`` videos, ``v`` views of a video, ``t`` frames, ``c`` channels,
``h w`` pixels, ``p = h * w`` positions, ``e`` embedding channels inside a block, ``k`` classes. Folded axes are
joined: ``bt`` is one axis that runs over videos and, inside each, over frames.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ssan._version import __version__ as __version__

if TYPE_CHECKING:
    from ssan import layers as layers
    from ssan.attachment.attach import attach as attach
    from ssan.attachment.attach import detach as detach
    from ssan.attachment.fold_frames import folded as folded
    from ssan.attachment.video_classifier import video_classifier as video_classifier
    from ssan.datasets.reading import read_dataset as read_dataset
    from ssan.recognition.by_name import create_model as create_model
    from ssan.recognition.by_name import train as train
    from ssan.recognition.video_model import load_model as load_model
    from ssan.video.reader import open_video as open_video

__all__ = [
    "__version__",
    "attach",
    "create_model",
    "detach",
    "layers",
    "load_model",
    "open_video",
    "read_dataset",
    "train",
    "video_classifier",
]

_MODULE_OF = {
    "attach": "ssan.attachment.attach",
    "create_model": "ssan.recognition.by_name",
    "detach": "ssan.attachment.attach",
    "folded": "ssan.attachment.fold_frames",
    "load_model": "ssan.recognition.video_model",
    "open_video": "ssan.video.reader",
    "read_dataset": "ssan.datasets.reading",
    "train": "ssan.recognition.by_name",
    "video_classifier": "ssan.attachment.video_classifier",
}


def __getattr__(name: str) -> Any:
    if name == "layers":
        return importlib.import_module("ssan.layers")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ssan' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
