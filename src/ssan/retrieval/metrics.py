"""Ranks and recalls of a matrix of scores, one row a text and one column a video, in both directions at once.

A tie counts against the model: the rank of what is right is the worst that it can have among equal scores. A model that
scores everything alike thus has recall 0, not 1, and no order of the candidates has a part in any figure.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ssan.errors import UsageError, few, unknown
from ssan.training.metrics import interval_at_the_end

TIE_RULE = "pessimistic"
INTERVAL = "bootstrap over videos; Clopper-Pearson over videos where all or none count"
Rule = Literal["own", "same_caption"]
"""Which videos are right for a caption: the one that it was written for, or all that have this very caption."""

# Measured on 20,000 columns of float32 (benchmarks/speed/score_matrix.py): pieces that stay in the processor's own
# memory.
_PIECE_SCORES = 320_000
_MOST_PIECE_ROWS = 255  # the most that a counter of one byte can hold
_PRODUCT_SCORES = 4_000_000
_DRAWN_COUNTS = 1 << 21
_SHARES = {"r1": 1, "r5": 5, "r10": 10}


# --------------------------------------------------------------------------------------------------- what is right


@dataclass(frozen=True, eq=False)
class Positives:
    """Which candidates are right for which query: pairs, each once, ordered by query and then by candidate.

    :param query_p: rows of the matrix of scores, each at least once.
    :param candidate_p: columns of it; one that no pair names is a candidate all the same.
    """

    query_p: np.ndarray
    candidate_p: np.ndarray
    num_queries: int
    num_candidates: int

    @classmethod
    def from_pairs(
        cls, query_p: Sequence[int] | np.ndarray, candidate_p: Sequence[int] | np.ndarray, num_queries: int,
        num_candidates: int,
    ) -> "Positives":  # fmt: skip
        """Order pairs and check them.

        :raises UsageError: a pair lies outside the matrix, or a query has no candidate that is right.
        """
        pairs = np.stack([np.asarray(query_p, dtype=np.int64), np.asarray(candidate_p, dtype=np.int64)], axis=1)
        for column, (kind, num) in enumerate([("query", num_queries), ("candidate", num_candidates)]):
            outside = pairs[(pairs[:, column] < 0) | (pairs[:, column] >= num), column]
            if len(outside):
                raise UsageError(f"{kind} {outside[0]} is named; expected 0 to {num - 1}", code="bad_annotation")
        pairs = np.unique(pairs, axis=0)
        bare = np.flatnonzero(np.bincount(pairs[:, 0], minlength=num_queries) == 0)
        if len(bare):
            raise UsageError(
                f"{len(bare)} of {num_queries} queries have no candidate that is right (query {bare[0]} is the first); "
                "expected at least one each: leave out these queries",
                code="bad_annotation",
            )
        return cls(pairs[:, 0], pairs[:, 1], num_queries, num_candidates)

    @classmethod
    def from_sets(cls, candidates_of: Sequence[Collection[int]], num_candidates: int) -> "Positives":
        """The same from the candidates that are right for each query."""
        query_p = [query for query, candidates in enumerate(candidates_of) for _ in candidates]
        candidate_p = [candidate for candidates in candidates_of for candidate in candidates]
        return cls.from_pairs(query_p, candidate_p, len(candidates_of), num_candidates)


def positives_by(
    rule: Rule, captions: Sequence[str], videos: Sequence[str], candidates: Sequence[str]
) -> tuple[Positives, int]:
    """Which candidates are right for each caption, by a rule; and how many captions another video has too.

    For these alone the rules differ. Captions are the same where they are letter by letter. In the other direction any
    caption that is right for a video counts, the best ranked.

    :param rule: "own": the video that the caption was written for, the usual way; "same_caption": all videos with it.
    :param captions: the queries.
    :param videos: which video each caption was written for.
    :param candidates: the videos in the order of the columns, each once.
    :raises UsageError: the rule is not known, a video is no candidate, or a candidate stands twice.
    """
    if rule not in get_args(Rule):
        raise UsageError(unknown("rule for positives", rule, get_args(Rule)))
    column_of = {video: column for column, video in enumerate(candidates)}
    if len(column_of) < len(candidates):
        twice = [video for video, num in Counter(candidates).items() if num > 1]
        raise UsageError(
            f"{len(twice)} videos stand more than once among the candidates ({few(twice)}); expected each once",
            code="duplicate",
        )
    strangers = list(dict.fromkeys(video for video in videos if video not in column_of))
    if strangers:
        raise UsageError(
            f"{len(strangers)} videos have captions and are no candidates ({few(strangers)}); leave out their captions",
            code="missing",
        )
    columns_with: dict[str, set[int]] = {}
    for caption, video in zip(captions, videos, strict=True):
        columns_with.setdefault(caption, set()).add(column_of[video])
    num_repeated = sum(len(columns_with[caption]) > 1 for caption in captions)
    if rule == "same_caption":
        return Positives.from_sets([columns_with[caption] for caption in captions], len(candidates)), num_repeated
    own = [column_of[video] for video in videos]
    return Positives.from_pairs(range(len(own)), own, len(own), len(candidates)), num_repeated


# ----------------------------------------------------------------------------------------------------------- ranks


@dataclass(frozen=True, eq=False)
class Direction:
    """The ranks of one direction.

    :param ranks: of each query, counted from 1: of the best ranked among the candidates that are right for it.
    :param queries: which rows (columns, from video to text) asked: those for which something is right.
    :param num_ties: queries where a candidate that is not right has exactly the score of the best that is.
    :param num_left_out: videos that no text is of; they ask nothing.
    """

    ranks: np.ndarray
    queries: np.ndarray
    num_ties: int
    num_left_out: int


@dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks of both directions."""

    text_to_video: Direction
    video_to_text: Direction


