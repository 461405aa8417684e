"""Mirror images of videos, and what they do to a class, by the text of labels; without torch, for describing a list."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FlipMap:
    """What mirroring a video does to its class.

    ``partner`` takes the index of a class to that of its mirror image, in both directions. ``directed`` are all
    classes that name a direction, with a partner or without: mirrored, they are no longer what their label says.
    """

    partner: Mapping[int, int] = field(default_factory=dict)
    directed: frozenset[int] = frozenset()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every pair once, the smaller index first, in order: for printing what was found."""
        return sorted((a, b) for a, b in self.partner.items() if a < b)


# A word is bounded by anything but a letter or a digit: names of folders join words with "_" and "-". "Right" before
# one of these words is an adverb, no direction: "pulling it right out".
_DIRECTION = re.compile(
    r"(?<![^\W_])(?:(?P<counter>(?:counter|anti)[-_ ]?clockwise)|(?P<clockwise>clockwise)|(?P<left>left)"
    r"|(?P<right>right(?![\W_]+(?:out|away|now|before|after|next|behind|through|there|here)(?![^\W_]))))(?![^\W_])"
)
_OPPOSITE = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counter": "clockwise"}


def flip_pairs(labels: Sequence[str]) -> FlipMap:
    """Find the classes that mirroring swaps, from the text of their labels, in the order of the class indices.

    The words left and right, and clockwise and counterclockwise (anticlockwise, counter-clockwise), are exchanged in a
    label, without regard to case; two classes are a pair when this turns each into the other. A class that has such a
    word but no partner ("Turning left" where no class is "Turning right") is directed all the same. A wrong guess here
    ("What is left in the box") costs that class its mirror images and falsifies nothing.
    """
    plain = [" ".join(label.lower().split()) for label in labels]
    same = [_DIRECTION.sub(lambda match: "counterclockwise" if match["counter"] else match[0], text) for text in plain]
    mirrored = [_DIRECTION.sub(lambda match: _OPPOSITE[str(match.lastgroup)], text) for text in plain]
    index_of = {text: index for index, text in enumerate(same)}
    directed = [index for index, text in enumerate(plain) if _DIRECTION.search(text)]
    partner = {index: index_of[mirrored[index]] for index in directed if mirrored[index] in index_of}
    partner = {a: b for a, b in partner.items() if partner.get(b) == a != b}
    return FlipMap(partner, frozenset(directed))
