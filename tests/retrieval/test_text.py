"""Captions as indices, vocabularies, and the word vectors of GloVe, fastText and word2vec in their own forms."""

import gzip
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.errors import AnnotationError, ModelError, SsanError, UsageError
from ssan.retrieval import word_vectors
from ssan.retrieval.text import TOKENISERS, DroppedWords, Vocabulary, unusable, word_counts
from ssan.retrieval.word_vectors import coverage, read_word_vectors, vocabulary_with_vectors

CAPTIONS = ["a man walks left", "a man, a dog", "The Man's dog"]


# ----------------------------------------------------------------------------------------------------- tokenising


@pytest.mark.parametrize(
    ("caption", "as_howto100m", "as_lower"),
    [
        ("A man's Dog", ["A", "man's", "Dog"], ["a", "man's", "dog"]),
        ("cut (2), don’t stir_it!", ["cut", "2", "don", "t", "stir_it"], ["cut", "2", "don't", "stir_it"]),
        ("say 'hello' ' ''", ["say", "'hello'", "'", "''"], ["say", "hello"]),
        ("crème BRÛLÉE 东京", ["crème", "BRÛLÉE", "东京"], ["crème", "brûlée", "东京"]),
        (" \n", [], []),
    ],
)  # fmt: skip
def test_a_caption_is_split_into_words(caption: str, as_howto100m: list[str], as_lower: list[str]) -> None:
    assert TOKENISERS["howto100m"](caption) == as_howto100m == re.findall(r"[\w']+", caption)
    assert TOKENISERS["lower"](caption) == as_lower


def test_words_are_counted_over_all_captions() -> None:
    assert word_counts(CAPTIONS, "lower") == {"a": 3, "man": 2, "dog": 2, "walks": 1, "left": 1, "the": 1, "man's": 1}
    with pytest.raises(UsageError, match=r"unknown tokeniser 'lowr'\. Did you mean 'lower'"):
        word_counts(CAPTIONS, "lowr")


# --------------------------------------------------------------------------------------------------- vocabularies


def test_a_vocabulary_has_the_frequent_words_first_and_equals_by_alphabet() -> None:
    words = ("a", "dog", "man", "left", "man's", "the", "walks")
    for captions in (CAPTIONS, CAPTIONS[::-1]):
        assert Vocabulary.of(captions, "lower").words == words
    assert Vocabulary.of(CAPTIONS, "lower", min_count=2).words == words[:3]
    assert Vocabulary.of(CAPTIONS, "lower", most=2).words == words[:2]
    assert Vocabulary.of(iter(CAPTIONS), "howto100m").words == ("a", "dog", "man", "Man's", "The", "left", "walks")


def test_captions_become_their_first_known_words_filled_up_with_zeros() -> None:
    vocabulary = Vocabulary(["man", "dog", "a"], "howto100m")
    found = vocabulary.encode(["a big man, a dog and a man", "Dog dog", "", "none"], 5)
    assert found.tolist() == [[3, 1, 3, 2, 3], [2, 0, 0, 0, 0], [0] * 5, [0] * 5]
    assert found.dtype == np.int64
    assert vocabulary.encode([], 5).shape == (0, 5)
    assert vocabulary.num_rows == 4


def test_what_encoding_drops_is_counted() -> None:
    vocabulary = Vocabulary(["man", "dog", "a"], "howto100m")
    assert vocabulary.dropped(["a big man, a dog and a man", "Dog dog", ""], 5) == DroppedWords(10, 3, 1)
    assert vocabulary.dropped(["a man"], 2) == DroppedWords(2, 0, 0)


def test_a_vocabulary_knows_its_words_and_not_its_padding() -> None:
    vocabulary = Vocabulary(["man", "[PAD]"], "lower")
    assert "man" in vocabulary
    assert "[PAD]" in vocabulary
    assert "" not in vocabulary
    assert "\ud800" not in vocabulary
    assert 0 not in vocabulary
    assert [] not in vocabulary
    assert vocabulary.encode(["man man"], 3).tolist() == [[1, 1, 0]]


