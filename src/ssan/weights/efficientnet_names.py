"""The names of the package efficientnet-lite-pytorch for the tensors of EfficientNet-Lite, by ours."""

import re

_ENDS = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "fc"}
_IN_BLOCK = {
    "_expand_conv": "expansion.0",
    "_bn0": "expansion.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "projection.0",
    "_bn2": "projection.1",
}


def our_name(name: str) -> str:
    """What we call a tensor of that package's; any other name stays as it is.

    >>> our_name("_blocks.3._bn1.weight"), our_name("_fc.bias"), our_name("conv1.weight")
    ('blocks.3.depthwise.1.weight', 'fc.bias', 'conv1.weight')
    """
    found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", name)
    if found is None:
        return name
    block, part, tensor = found.groups()
    known = (_ENDS if block is None else _IN_BLOCK).get(part)
    return name if known is None else f"{'' if block is None else f'blocks.{block}.'}{known}.{tensor}"
