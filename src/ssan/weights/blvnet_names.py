"""What bLVNet-TAM's tensors are called in its authors' files, by our names."""

import re

# The stem's convolutions, each with its BatchNorm, are the network's own there.
_STEM = {
    "big.0": "b_conv0", "big.1": "bn_b0", "little.0": "l_conv0", "little.1": "bn_l0", "little.3": "l_conv1",
    "little.4": "bn_l1", "little.6": "l_conv2", "little.7": "bn_l2", "merge.0": "bl_init", "merge.1": "bn_bl_init",
}  # fmt: skip


def in_blvnet_tam(key: str) -> str:
    """The authors' name for a tensor of the backbone.

    >>> in_blvnet_tam("stem.little.3.weight"), in_blvnet_tam("layer2.widen.1.bias")
    ('l_conv1.weight', 'layer2.little_e.1.bias')
    """
    if found := re.fullmatch(r"stem\.(\w+\.\d)\.(\w+)", key):
        return f"{_STEM[found[1]]}.{found[2]}"
    key = key.removeprefix("stem.").replace("aggregation.", "tam.").replace("widen.", "little_e.")
    return key.replace("fusion.", "fusion.0.")