def test_captions_of_which_nothing_is_left_are_found() -> None:
    captions = ["", "a man", " \n", "Man, x", "?!", "A b c d"]
    assert unusable(captions, Vocabulary(["a", "man"], "howto100m")) == [
        (0, "empty"),
        (2, "empty"),
        (3, "no known word among 'Man', 'x'"),
        (4, "no words"),
        (5, "no known word among 'A', 'b', 'c', ..."),
    ]


def test_a_vocabulary_goes_through_a_model_file() -> None:
    vocabulary = Vocabulary.of(CAPTIONS, "lower")
    again = Vocabulary.from_dict(vocabulary.as_dict())
    assert (again.words, again.tokeniser) == (vocabulary.words, "lower")
    again = pickle.loads(pickle.dumps(again))  # and to the processes that load data
    assert np.array_equal(again.encode(CAPTIONS, 7), vocabulary.encode(CAPTIONS, 7))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "an object of"),
        ({"tokeniser": "lower"}, "an object of"),
        ({"tokeniser": "lower", "words": ["a"], "more": 1}, "an object of"),
        ({"tokeniser": "upper", "words": ["a"]}, "its tokeniser is 'upper'"),
        ({"tokeniser": [], "words": ["a"]}, "its tokeniser is"),
        ({"tokeniser": "lower", "words": []}, "a list of 1 to"),
        ({"tokeniser": "lower", "words": "ab"}, "a list of 1 to"),
        ({"tokeniser": "lower", "words": ["a", 3]}, "its word 2 is '3'"),
        ({"tokeniser": "lower", "words": ["a", ""]}, "its word 2 is ''"),
        ({"tokeniser": "lower", "words": ["a", "\ud800"]}, "its word 2"),
        ({"tokeniser": "lower", "words": ["a" * 10_001]}, "its word 1"),
        ({"tokeniser": "lower", "words": ["a", "b", "a"]}, "a word twice"),
    ],
)
def test_what_is_no_vocabulary_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Vocabulary.from_dict(value)
    assert caught.value.code == "wrong_model"


def test_vocabularies_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(UsageError, match="'a' stands twice in a vocabulary, at index 3"):
        Vocabulary(["a", "b", "a"], "lower")
    with pytest.raises(UsageError, match="the empty word in a vocabulary, at index 2"):
        Vocabulary(["a", ""], "lower")
    with pytest.raises(UsageError, match="in a vocabulary, at index 2, is no text"):
        Vocabulary(["a", "\ud800"], "lower")
    with pytest.raises(UsageError, match="without words"):
        Vocabulary([], "lower")
    with pytest.raises(UsageError, match=r"at least 4 times in them \(7 distinct words\)"):
        Vocabulary.of(CAPTIONS, "lower", min_count=4)
    with pytest.raises(UsageError, match="max_words is 0"):
        Vocabulary(["a"], "lower").encode(["a"], 0)


# --------------------------------------------------------------------------------------------------- word vectors

VECTORS = {"the": [0.5, -1.25, 3.0], "man": [1e-3, 2.0, -0.0], "crème": [7.0, 8.0, 9.5], "New_York": [0.25, 0.5, 1.0]}


def glove(vectors: dict[str, list[float]]) -> bytes:
    return "".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in vectors.items()).encode()


def fasttext(vectors: dict[str, list[float]]) -> bytes:
    lines = glove(vectors).replace(b"\n", b" \n")  # its lines end with a blank
    return f"{len(vectors)} {len(next(iter(vectors.values())))}\n".encode() + lines


def word2vec(vectors: dict[str, list[float]], end: bytes = b"") -> bytes:
    dim = len(next(iter(vectors.values())))
    entries = (word.encode() + b" " + struct.pack(f"<{dim}f", *row) + end for word, row in vectors.items())
    return f"{len(vectors)} {dim}\n".encode() + b"".join(entries)


FORMS: dict[str, Callable[[dict[str, list[float]]], bytes]] = {
    "glove": glove,
    "fasttext": fasttext,
    "word2vec": word2vec,
    "word2vec_lines": lambda vectors: word2vec(vectors, b"\n"),
    "glove_crlf": lambda vectors: glove(vectors).replace(b"\n", b"\r\n"),
    "fasttext_mark": lambda vectors: b"\xef\xbb\xbf" + fasttext(vectors),
    "glove_mark": lambda vectors: b"\xef\xbb\xbf" + glove(vectors),
    "glove_no_last_end": lambda vectors: glove(vectors)[:-1],
}


