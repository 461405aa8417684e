"""What I3D's tensors are called in the files of its authors and of its ports, by our names."""

from ssan.weights.names import matched

# What is called how in I3D's files, by ours: the units of a mixed module, in the order in which they compute.
_UNITS = ("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3")


def _unit(key: str) -> tuple[str, str | None, str]:
    """Of a tensor of I3D: its convolution or its mixed module, such as 1a or 3b, the unit in that, and the rest."""
    module, unit, rest = matched(r"(?:conv|mixed)_(\d\w)(?:\.(branch_\d(?:\.\d)?))?\.(\w+\.\w+)", key)
    return module, unit, rest


_STEM = {"1a": "Conv3d_1a_7x7", "2b": "Conv3d_2b_1x1", "2c": "Conv3d_2c_3x3"}


def in_flax(key: str) -> str | None:
    """TensorFlow's names of the modules; statistics are apart from what is trained, and there are no scales."""
    module, unit, rest = _unit(key)
    place = _STEM.get(module)
    if place is None:
        inside = ("Branch_0/Conv3d_0a_1x1", "Branch_1/Conv3d_0a_1x1", "Branch_1/Conv3d_0b_3x3",
                  "Branch_2/Conv3d_0a_1x1", "Branch_2/Conv3d_0b_3x3", "Branch_3/Conv3d_0b_1x1")  # fmt: skip
        place = f"Mixed_{module}.{dict(zip(_UNITS, inside, strict=True))[str(unit)]}"
    tensors = {
        "conv.weight": "params.{}.Conv_0.kernel",
        "norm.bias": "params.{}.BatchNorm_0.bias",
        "norm.running_mean": "batch_stats.{}.BatchNorm_0.mean",
        "norm.running_var": "batch_stats.{}.BatchNorm_0.var",
        "norm.num_batches_tracked": "batch_stats.{}.BatchNorm_0.num_batches_tracked",  # which no file has
    }
    return tensors[rest].format(place) if rest in tensors else None


def in_pytorch_i3d(key: str) -> str:
    module, unit, rest = _unit(key)
    place = _STEM.get(module)
    if place is None:
        inside = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
        place = f"Mixed_{module}.{dict(zip(_UNITS, inside, strict=True))[str(unit)]}"
    return f"{place}.{rest.replace('conv.', 'conv3d.').replace('norm.', 'bn.')}"


def in_kinetics_i3d_pytorch(key: str) -> str:
    module, unit, rest = _unit(key)
    place = _STEM[module].lower() if module in _STEM else f"mixed_{module}.{unit}"
    place += ".1" if unit == "branch_3" else ""  # the pooling is a step of the sequence there
    return f"{place}.{rest.replace('conv.', 'conv3d.').replace('norm.', 'batch3d.')}"
