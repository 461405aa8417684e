"""What the tensors of non-local networks are called by their authors' code and by a port of it, by our names."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssan.weights.names import matched

# The ends of Caffe2's names and torch's; longer ones first. ``riv`` is a variance, in spite of its name.
_ENDS = {
    "_bn_s": "_bn.weight", "_bn_b": "_bn.bias", "_bn_rm": "_bn.running_mean", "_bn_riv": "_bn.running_var",
    "_w": ".weight", "_b": ".bias",
}  # fmt: skip
EPSILON = 1e-5


def of_blobs(blobs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Caffe2's blobs with torch's ends of names, without what the optimiser keeps.

    A network whose BatchNorm was frozen has scales and biases alone, the statistics being part of these: here they are
    a mean of 0, and a variance that makes 1 with the epsilon.
    """
    state = {}
    for name, tensor in blobs.items():
        if name.endswith("_momentum"):
            continue
        end = next((end for end in _ENDS if name.endswith(end)), "")
        state[name.removesuffix(end) + _ENDS.get(end, "")] = tensor
    for name in [name for name in state if name.endswith("_bn.weight")]:
        norm = name.removesuffix("weight")
        if f"{norm}running_mean" not in state and f"{norm}running_var" not in state:
            state[f"{norm}running_mean"] = torch.zeros_like(state[name])
            state[f"{norm}running_var"] = torch.full_like(state[name], 1 - EPSILON)
    return state


def in_pytorch_resnet3d(key: str) -> str:
    """Names are a ResNet's; a non-local block is called nl, and its norm bn."""
    return key.replace(".after_block.norm.", ".nl.bn.").replace(".after_block.", ".nl.")


def in_video_nonlocal_net(key: str) -> str:
    """Names of blobs, with the ends that ``of_blobs`` gives them."""
    if not key.startswith("layer"):
        return key.replace("bn1.", "res_conv1_bn.")
    layer, block, rest = matched(r"layer(\d)\.(\d+)\.(.+)", key)
    stage = int(layer) + 1
    if rest.startswith("after_block."):
        part = rest.removeprefix("after_block.").replace("norm.", "bn.")
        return f"nonlocal_conv{stage}_{block}_{part}"
    kind, number, tensor = matched(r"(conv|bn|downsample\.)(\d)\.(\w+)", rest)
    if kind == "downsample.":
        branch, norm = "branch1", number == "1"
    else:
        branch, norm = f"branch2{'abc'[int(number) - 1]}", kind == "bn"
    return f"res{stage}_{block}_{branch}{'_bn' if norm else ''}.{tensor}"
