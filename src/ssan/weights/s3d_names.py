"""What S3D's tensors are called in torchvision's, kylemin/S3D's and MIL-NCE's files, by our names."""

from typing import NamedTuple

from ssan.weights.names import matched

# The place of each module in the sequence that torchvision's and kylemin's networks are, in which pooling counts too.
_STEPS = {"1a": 0, "2b": 2, "2c": 3, "3b": 5, "3c": 6, "4b": 8, "4c": 9, "4d": 10, "4e": 11, "4f": 12, "5b": 14,
          "5c": 15}  # fmt: skip


class _Part(NamedTuple):
    """A tensor of S3D: its module, such as 1a or 3b; the branch in that and the unit in the branch, if any; which of
    the two convolutions of a unit, if it has two; conv, norm or, of a gate, fc; and the tensor."""

    module: str
    branch: str | None
    unit: str | None
    axis: str | None
    kind: str
    tensor: str


def _part(key: str) -> _Part:
    return _Part(
        *matched(
            r"(?:conv|mixed)_(\d\w)(?:\.branch_(\d)(?:\.(\d))?)?(?:\.unit)?(?:\.(space|time))?\.(conv|norm|fc)\.(\w+)",
            key,
        )
    )


def _in_sequence(part: _Part) -> str:
    """A module's number in the sequence, and the unit within it: there every branch is a sequence."""
    if part.branch is None:
        return str(_STEPS[part.module])
    unit = "1" if part.branch == "3" else part.unit or "0"  # in the last branch pooling comes first
    return f"{_STEPS[part.module]}.branch{part.branch}.{unit}"


def in_torchvision(key: str) -> str:
    """A convolution and its BatchNorm are a sequence, two of them again; the first branch is not one."""
    part = _part(key)
    place = _in_sequence(part).replace("branch0.0", "branch0")
    axis = {"space": ".0", "time": ".1", None: ""}[part.axis]
    kind = {"conv": "0", "norm": "1", "fc": "fc"}[part.kind]
    return f"features.{place}{axis}.{kind}.{part.tensor}"


def in_kylemin(key: str) -> str:
    part = _part(key)
    axis = {"space": "_s", "time": "_t", None: ""}[part.axis]
    kind = {"conv": "conv", "norm": "bn", "fc": "fc"}[part.kind]
    return f"base.{_in_sequence(part)}.{kind}{axis}.{part.tensor}"


def in_milnce(key: str) -> str:
    """Convolutions of a unit are numbered; gates stand beside the units that they weigh."""
    part = _part(key)
    within = f"mixed_{part.module}." if part.branch is not None else ""
    if part.kind == "fc":
        return f"{within}gating{'' if part.branch is None else f'_b{part.branch}'}.fc.{part.tensor}"
    number = 2 if part.axis == "time" else 1
    kind = {"conv": "conv", "norm": "bn"}[part.kind]
    if part.branch is None:
        unit = "conv1" if part.module == "1a" else f"conv_{part.module}"
    else:
        step = {"0": "", "1": "_a", "2": "_a", "3": "_b"}[part.branch] if part.unit != "1" else "_b"
        unit = f"conv_b{part.branch}{step}"
    return f"{within}{unit}.{kind}{number}.{part.tensor}"
