"""Video understanding with separable self-attention (SSAN, CVPR 2021, arXiv 2105.13033).

Letters used for axes everywhere in this package: ``b`` videos, ``v`` views of a video, ``t`` frames, ``c`` channels,
``h w`` pixels, ``p = h * w`` positions, ``e`` embedding channels inside a block, ``k`` classes. Folded axes are
joined: ``bt`` is one axis that runs over videos and, inside each, over frames.
"""

__version__ = "0.1.0"