def pack(path: Path, content: bytes, packing: str) -> Path:
    if packing == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside.txt", content)
    else:
        path.write_bytes(gzip.compress(content) if packing == "gz" else content)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packing", ["plain", "gz", "zip"])
def test_every_form_is_told_by_its_content_and_read_as_it_is(tmp_path: Path, form: str, packing: str) -> None:
    path = pack(tmp_path / "vectors", FORMS[form](VECTORS), packing)
    found = read_word_vectors(path)
    assert found.words == list(VECTORS)
    assert np.array_equal(found.matrix, np.array(list(VECTORS.values()), np.float32))
    assert found.matrix.dtype == np.float32
    assert (found.dim, found.num_read, found.source) == (3, 4, str(path))
    assert found.num_promised == (None if form.startswith("glove") else 4)


@pytest.mark.parametrize("form", FORMS)
def test_only_wanted_words_are_kept_in_the_files_order(tmp_path: Path, form: str) -> None:
    path = pack(tmp_path / "vectors", FORMS[form](VECTORS), "plain")
    found = read_word_vectors(path, wanted=["New_York", "other", "man", "\ud800"])
    assert found.words == ["man", "New_York"]
    assert found.matrix.tolist() == np.array([VECTORS["man"], VECTORS["New_York"]], np.float32).tolist()
    assert found.num_read == 4
    assert read_word_vectors(path, wanted=["other"]).matrix.shape == (0, 3)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_first_entries_are_read_when_told_so(tmp_path: Path, form: str) -> None:
    path = pack(tmp_path / "vectors", FORMS[form](VECTORS), "plain")
    assert read_word_vectors(path, most=2).words == ["the", "man"]
    found = read_word_vectors(path, wanted={"man", "New_York"}, most=2)
    assert (found.words, found.num_read) == (["man"], 2)


def test_words_may_hold_blanks(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_bytes(
        glove({"the": [1.0, 2.0], ". . .": [3.0, 4.0], "at name@domain.com": [5.0, 6.0], "at": [7.0, 8.0]})
    )
    assert read_word_vectors(path).words == ["the", ". . .", "at name@domain.com", "at"]
    found = read_word_vectors(path, wanted={"at", "."})
    assert (found.words, found.matrix.tolist()) == (["at"], [[7.0, 8.0]])
    assert read_word_vectors(path, wanted={". . ."}).matrix.tolist() == [[3.0, 4.0]]


def test_a_word_that_is_a_number_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_bytes(glove({"1": [1.0, 2.0], "0.5": [3.0, 4.0], "nan": [5.0, 6.0]}))
    assert read_word_vectors(path).words == ["1", "0.5", "nan"]


@pytest.mark.parametrize("form", FORMS)
def test_of_a_word_given_twice_the_first_counts(tmp_path: Path, form: str) -> None:
    twice = FORMS[form](VECTORS | {"xxx": [1.0, 1.0, 1.0]}).replace(b"xxx", b"man")
    found = read_word_vectors(pack(tmp_path / "vectors", twice, "plain"))
    assert (found.words, found.num_repeated, found.num_read) == (list(VECTORS), 1, 5)
    assert found.matrix[1].tolist() == np.array(VECTORS["man"], np.float32).tolist()


@pytest.mark.parametrize("form", FORMS)
def test_words_that_no_caption_can_hold_are_counted_and_left_out(tmp_path: Path, form: str) -> None:
    odd = VECTORS | {"xxx": [1.0, 1.0, 1.0], "": [2.0, 2.0, 2.0]}
    path = pack(tmp_path / "vectors", FORMS[form](odd).replace(b"xxx", b"\xff\xfe\xfd"), "plain")
    found = read_word_vectors(path)
    assert (found.words, found.num_nameless, found.num_read) == (list(VECTORS), 2, 6)
    assert read_word_vectors(path, wanted={"man"}).num_nameless == 2


@pytest.mark.parametrize("form", ["glove", "fasttext"])
@pytest.mark.parametrize("wanted", [None, {"man"}, {"other"}])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"word 1.0 2.0", "'word' has 2 numbers, where others have 3"),
        (b"word 1.0 2.0 3.0 4.0", "'word' has 4 numbers, where others have 3"),
        (b"word", "'word' has 0 numbers, where others have 3"),
        (b"\n", "a blank line between words"),
        (b"x" * 1_000_001, "a line of more than 1,000,000 bytes"),
    ],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, form: str, wanted: set[str] | None, line: bytes, message: str
) -> None:
    lines = FORMS[form](VECTORS).splitlines(keepends=True)
    lines.insert(-1, line.rstrip() + b"\n")
    path = pack(tmp_path / "vectors", b"".join(lines), "plain")
    with pytest.raises(AnnotationError, match=message) as caught:
        read_word_vectors(path, wanted=wanted)
    assert (caught.value.line, caught.value.code) == (len(lines) - 1, "bad_annotation")
    assert caught.value.path == str(path)


