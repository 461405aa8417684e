"""What C3D's tensors are called in mmaction2's files, by our names."""

import re


def in_mmaction2(key: str) -> str:
    """A convolution is inside a module that could have a norm too."""
    return re.sub(r"^(conv\d\w)\.", r"\1.conv.", key)
