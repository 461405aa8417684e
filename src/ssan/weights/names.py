"""Names of tensors, taken apart."""

import re


def matched(pattern: str, key: str) -> tuple[str, ...]:
    """The groups of a pattern in a whole name of ours; one that does not match is a mistake here.

    >>> matched(r"layer(\\d)\\.(\\w+)", "layer1.weight")
    ('1', 'weight')
    """
    found = re.fullmatch(pattern, key)
    assert found is not None, key
    return found.groups()
