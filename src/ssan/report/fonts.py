"""Fonts for names in pictures, in whatever script these are: those that are there, or a number where none has it.

matplotlib draws each letter from the first font of a list that has it, letter by letter and from left to right. Scripts
that run from right to left, or whose letters change by their neighbours, would come out wrong, and so are not drawn.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from matplotlib import font_manager

# A font of boxes for every letter there is.
BOXES = "Last Resort"


def drawable(names: Sequence[str], stand_in: Callable[[int], str]) -> tuple[list[str], list[str], int]:
    """The names as they can be drawn, the fonts to draw them with, and how many have a number instead.

    :param names: what a font cannot show stands in them as its escape already.
    :param stand_in: from the index of a name that no font here can draw to what stands for it.
    """
    letters = {letter for name in names for letter in name if ord(letter) > 126}
    fonts, lacking = fonts_for(letters)
    bad = [bool(lacking & set(name)) or any(_is_shaped(letter) for letter in name) for name in names]
    shown = [stand_in(index) if bad[index] else name for index, name in enumerate(names)]
    return shown, fonts, sum(bad)


def fonts_for(letters: Iterable[str]) -> tuple[list[str], set[str]]:
    """Names of fonts that have these letters, the usual one first; and the letters that none has."""
    usual = font_manager.FontProperties()
    first = str(font_manager.get_font(font_manager.findfont(usual)).family_name)
    found, lacking = [first], set(letters) - _letters(font_manager.findfont(usual))
    if lacking:
        for entry in _upright():
            more = lacking & _letters(entry.fname)
            if more:
                found.append(entry.name)
                lacking -= more
            if not lacking:
                break
    return found, lacking


def _is_shaped(letter: str) -> bool:
    """Whether a letter is of a script that needs more than one letter beside the other."""
    if ord(letter) < 0x300:
        return False
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) in ("Mc", "Me")


@lru_cache(1)
def _upright() -> list[Any]:
    """The fonts that are there, one of each name, those of ordinary weight."""
    entries = sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.name, entry.fname))
    plain = [
        entry for entry in entries
        if entry.style == "normal" and entry.weight in (400, "normal", "regular", "book") and BOXES not in entry.name
    ]  # fmt: skip
    return list({entry.name: entry for entry in plain}.values())


@lru_cache(64)
def _letters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a font that is listed and cannot be read draws nothing
        return frozenset()