@pytest.mark.parametrize("number", [b"1.0x", b"1_0", b"", b"--1"])
def test_what_is_no_number_is_named(tmp_path: Path, number: bytes) -> None:
    path = pack(tmp_path / "vectors", glove(VECTORS) + b"word 1.0 " + number + b" 2.0\n", "plain")
    with pytest.raises(AnnotationError, match=f"'{number.decode()}' is no number, in the vector of 'word'") as caught:
        read_word_vectors(path)
    assert caught.value.line == 5
    assert read_word_vectors(path, wanted={"man"}).words == ["man"]  # of what is not wanted nothing is parsed


@pytest.mark.parametrize(
    ("form", "value"),
    [(form, float(value)) for form in ("glove", "fasttext", "word2vec") for value in ("nan", "inf", "-inf")]
    + [("glove", 1e39)],  # more than a float32 holds
)
def test_values_that_are_not_finite_are_refused(tmp_path: Path, form: str, value: float) -> None:
    path = pack(tmp_path / "vectors", FORMS[form](VECTORS | {"bad": [1.0, value, 2.0]}), "plain")
    with pytest.raises(
        AnnotationError, match=r"the vector of 'bad' \(word 5\) has a value that is not finite"
    ) as caught:
        read_word_vectors(path, wanted={"bad"})
    assert caught.value.code == "nan"
    assert caught.value.line == {"glove": 5, "fasttext": 6, "word2vec": None}[form]


@pytest.mark.parametrize("cut", [1, 11, 13])
@pytest.mark.parametrize("wanted", [None, {"other"}])
def test_a_binary_file_that_is_cut_short_is_refused_with_the_number_of_the_word(
    tmp_path: Path, cut: int, wanted: set[str] | None
) -> None:
    path = pack(tmp_path / "v.bin", word2vec(VECTORS)[:-cut], "plain")
    with pytest.raises(AnnotationError, match="it ends in word 4 of 4") as caught:
        read_word_vectors(path, wanted=wanted)
    assert caught.value.code == "truncated"
    assert read_word_vectors(path, most=3).words == list(VECTORS)[:3]


def test_a_binary_file_that_goes_on_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "v.bin", word2vec(VECTORS) + b"more", "plain")
    with pytest.raises(AnnotationError, match="it goes on after its 4 words"):
        read_word_vectors(path)


def test_a_binary_file_is_read_across_the_blocks_it_is_read_in(tmp_path: Path) -> None:
    """5,003 words of 67 numbers are 1.4 million bytes, more than a block; vectors there have blanks and line ends."""
    rows = np.random.default_rng(0).integers(0, 255, (5003, 4 * 67), np.uint8).view("<f4")
    rows = np.where(np.isfinite(rows), rows, 1.0).astype("<f4")
    vectors = {f"w{i}": row.tolist() for i, row in enumerate(rows)}
    for end in (b"", b"\n"):
        found = read_word_vectors(pack(tmp_path / "v.bin", word2vec(vectors, end), "plain"))
        assert found.words == list(vectors)
        assert np.array_equal(found.matrix, rows)