def ranks(scores: np.ndarray, positives: Positives, *, path: str | None = None) -> Ranks:
    """The rank of what is right for each text among the videos, and for each video among the texts.

    The rank of a query is 1 + the number of candidates that are not right for it and score at least as high as the best
    ranked that is. The matrix is read once, a few rows at a time, or columns where these lie together, so that of one
    mapped from a file little is held at a time.

    :param scores: (n, m), floating-point numbers, row a text, column a video.
    :param path: of the matrix, for messages.
    :raises UsageError: a score is NaN or infinite; code ``nan``.
    """
    shape = (positives.num_queries, positives.num_candidates)
    if scores.shape != shape or scores.dtype.kind != "f":
        raise ValueError(f"expected floating-point scores {shape}; got {scores.dtype} {scores.shape}")
    turned = scores.flags.f_contiguous and not scores.flags.c_contiguous
    dtype = np.dtype(np.float64 if scores.dtype.itemsize > 4 else np.float32)
    scores = np.asarray(scores)  # no numpy.memmap, whose parts are slower to make
    own_p = scores[positives.query_p, positives.candidate_p].astype(dtype)

    def blocks() -> Iterator[np.ndarray]:
        yield scores.T if turned else scores

    return _rank(blocks, own_p, positives, turned=turned, path=path)


