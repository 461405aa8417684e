"""Tokenisers and vocabularies, which make numbers of captions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ssan.errors import ModelError, UsageError, few, quoted, unknown
from ssan.files import is_text

# The largest published vocabularies have about 3 million words; word2vec's and GloVe's longest words some 1,000 bytes.
MOST_WORDS = 10_000_000
MOST_WORD_BYTES = 10_000


# ----------------------------------------------------------------------------------------------------- tokenising

_WORD = re.compile(r"[\w']+")
Find = Callable[[str], list[str]]


def _found(caption: str) -> list[str]:
    """Letters, digits, underscores and apostrophes that stand together, letters with the marks that belong to them.

    >>> _found("दो लाल गेंदें"), _found("cafe\u0301")
    (['दो', 'लाल', 'गेंदें'], ['café'])
    """
    if caption.isascii():
        return _WORD.findall(caption)
    return _whole_word().findall(unicodedata.normalize("NFC", caption))


def _found_without_marks(caption: str) -> list[str]:
    """The same as earlier versions had it: a vowel sign or an accent of its own ends the word."""
    return _WORD.findall(caption)


@lru_cache(1)
def _whole_word() -> re.Pattern[str]:
    r"""A letter, and what goes on from it: ``\w`` of Python has letters and digits, and none of the marks on them.

    Marks are Unicode's Mn and Mc but for the selectors of the forms of emoji; the joiners of Persian and of Indian
    scripts stand within a word.
    """
    # There are none between these.
    codes = (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))
    marks = [code for code in codes if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    marks = [code for code in marks if not 0xFE00 <= code <= 0xFE0F]
    ranges = ""
    for index, code in enumerate(marks):
        if index == 0 or marks[index - 1] != code - 1:
            ranges += chr(code)
        if index + 1 == len(marks) or marks[index + 1] != code + 1:
            ranges += f"-{chr(code)}"
    return re.compile(rf"[\w'](?:[\w'{ranges}]|[\u200c\u200d](?=[\w{ranges}]))*")


def _words_as_written(caption: str, find: Find = _found) -> list[str]:
    """The words of a caption as reference 22 takes them: letters, digits, underscores and apostrophes, as written.

    >>> _words_as_written("A man's 'best' Dog, 2 times")
    ['A', "man's", "'best'", 'Dog', '2', 'times']
    """
    return find(caption)


def _words_in_lower_case(caption: str, find: Find = _found) -> list[str]:
    """The same in lower case, with apostrophes only inside a word, where the typographic one is taken for the plain.

    >>> _words_in_lower_case("A man’s 'best' Dog ' '")
    ['a', "man's", 'best', 'dog']
    """
    words = (word.strip("'").lower() for word in find(caption.replace("\u2019", "'")))
    return [word for word in words if word]


def _words_written_small(caption: str, find: Find = _found) -> list[str]:
    """The words of a caption as MIL-NCE's released text tower takes them, with every apostrophe.

    >>> _words_written_small("A man's 'best' Dog")
    ['a', "man's", "'best'", 'dog']
    """
    return find(caption.lower())


TOKENISERS: dict[str, Callable[..., list[str]]] = {
    "howto100m": _words_as_written,
    "lower": _words_in_lower_case,
    "howto100m_lower": _words_written_small,
}

# So long is no word of scripts that have no spaces between words, if spaces were put there: of Chinese characters and
# hiragana, and of Thai, Lao, Burmese and Khmer. (Katakana is of loanwords, which may be long.)
_UNSPACED = re.compile(
    "[\u3041-\u309f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]{6}"
    "|[\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3]{16}"
)


def num_unspaced(captions: Iterable[str]) -> int:
    """How many captions are written without spaces between words, as Chinese, Japanese and Thai are."""
    return sum(_UNSPACED.search(caption) is not None for caption in captions if not caption.isascii())


def no_spaces(caption: str) -> str:
    """What to do about a caption without spaces between words, for the end of a message; nothing of any other."""
    if not num_unspaced([caption]):
        return ""
    return f". {REMEDY_FOR_UNSPACED}"


REMEDY_FOR_UNSPACED = (
    "Without spaces between words, as Chinese, Japanese and Thai are written, all of it counts as one word: put spaces "
    "between the words, or take a text model with text=transformer"
)


def word_counts(captions: Iterable[str], tokeniser: str) -> Counter[str]:
    """How often each word stands in all captions together."""
    split = _tokeniser(tokeniser)
    return Counter(word for caption in captions for word in split(caption))


def _tokeniser(name: str) -> Callable[..., list[str]]:
    if name not in TOKENISERS:
        raise UsageError(unknown("tokeniser", name, TOKENISERS))
    return TOKENISERS[name]


# --------------------------------------------------------------------------------------------------- vocabularies


@dataclass(frozen=True)
class DroppedWords:
    """What ``Vocabulary.encode`` leaves out: of ``num_words`` running words those not known, and those too far back."""

    num_words: int
    num_unknown: int
    num_beyond: int


class Vocabulary:
    """The words that a text tower knows: the first has index 1, and index 0 is padding, never a word.

    A vocabulary of the captions of the training split alone has none of the words that only queries have. Where the
    word vectors are frozen these words can be looked up all the same: give it the words of all captions, or those of
    the vector file, as in reference 22.

    :param words: distinct and not empty, in the order of their indices.
    :param tokeniser: one of ``TOKENISERS``.
    :param marks: whether letters keep the marks on them; off for vocabularies of files that earlier versions wrote.
    :raises UsageError: an unknown tokeniser, a word twice, an empty word, one that is no text, or none at all.
    """

    def __init__(self, words: Iterable[str], tokeniser: str, *, marks: bool = True) -> None:
        self.tokeniser, self.marks = tokeniser, marks
        self._split = _tokeniser(tokeniser) if marks else partial(_tokeniser(tokeniser), find=_found_without_marks)
        self.words = tuple(words)
        if not self.words:
            raise UsageError("a vocabulary without words; give at least one", code="empty")
        self._index_of: dict[str, int] = {}
        for index, word in enumerate(self.words, start=1):
            if not word or self._index_of.setdefault(word, index) != index:
                problem = f"{word!r} stands twice" if word else "the empty word"
                raise UsageError(f"{problem} in a vocabulary, at index {index}; give distinct words")
            if not is_text(word):
                raise UsageError(f"{word!r} in a vocabulary, at index {index}, is no text; leave it out")

    @classmethod
    def of(
        cls, captions: Iterable[str], tokeniser: str, *, min_count: int = 1, most: int | None = None
    ) -> "Vocabulary":
        """The words of captions, the most frequent first and equally frequent ones by alphabet.

        :param min_count: words that stand less often in all captions together are left out.
        :param most: at most so many words are taken.
        """
        counts = word_counts(captions, tokeniser)
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        if not frequent:
            raise UsageError(
                f"no word of the captions stands at least {min_count} times in them ({len(counts):,} distinct words); "
                "look at the captions, or lower min_count",
                code="empty",
            )
        return cls((word for _, word in frequent[:most]), tokeniser)

    @property
    def num_rows(self) -> int:
        """Rows of an embedding matrix for these words: padding, then each word."""
        return len(self.words) + 1

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and word in self._index_of

    def _known(self, words: list[str]) -> list[int]:
        """Indices of those words that are known."""
        return [self._index_of[word] for word in words if word in self._index_of]

    def encode(self, captions: Sequence[str], max_words: int) -> np.ndarray:
        """Captions as indices, int64 (n, max_words): the first ``max_words`` known words of each, then zeros.

        Unknown words are dropped, as in reference 22, and take no room; ``dropped`` counts them. ``unusable`` finds
        the captions of which nothing is left, whose row is all zeros here.
        """
        if max_words < 1:
            raise UsageError(f"max_words is {max_words}; a caption needs room for at least 1 word")
        out = np.zeros((len(captions), max_words), np.int64)
        for row, caption in zip(out, captions, strict=True):
            known = self._known(self._split(caption))[:max_words]
            row[: len(known)] = known
        return out

    def dropped(self, captions: Iterable[str], max_words: int) -> DroppedWords:
        """How many words ``encode`` drops: unknown ones, and known ones beyond ``max_words`` in their caption."""
        num_words = num_unknown = num_beyond = 0
        for caption in captions:
            words = self._split(caption)
            num_known = len(self._known(words))
            num_words += len(words)
            num_unknown += len(words) - num_known
            num_beyond += max(0, num_known - max_words)
        return DroppedWords(num_words, num_unknown, num_beyond)

    def why_unusable(self, caption: str) -> str | None:
        """Why nothing of a caption is left once unknown words are dropped; None where something is."""
        words = self._split(caption)
        if not words:
            return "no words" if caption.strip() else "empty"
        if self._known(words):
            return None
        return f"no known word among {few(words)}"

    def as_dict(self) -> dict[str, Any]:
        """The vocabulary as plain values, for a model file."""
        return {"tokeniser": self.tokeniser, "marks": self.marks, "words": list(self.words)}

    @classmethod
    def from_dict(cls, value: Any) -> "Vocabulary":
        """The vocabulary that ``as_dict`` gave, out of a file that is not trusted.

        :raises ModelError: code ``wrong_model``, where it is anything else.
        """
        if not isinstance(value, dict) or set(value) - {"marks"} != {"tokeniser", "words"}:
            raise _no_vocabulary("expected an object of 'tokeniser' and 'words'")
        tokeniser, words, marks = value["tokeniser"], value["words"], value.get("marks", False)
        if not isinstance(marks, bool):
            raise _no_vocabulary(f"its 'marks' is {quoted(str(marks), 50)}, neither true nor false")
        if not isinstance(tokeniser, str) or tokeniser not in TOKENISERS:
            raise _no_vocabulary(f"its tokeniser is {quoted(str(tokeniser), 50)}, not one of {', '.join(TOKENISERS)}")
        if not isinstance(words, list) or not 1 <= len(words) <= MOST_WORDS:
            raise _no_vocabulary(f"its words are not a list of 1 to {MOST_WORDS:,}")
        for index, word in enumerate(words, start=1):
            if not isinstance(word, str) or not 0 < len(word) <= MOST_WORD_BYTES or not is_text(word):
                raise _no_vocabulary(f"its word {index} is {quoted(str(word), 50)}, not a word")
        if len(set(words)) < len(words):
            raise _no_vocabulary("it has a word twice")
        return cls(words, tokeniser, marks=marks)


def _no_vocabulary(problem: str) -> ModelError:
    return ModelError(f"not a vocabulary: {problem}; train the model again", code="wrong_model")


def unusable(captions: Iterable[str], vocabulary: Vocabulary) -> list[tuple[int, str]]:
    """The captions of which no word is left, each as its index in the list and the reason.

    A text tower has nothing to say of them: whoever trains or evaluates refuses them, or counts what is left out.
    """
    reasons = ((index, vocabulary.why_unusable(caption)) for index, caption in enumerate(captions))
    return [(index, reason) for index, reason in reasons if reason is not None]
