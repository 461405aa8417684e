"""What BN-Inception's tensors are called in the files of TSN, TRN and TSM and of its ImageNet ports, by our names."""

import re

from ssan.weights.names import matched

# The convolutions of a module, by ours: the branch and the place in it.
_IN_MODULE = {
    "alone": "1x1", "single.0": "3x3_reduce", "single.1": "3x3", "twofold.0": "double_3x3_reduce",
    "twofold.1": "double_3x3_1", "twofold.2": "double_3x3_2", "pooled": "pool_proj",
}  # fmt: skip
_BEFORE = {"conv1": "conv1_7x7_s2", "conv2.reduce": "conv2_3x3_reduce", "conv2.conv": "conv2_3x3"}
_OURS_IN_MODULE = {theirs: ours for ours, theirs in _IN_MODULE.items()}
_OURS_BEFORE = {theirs: ours for ours, theirs in _BEFORE.items()}


def published_name(key: str) -> str:
    """The name of a tensor of the backbone in all of these files, without a prefix.

    >>> published_name("inception_4e.twofold.2.1.running_mean"), published_name("conv2.reduce.0.bias")
    ('inception_4e_double_3x3_2_bn.running_mean', 'conv2_3x3_reduce.bias')
    """
    place, step, tensor = matched(r"(.+)\.([01])\.(\w+)", key)
    module, _, inside = place.partition(".")
    named = f"{module}_{_IN_MODULE[inside]}" if module.startswith("inception_") else _BEFORE[place]
    return f"{named}{'_bn' if step == '1' else ''}.{tensor}"


def our_name(name: str) -> str:
    """What we call a tensor of an ImageNet file of BN-Inception; any other name stays as it is.

    >>> our_name("inception_4e_double_3x3_2_bn.running_mean"), our_name("last_linear.bias"), our_name("layer1.0.bias")
    ('inception_4e.twofold.2.1.running_mean', 'fc.bias', 'layer1.0.bias')
    """
    if name.startswith("last_linear."):
        return name.replace("last_linear.", "fc.")
    found = re.fullmatch(r"(?:(inception_\d\w)_)?(\w+?)(_bn)?\.(\w+)", name)
    if found is None:
        return name
    module, inside, norm, tensor = found.groups()
    place = _OURS_BEFORE.get(inside) if module is None else _OURS_IN_MODULE.get(inside)
    if place is None:
        return name
    return f"{'' if module is None else f'{module}.'}{place}.{1 if norm else 0}.{tensor}"
