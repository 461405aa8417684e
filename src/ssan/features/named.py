"""Streams of features by the names that a recipe has for them, out of what is given: by name, or in their order."""

import os
import re
from collections.abc import Sequence

from ssan.errors import UsageError, few
from ssan.features.streams import FeatureStream, open_features

_NAMED = re.compile(r"(\w[\w.+-]*)=(.+)", re.DOTALL)


def named(given: str) -> tuple[str | None, str]:
    """``NAME=PATH`` as name and path; of a path alone, also of one that has the sign in it, the name is None.

    >>> named("ssa=features/ssa"), named("features/lr=1")
    (('ssa', 'features/ssa'), (None, 'features/lr=1'))
    """
    found = _NAMED.fullmatch(given)
    if found is None or os.path.exists(given):
        return None, given
    return found[1], found[2]


def paths_by_stream(features: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The path of each stream by its name, however the features are given; one file can hold two streams."""
    pairs = [named(given) for given in features]
    by_name = {one: path for name, path in pairs if name is not None for one in name.split("+")}
    if by_name:
        return by_name
    return {name: pairs[min(index, len(pairs) - 1)][1] for index, name in enumerate(names)}


def open_streams(features: Sequence[str], rates: Sequence[float | None], names: Sequence[str]) -> list[FeatureStream]:
    """Open folders or files of features as the streams of these names, in their order.

    :param features: a path each, in the order of the names; or ``NAME=PATH`` each, in any order. Of a file with two
        streams, as reference 22's can be, ``NAME`` is the one of that name in it, or ``NAME+NAME`` both.
    :param rates: vectors a second of each of ``features``, where they do not say it.
    :raises UsageError: other streams than the names.
    """
    rates = [*rates, *[None] * (len(features) - len(rates))]
    pairs = [named(given) for given in features]
    num_named = sum(name is not None for name, _ in pairs)
    if 0 < num_named < len(pairs):
        bare = next(path for name, path in pairs if name is None)
        raise UsageError(f"--features {bare} has no name, and others have; write NAME=PATH for each, or for none")
    opened = [open_features(path, rate, strict=False) for (_, path), rate in zip(pairs, rates, strict=False)]
    expected = f"the recipe's features are {'+'.join(names)}, {len(names)} stream{'s' * (len(names) != 1)}"
    if not num_named:
        streams = [stream for of_path in opened for stream in of_path]
        if len(streams) != len(names):
            raise UsageError(
                f"{expected}, and {len(streams)} are given ({few([stream.name for stream in streams])}); give "
                "--features for each, in this order or as NAME=PATH, or name them in the recipe, as features=ssa or "
                "features=2d+ssa"
            )
        return streams
    found: dict[str, FeatureStream] = {}
    for (name, path), of_path in zip(pairs, opened, strict=True):
        assert name is not None
        wanted = name.split("+")
        if len(wanted) == 1 and len(of_path) > 1:
            of_path = [stream for stream in of_path if stream.name == name] or of_path
        if len(of_path) != len(wanted):
            there = "+".join(stream.name for stream in of_path)
            raise UsageError(
                f"--features {name}={path} names {len(wanted)}, and there are {len(of_path)} ({there}); name each, "
                "joined by +",
                path=path,
            )
        for one, stream in zip(wanted, of_path, strict=True):
            if one in found or one not in names:
                what = "names them twice" if one in found else "names others"
                raise UsageError(
                    f"{expected}, and --features {name}={path} {what}; give each of them once, as NAME=PATH"
                )
            found[one] = stream
    lacking = [name for name in names if name not in found]
    if lacking:
        raise UsageError(f"{expected}, and {few(lacking)} is not given; add --features {lacking[0]}=PATH")
    return [found[name] for name in names]
