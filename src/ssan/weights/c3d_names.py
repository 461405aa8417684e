"""What C3D's tensors are called in mmaction2's files, by our names."""

import re


def in_mmaction2(key: str) -> str:
    """A convolution is inside a module that has its norm too, where there is one."""
    return re.sub(r"^norm(\d\w)\.", r"conv\1.bn.", re.sub(r"^(conv\d\w)\.", r"\1.conv.", key))
