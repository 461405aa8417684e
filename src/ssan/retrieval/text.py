"""Captions as numbers: tokenising and vocabularies."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers.models import WordLevel

from ssan.errors import ModelError, UsageError, few, unknown
from ssan.files import is_text

# The largest published vocabularies have about 3 million words; word2vec's and GloVe's longest words some 1,000 bytes.
MOST_WORDS = 10_000_000
MOST_WORD_BYTES = 10_000


# ----------------------------------------------------------------------------------------------------- tokenising

_WORD = re.compile(r"[\w']+")


def _words_as_written(caption: str) -> list[str]:
    """The words of a caption as reference 22 takes them: letters, digits, underscores and apostrophes, as written.

    >>> _words_as_written("A man's 'best' Dog, 2 times")
    ['A', "man's", "'best'", 'Dog', '2', 'times']
    """
    return _WORD.findall(caption)


def _words_in_lower_case(caption: str) -> list[str]:
    """The same in lower case, with apostrophes only inside a word, where the typographic one is taken for the plain.

    >>> _words_in_lower_case("A man’s 'best' Dog ' '")
    ['a', "man's", 'best', 'dog']
    """
    words = (word.strip("'").lower() for word in _WORD.findall(caption.replace("\u2019", "'")))
    return [word for word in words if word]


TOKENISERS: dict[str, Callable[[str], list[str]]] = {
    "howto100m": _words_as_written,
    "lower": _words_in_lower_case,
}


def word_counts(captions: Iterable[str], tokeniser: str) -> Counter[str]:
    """How often each word stands in all captions together."""
    split = _tokeniser(tokeniser)
    return Counter(word for caption in captions for word in split(caption))


def _tokeniser(name: str) -> Callable[[str], list[str]]:
    if name not in TOKENISERS:
        raise UsageError(unknown("tokeniser", name, TOKENISERS))
    return TOKENISERS[name]


# --------------------------------------------------------------------------------------------------- vocabularies


@dataclass(frozen=True)
class Dropped:
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
    :raises UsageError: an unknown tokeniser, a word twice, an empty word, or none at all.
    """

    def __init__(self, words: Iterable[str], tokeniser: str) -> None:
        self.tokeniser = tokeniser
        self._split = _tokeniser(tokeniser)
        self.words = tuple(words)
        if not self.words:
            raise UsageError("a vocabulary without words; give at least one", code="empty")
        # The empty word, which no tokeniser makes, stands for padding and for whatever is not known.
        indices = {"": 0}
        for index, word in enumerate(self.words, start=1):
            if indices.setdefault(word, index) != index:
                problem = f"{word!r} stands twice" if word else "the empty word"
                raise UsageError(f"{problem} in a vocabulary, at index {index}; give distinct words")
        self._model = WordLevel(indices, unk_token="")

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
        return isinstance(word, str) and word != "" and is_text(word) and self._model.token_to_id(word) is not None

    def _known(self, words: list[str]) -> list[int]:
        """Indices of those words that are known."""
        # Looked up one by one: the library's own batches build an object for each caption, and take five times as long.
        index = self._model.token_to_id
        return [found for word in words if (found := index(word))]

    def encode(self, captions: Sequence[str], max_words: int) -> np.ndarray:
        """Captions as indices, int64 (n, max_words): the first ``max_words`` known words of each, then zeros.

        Unknown words are dropped, as in reference 22, and take no place; ``dropped`` counts them. ``unusable`` finds
        the captions of which nothing is left, whose row is all zeros here.
        """
        if max_words < 1:
            raise UsageError(f"max_words is {max_words}; a caption needs room for at least 1 word")
        out = np.zeros((len(captions), max_words), np.int64)
        for row, caption in zip(out, captions, strict=True):
            known = self._known(self._split(caption))[:max_words]
            row[: len(known)] = known
        return out

    def dropped(self, captions: Iterable[str], max_words: int) -> Dropped:
        """How many words ``encode`` drops: unknown ones, and known ones beyond ``max_words`` in their caption."""
        num_words = num_unknown = num_beyond = 0
        for caption in captions:
            words = self._split(caption)
            num_known = len(self._known(words))
            num_words += len(words)
            num_unknown += len(words) - num_known
            num_beyond += max(0, num_known - max_words)
        return Dropped(num_words, num_unknown, num_beyond)

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
        return {"tokeniser": self.tokeniser, "words": list(self.words)}

    @classmethod
    def from_dict(cls, value: Any) -> "Vocabulary":
        """The vocabulary that ``as_dict`` gave, out of a file that is not trusted.

        :raises ModelError: code ``wrong_model``, where it is anything else.
        """
        if not isinstance(value, dict) or set(value) != {"tokeniser", "words"}:
            raise _no_vocabulary("expected an object of 'tokeniser' and 'words'")
        tokeniser, words = value["tokeniser"], value["words"]
        if not isinstance(tokeniser, str) or tokeniser not in TOKENISERS:
            raise _no_vocabulary(f"its tokeniser is {str(tokeniser)[:50]!r}, not one of {', '.join(TOKENISERS)}")
        if not isinstance(words, list) or not 1 <= len(words) <= MOST_WORDS:
            raise _no_vocabulary(f"its words are not a list of 1 to {MOST_WORDS:,}")
        for index, word in enumerate(words, start=1):
            if not isinstance(word, str) or not 0 < len(word) <= MOST_WORD_BYTES or not is_text(word):
                raise _no_vocabulary(f"its word {index} is {str(word)[:50]!r}, not a word")
        if len(set(words)) < len(words):
            raise _no_vocabulary("it has a word twice")
        return cls(words, tokeniser)


def _no_vocabulary(problem: str) -> ModelError:
    return ModelError(f"not a vocabulary: {problem}; train the model again", code="wrong_model")


def unusable(captions: Iterable[str], vocabulary: Vocabulary) -> list[tuple[int, str]]:
    """The captions of which no word is left, each as its place in the list and the reason.

    A text tower has nothing to say of them: whoever trains or evaluates refuses them, or counts what is left out.
    """
    reasons = ((index, vocabulary.why_unusable(caption)) for index, caption in enumerate(captions))
    return [(index, reason) for index, reason in reasons if reason is not None]