def test_a_text_file_may_end_before_its_headers_count(tmp_path: Path) -> None:
    content = fasttext(VECTORS).replace(b"4 3\n", b"2519370 3\n")
    found = read_word_vectors(pack(tmp_path / "wiki.vec", content, "plain"))
    assert (found.num_read, found.num_promised) == (4, 2519370)


def test_one_of_several_files_of_an_archive_is_named_after_it(tmp_path: Path) -> None:
    path = tmp_path / "glove.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("glove.2d.txt", glove({"the": [1.0, 2.0]}))
        archive.writestr("sub/glove.3d.txt", glove(VECTORS))
        archive.writestr("__MACOSX/sub/glove.3d.txt", b"junk")
    assert read_word_vectors(path / "sub" / "glove.3d.txt").dim == 3
    assert read_word_vectors(f"{path}/glove.2d.txt").dim == 2
    advice = r"2 files: 'glove.2d.txt', 'sub/glove.3d.txt'; .* as in glove.zip/glove.2d.txt"
    with pytest.raises(UsageError, match=advice):
        read_word_vectors(path)
    with pytest.raises(UsageError, match=r"has no 'glove\.4d\.txt'; it has"):
        read_word_vectors(path / "glove.4d.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no word vectors"),
        (b"4 3\n", "no word vectors in it"),
        (b"\x93NUMPY\x01\x00", "no word vectors"),
        (struct.pack("<i", 793712314) + b"\x0c\x00\x00\x00", "not its .bin, a whole model"),
        (b"hello world\n", "no word vectors"),
        (b"4 0\n", "vectors of 0 numbers; expected 1 to 10,000"),
        (b"4 999999\n", "vectors of 999999 numbers"),
        (b"1 3\n" + b"\0" * 10_002, "word 1 has more than 10,000 bytes"),
        (b"PK\x03\x04junk", "it cannot be unpacked"),
        (gzip.compress(glove(VECTORS), mtime=0)[:-12], "it ends in the middle of what is packed"),
        (b"\x1f\x8bjunk and more", "it cannot be unpacked"),
    ],
)
def test_what_is_no_file_of_word_vectors_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SsanError, match=message):
        read_word_vectors(pack(tmp_path / "vectors", content, "plain"))


def test_a_file_that_is_not_there_and_one_that_is_no_archive_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; expected word vectors"):
        read_word_vectors(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="no such file"):
        read_word_vectors(tmp_path)
    pack(tmp_path / "glove.txt", glove(VECTORS), "plain")
    with pytest.raises(UsageError, match=r"glove.txt is not an archive"):
        read_word_vectors(tmp_path / "glove.txt" / "inside")


def test_more_vectors_than_memory_should_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_vectors, "MOST_MATRIX_BYTES", 24)
    path = pack(tmp_path / "vectors", glove(VECTORS), "plain")
    with pytest.raises(AnnotationError, match="say which words are wanted"):
        read_word_vectors(path)
    assert read_word_vectors(path, wanted={"man", "the"}).words == ["the", "man"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "dim", "num_read", "first"),
    [
        ("glove.6B.zip/glove.6B.50d.txt", 50, 1, ["the"]),
        ("glove.6B.zip/glove.6B.300d.txt", 300, 1, ["the"]),
        ("glove.840B.300d.zip", 300, 100, [",", ".", "the", "and", "to"]),
        ("wiki.en.vec", 300, 99, [",", ".", "the", "</s>", "of"]),
    ],
)
def test_the_beginnings_of_published_files_are_read(
    shared: Path, name: str, dim: int, num_read: int, first: list[str]
) -> None:
    found = read_word_vectors(shared / "weights" / "word_vectors" / name)
    assert (found.dim, found.num_read, found.words[: len(first)]) == (dim, num_read, first)
    assert found.matrix.shape == (num_read, dim)
    assert 0.1 < found.matrix.std() < 1


# ------------------------------------------------------------------------------------- vectors for a vocabulary


def test_coverage_of_distinct_and_of_running_words() -> None:
    """Of 7 distinct words 3 have a vector, of 11 running ones 3 + 2 + 1."""
    found = coverage(word_counts(CAPTIONS, "lower"), ["man", "a", "left", "other"], most=3)
    assert (found.num_distinct, found.num_distinct_covered) == (7, 3)
    assert (found.num_running, found.num_running_covered) == (11, 6)
    assert (found.of_distinct, found.of_running) == (3 / 7, 6 / 11)
    assert found.missing == [("dog", 2), ("man's", 1), ("the", 1)]
    assert coverage({}, ["a"]).of_running == 0


