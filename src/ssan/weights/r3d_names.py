"""What the tensors of 3-D ResNets are called in torchvision's files, by our names."""

from ssan.weights.names import matched


def in_torchvision(key: str) -> str:
    """A convolution and its BatchNorm are the first two steps of a sequence there, and the stem is one."""
    block, kind, number, tensor = matched(r"(layer\d\.\d+\.|)(conv|bn|downsample\.)(\d)\.(\w+)", key)
    if kind == "downsample.":
        return key
    return f"{f'{block}conv{number}' if block else 'stem'}.{0 if kind == 'conv' else 1}.{tensor}"
