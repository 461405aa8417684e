"""Video understanding with separable self-attention (SSAN, CVPR 2021, arXiv 2105.13033).

Letters used for axes everywhere in this package: ``b`` videos, ``v`` views of a video, ``t`` frames, ``c`` channels,
``h w`` pixels, ``p = h * w`` positions, ``e`` embedding channels inside a block, ``k`` classes. Folded axes are
joined: ``bt`` is one axis that runs over videos and, inside each, over frames.

``ssan.attach`` and its companions are imported when they are first asked for, and torch with them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssan.attachment.attach import attach as attach
    from ssan.attachment.attach import detach as detach
    from ssan.attachment.fold_frames import folded as folded
    from ssan.attachment.video_classifier import video_classifier as video_classifier

from ssan._version import __version__ as __version__

_WHERE = {
    "attach": "ssan.attachment.attach",
    "detach": "ssan.attachment.attach",
    "folded": "ssan.attachment.fold_frames",
    "video_classifier": "ssan.attachment.video_classifier",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ssan' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