def from_embeddings(text_nd: np.ndarray, video_md: np.ndarray, positives: Positives) -> Ranks:
    """As ``ranks`` of the matrix ``text_nd @ video_md.T``, which is never whole; it is computed twice, by parts.

    Unsaid by the paper, our choice: products are summed in float64 and rounded to float32, so that equal vectors have
    equal scores and tie, whatever the order in which a library adds
    (``test_equal_videos_tie_wherever_they_stand``).

    :raises UsageError: a score is NaN or infinite; code ``nan``.
    """
    n, m = positives.num_queries, positives.num_candidates
    if text_nd.ndim != 2 or len(text_nd) != n or video_md.shape != (m, text_nd.shape[1]):
        raise ValueError(f"expected texts ({n}, d) and videos ({m}, d); got {text_nd.shape} and {video_md.shape}")
    video_dm = np.ascontiguousarray(video_md, dtype=np.float64).T
    rows = max(1, min(n, _PRODUCT_SCORES // m))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, n, rows):
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
                yield (text_nd[start : start + rows].astype(np.float64) @ video_dm).astype(np.float32)

    own_p = np.empty(len(positives.query_p), dtype=np.float32)
    start = 0
    for block in blocks():
        here = slice(*np.searchsorted(positives.query_p, [start, start + len(block)]))
        own_p[here] = block[positives.query_p[here] - start, positives.candidate_p[here]]
        start += len(block)
    return _rank(blocks, own_p, positives, turned=False, path=None)


def _rank(
    blocks: Callable[[], Iterable[np.ndarray]], own_p: np.ndarray, positives: Positives, *, turned: bool,
    path: str | None,
) -> Ranks:  # fmt: skip
    """Ranks from the scores of the pairs that are right, and blocks of rows (of columns where ``turned``)."""
    axes = [(positives.query_p, positives.num_queries), (positives.candidate_p, positives.num_candidates)]
    best = [_highest(index_p, own_p, num) for index_p, num in axes]
    of_rows, of_columns = (1, 0) if turned else (0, 1)
    counted = _count(blocks, best[of_rows], best[of_columns], own_p.dtype, turned, path)
    directions = []
    for (index_p, num), highest, (at_least, above) in zip(
        axes, best, counted[::-1] if turned else counted, strict=True
    ):
        num_right = np.bincount(index_p, minlength=num)
        right_there = np.bincount(index_p[own_p == highest[index_p]], minlength=num)
        queries = np.flatnonzero(num_right)
        rank = 1 + at_least - right_there
        tied = at_least - above > right_there
        directions.append(Direction(rank[queries], queries, int(tied[queries].sum()), num - len(queries)))
    return Ranks(*directions)


def _highest(index_p: np.ndarray, own_p: np.ndarray, num: int) -> np.ndarray:
    highest = np.full(num, -np.inf, dtype=own_p.dtype)
    with np.errstate(invalid="ignore"):  # what is no number is found, and named, in the blocks
        np.maximum.at(highest, index_p, own_p)
    return highest


def _count(
    blocks: Callable[[], Iterable[np.ndarray]], row_best: np.ndarray, column_best: np.ndarray, dtype: np.dtype[Any],
    turned: bool, path: str | None,
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """For rows and for columns: how many scores are at least the best of what is right there, and how many above it."""
    n, m = len(row_best), len(column_best)
    num_rows = max(1, min(_MOST_PIECE_ROWS, _PIECE_SCORES // m))
    of_rows = np.zeros((2, n), dtype=np.int64)
    of_columns = np.zeros((2, m), dtype=np.int64)
    whole_is = np.empty((num_rows, m), dtype=np.bool_)
    start = 0
    for block in blocks():
        for first in range(0, len(block), num_rows):
            piece = np.asarray(block[first : first + num_rows], dtype=dtype)
            is_so, here = whole_is[: len(piece)], slice(start, start + len(piece))
            if not np.isfinite(piece, out=is_so).all():
                raise _not_a_number(piece, is_so, start, turned, path)
            for kind, compare in enumerate((np.greater_equal, np.greater)):
                compare(piece, row_best[here, None], out=is_so)
                of_rows[kind, here] = [np.count_nonzero(row) for row in is_so]
                compare(piece, column_best, out=is_so)
                of_columns[kind] += np.add.reduce(is_so.view(np.uint8), axis=0, dtype=np.uint8)
            start += len(piece)
    return [(of_rows[0], of_rows[1]), (of_columns[0], of_columns[1])]


def _not_a_number(piece: np.ndarray, finite: np.ndarray, start: int, turned: bool, path: str | None) -> UsageError:
    row, column = map(int, np.argwhere(~finite)[0])
    value = float(piece[row, column])
    where = (column, row + start) if turned else (row + start, column)
    return UsageError(
        f"the score in row {where[0]}, column {where[1]} (both counted from 0) is {value}; expected finite numbers: "
        "look at the model that gave it",
        code="nan",
        path=path,
    )


# --------------------------------------------------------------------------------------------------------- figures


def summary(
    ranks: np.ndarray, *, bootstrap: int = 1000, seed: int = 0, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """``{"r1", "r5", "r10", "median_rank", "mean_rank"}`` of ranks counted from 1, and ``interval95`` of each.

    Recalls are shares in 0..1. The intervals are the percentiles 2.5 and 97.5 over ``bootstrap`` draws with replacement
    (Efron, 1979) of as many groups as there are, each with all of its queries: they speak of other videos of the same
    kind. Where all queries count for a recall, or none, every draw would say so too: the interval is then that of
    Clopper and Pearson (1934) for as many groups, [0, 1 - 0.025^(1/n)] for none. Without ``bootstrap`` there are none.

    :param groups: (n,) the video of each query, any whole numbers; by default each query is of a video of its own.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or len(ranks) == 0 or ranks.min() < 1:
        raise ValueError("expected ranks (n), one query or more, counted from 1")
    values, value_of, counts = np.unique(ranks, return_inverse=True, return_counts=True)
    figures: dict[str, Any] = {name: float(value[0]) for name, value in _figures(values, counts[None]).items()}
    if not bootstrap:
        return figures
    groups = np.arange(len(ranks)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_groups = int(groups.max()) + 1
    if num_groups == len(ranks):
        drawn = _draws(counts, bootstrap, seed)
    else:
        drawn = _draws_of_groups(value_of, groups, len(values), num_groups, bootstrap, seed)
    intervals = _percentiles(values, drawn)
    for name in _SHARES:
        if figures[name] in (0.0, 1.0):
            intervals[name] = interval_at_the_end(bool(figures[name]), num_groups)
    figures["interval95"] = intervals
    return figures


def _figures(values: np.ndarray, counts_su: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of s samples in which the u ascending ``values`` occur so often (s, u)."""
    num_s = counts_su.sum(axis=1)
    up_to_su = counts_su.cumsum(axis=1)
    below = np.pad(up_to_su, ((0, 0), (1, 0)))
    shares = {name: below[:, np.searchsorted(values, most, "right")] / num_s for name, most in _SHARES.items()}
    # The one in the middle, or the two: the first value with which there are more than so many before it.
    middle = [values[(up_to_su > before_s[:, None]).argmax(axis=1)] for before_s in ((num_s - 1) // 2, num_s // 2)]
    return {**shares, "median_rank": (middle[0] + middle[1]) / 2, "mean_rank": counts_su @ values / num_s}


def _draws(counts: np.ndarray, bootstrap: int, seed: int) -> Iterator[np.ndarray]:
    """To draw queries with replacement is to draw how often each rank occurs."""
    rng = np.random.default_rng(seed)
    num, at_once = int(counts.sum()), max(1, _DRAWN_COUNTS // len(counts))
    for start in range(0, bootstrap, at_once):
        yield rng.multinomial(num, counts / num, size=min(at_once, bootstrap - start))


def _draws_of_groups(
    value_of: np.ndarray, groups: np.ndarray, num_values: int, num_groups: int, bootstrap: int, seed: int
) -> Iterator[np.ndarray]:
    """How often each rank occurs where groups are drawn with replacement, each with all of its queries."""
    rng = np.random.default_rng(seed)
    equal, at_once = np.full(num_groups, 1 / num_groups), max(1, _DRAWN_COUNTS // max(num_values, num_groups))
    for start in range(0, bootstrap, at_once):
        times_sg = rng.multinomial(num_groups, equal, size=min(at_once, bootstrap - start))
        counts = [np.bincount(value_of, weights=times_g[groups], minlength=num_values) for times_g in times_sg]
        yield np.stack(counts).astype(np.int64)


def _percentiles(values: np.ndarray, drawn: Iterable[np.ndarray]) -> dict[str, list[float]]:
    figures = [_figures(values, counts_su) for counts_su in drawn]
    joined = {name: np.concatenate([of[name] for of in figures]) for name in figures[0]}
    return {name: np.quantile(figure, [0.025, 0.975]).tolist() for name, figure in joined.items()}


def answer(
    both: Ranks,
    positives: Positives,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    video_of_query: np.ndarray | None = None,
    video_of_candidate: np.ndarray | None = None,
) -> dict[str, Any]:
    """The figures of both directions as ``ssan retrieval eval`` answers, but for the protocol and what is missing.

    :param video_of_query: whole numbers, the video that each query is of, by which the intervals are drawn; by default
        that of the first candidate that is right.
    :param video_of_candidate: the same of each candidate; by default each is a video of its own.
    """
    if video_of_candidate is None:
        video_of_candidate = np.arange(positives.num_candidates)
    if video_of_query is None:
        first = np.searchsorted(positives.query_p, np.arange(positives.num_queries))
        video_of_query = video_of_candidate[positives.candidate_p[first]]
    videos = {"text_to_video": video_of_query, "video_to_text": video_of_candidate}
    directions = {
        name: {
            **summary(direction.ranks, bootstrap=bootstrap, seed=seed, groups=videos[name][direction.queries]),
            "num_queries": len(direction.queries),
            "num_left_out": direction.num_left_out,
            "num_ties": direction.num_ties,
        }
        for name, direction in (("text_to_video", both.text_to_video), ("video_to_text", both.video_to_text))
    }
    return {
        "num_queries": positives.num_queries,
        "num_candidates": positives.num_candidates,
        "num_ties": both.text_to_video.num_ties,
        **directions,
    }
