"""Matrices of scores on disk, of any model, and their metrics: ``ssan retrieval eval --scores S.npy --truth T.csv``."""

import math
import os
import tokenize
import warnings
from typing import Any

import numpy as np

from ssan.datasets.tables import fault, number_of, table_with_header
from ssan.errors import UsageError, on_one_line, quoted
from ssan.retrieval.metrics import INTERVAL, TIE_RULE, Positives, answer, ranks

COLUMNS = ("query_row", "video_column")
FORM = "a .npy file of floating-point scores, one row a text and one column a video"


def evaluate_matrix(scores_path: str, truth_path: str, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The answer of ``ssan retrieval eval`` for a matrix and what is right in it.

    :param scores_path: (n, m) float16, float32 or float64, in C's or Fortran's order; it is mapped, not loaded.
    :param truth_path: a table with the columns ``query_row`` and ``video_column``, both counted from 0; a row of the
        matrix can have several lines: the best ranked of its columns counts. A column that no line names is a
        candidate of every text, and asks nothing itself; these are counted as ``num_left_out`` of ``video_to_text``.
    :param bootstrap: number of draws behind the intervals; 0 for none.
    :raises UsageError: the matrix is missing, damaged, of another kind, or has scores that are not finite.
    :raises AnnotationError: the table has a line that is not as expected, or none for some row of the matrix.
    """
    scores = open_matrix(scores_path)
    positives = read_truth(truth_path, *scores.shape)
    figures = answer(ranks(scores, positives, path=scores_path), positives, bootstrap=bootstrap, seed=seed)
    protocol = {
        "captions": truth_path, "positives": "truth", "tie_rule": TIE_RULE, "scores": scores_path,
        "bootstrap": bootstrap, "interval": INTERVAL, "seed": seed,
    }  # fmt: skip
    return {**figures, "num_missing": 0, "protocol": protocol}


def open_matrix(path: str) -> np.ndarray:
    """Map a matrix of scores (n, m) for reading; what its header promises is held against the file first."""
    if not os.path.isfile(path):
        what = "not a file" if os.path.exists(path) else "no such file"
        raise UsageError(f"{what}; expected {FORM}", code="missing", path=path)
    try:
        with open(path, "rb") as handle:
            (shape, in_columns, dtype), begin = _header(handle), handle.tell()
            num_bytes = os.fstat(handle.fileno()).st_size - begin
    except OSError as problem:
        raise UsageError(f"it cannot be read ({problem.strerror}); look at its permissions", path=path) from None
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, OverflowError) as why:
        # What numpy and Python's parser raise for headers that are none.
        reason = on_one_line(why)
        raise _foreign(path, f"damaged or of another kind ({reason})") from None
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8) or len(shape) != 2:
        what = "pickled objects, which are not read" if dtype.hasobject else f"{dtype} of {len(shape)} axes"
        raise _foreign(path, f"it holds {what}")
    if 0 in shape:
        raise UsageError(f"a matrix of {shape[0]} x {shape[1]} scores; expected one or more", code="empty", path=path)
    promised = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or promised < num_bytes:
        raise _foreign(path, f"the header says {shape} of {dtype}, {promised:,} bytes, and {num_bytes:,} follow")
    if promised > num_bytes:
        raise UsageError(
            f"cut off: the header promises {shape[0]} x {shape[1]} scores of {dtype}, {promised:,} bytes, and "
            f"{num_bytes:,} follow; copy the file again",
            code="truncated",
            path=path,
        )
    return np.memmap(path, dtype, "r", begin, shape, "F" if in_columns else "C")


def _header(handle: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a file that Python 2 wrote takes numpy a second try
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(handle)


def _foreign(path: str, problem: str) -> UsageError:
    return UsageError(f"{problem}; expected {FORM}, as numpy.save writes it", code="bad_annotation", path=path)


def read_truth(path: str, num_queries: int, num_candidates: int) -> Positives:
    """What is right in a matrix (num_queries, num_candidates), from a table of its rows and columns.

    :raises AnnotationError: a value is no number or lies outside the matrix, a line stands twice, or a row has none.
    """
    line_of: dict[tuple[int, ...], int] = {}
    for line, row in table_with_header(path, COLUMNS):
        pair = []
        for column, num in zip(COLUMNS, (num_queries, num_candidates), strict=True):
            number = number_of(row[column])
            if number is None or number >= num:
                raise fault(
                    f"{column} is {quoted(row[column])}; expected a whole number from 0 to {num - 1}, for the matrix "
                    f"has {num_queries} rows and {num_candidates} columns",
                    path,
                    line,
                )
            pair.append(number)
        first = line_of.setdefault(tuple(pair), line)
        if first != line:
            raise fault(
                f"row {pair[0]}, column {pair[1]} stands in line {first} too; leave out one", path, line,
                code="duplicate",
            )  # fmt: skip
    there = {query for query, _ in line_of}
    if len(there) < num_queries:
        bare = next(query for query in range(num_queries) if query not in there)
        raise fault(
            f"{num_queries - len(there)} of the {num_queries} rows of the matrix have no line (row {bare} is the "
            "first); expected at least one each: add them, or leave these rows out of the matrix",
            path,
            code="missing",
        )
    query_p, candidate_p = zip(*line_of, strict=True)
    return Positives.from_pairs(query_p, candidate_p, num_queries, num_candidates)