def three_vectors(tmp_path: Path) -> Path:
    path = tmp_path / "v.txt"
    path.write_text("left 1 2\nx 3 4\ndog 5 6\n")
    return path


@pytest.mark.parametrize(("most", "beside"), [(3, ["x"]), (2, ["x"]), (1, [])])
def test_the_matrix_has_a_row_of_zeros_and_then_that_of_each_word(tmp_path: Path, most: int, beside: list[str]) -> None:
    counts = {"man": 3, "left": 1, "dog": 2}
    vocabulary, matrix, told = vocabulary_with_vectors(counts, "lower", three_vectors(tmp_path), most=most)
    assert vocabulary.words == ("dog", "left", *beside)
    assert matrix.tolist() == [[0, 0], [5, 6], [1, 2], *([3, 4] for _ in beside)]
    assert matrix.dtype == np.float32
    # A word without a vector is dropped from every caption, and takes no place.
    assert vocabulary.encode(["the man, left dog"], 3).tolist() == [[2, 1, 0]]
    assert (told.num_distinct, told.num_distinct_covered, told.missing) == (3, 2, [("man", 3)])


def test_vectors_of_none_of_the_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none of the 1 words of the captions \('Dog'\) has a vector in .*v.txt"):
        vocabulary_with_vectors({"Dog": 1}, "howto100m", three_vectors(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["gz", "zip"])
def test_vectors_that_unpack_without_end_are_refused(tmp_path: Path, packing: str) -> None:
    content, path = b"the 1 2\n" + (b" " * 4999 + b"\n") * 4000, tmp_path / "vectors"
    if packing == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("vectors.txt", content)
    else:
        path.write_bytes(gzip.compress(content))
    with pytest.raises(AnnotationError, match="more than 100 times its size"):
        read_word_vectors(path)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("दो लाल गेंदें बाईं ओर", ["दो", "लाल", "गेंदें", "बाईं", "ओर"]),
        ("একটি লাল বল", ["একটি", "লাল", "বল"]),
        ("كِتَابٌ جَدِيدٌ", ["كِتَابٌ", "جَدِيدٌ"]),
        ("ng\u01b0\u01a1\u0300i \u0111a\u0300n o\u0302ng", ["ng\u01b0\u1eddi", "\u0111\u00e0n", "\u00f4ng"]),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]),
        ("\u2764\ufe0f \u0301 1\ufe0f\u20e3 ok", ["1", "ok"]),  # signs and marks on nothing are no words
    ],
)
@pytest.mark.parametrize("tokeniser", TOKENISERS)
def test_letters_keep_the_marks_on_them(caption: str, words: list[str], tokeniser: str) -> None:
    assert TOKENISERS[tokeniser](caption) == words
    assert Vocabulary.of([caption], tokeniser).encode([caption], 9).astype(bool).sum() == len(words)


def test_composed_and_decomposed_letters_are_the_same_words() -> None:
    vocabulary = Vocabulary.of(["café"], "lower")
    assert vocabulary.encode(["cafe\u0301"], 3).tolist() == [[1, 0, 0]]


def test_a_vocabulary_of_before_cuts_words_as_it_was_trained() -> None:
    known = {"tokeniser": "lower", "words": ["गें", "ग", "द", "दें"]}
    before = Vocabulary.from_dict(known)
    assert before.encode(["गेंदें"], 4).tolist() == [[2, 3, 0, 0]]
    assert Vocabulary.from_dict(before.as_dict()).encode(["गेंदें"], 4).tolist() == [[2, 3, 0, 0]]
    now = Vocabulary.from_dict({**known, "marks": True, "words": ["गेंदें"]})
    assert now.encode(["गेंदें"], 4).tolist() == [[1, 0, 0, 0]]
    with pytest.raises(ModelError, match="'marks'"):
        Vocabulary.from_dict({**known, "marks": 1})
