"""Ranks of small matrices worked by hand, against a twin in loops and against sorting, with many ties."""

import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from ssan.errors import UsageError
from ssan.retrieval.metrics import Positives, Ranks, answer, from_embeddings, positives_by, ranks, summary

# Text 0 finds its video first. For text 1 videos 0 and 2 are right, and video 0 is second. For text 2 video 1 is right,
# and has the score of video 3, which nobody asks for.
SCORES = np.array([[0.9, 0.1, 0.2, 0.3], [0.7, 0.8, 0.5, 0.1], [0.0, 0.4, 0.2, 0.4]])
RIGHT = Positives.from_sets([{0}, {0, 2}, {1}], 4)


def both(scores: Any, right: list[set[int]]) -> Ranks:
    scores = np.asarray(scores)
    return ranks(scores, Positives.from_sets(right, scores.shape[1]))


def test_ranks_by_hand() -> None:
    found = ranks(SCORES, RIGHT)
    assert found.text_to_video.ranks.tolist() == [1, 2, 2]
    assert found.text_to_video.num_ties == 1
    # Video 0: both of its texts are before text 2. Video 1: text 1 is before text 2. Video 2: text 1 is first.
    assert found.video_to_text.queries.tolist() == [0, 1, 2]
    assert found.video_to_text.ranks.tolist() == [1, 2, 1]
    assert (found.video_to_text.num_ties, found.video_to_text.num_left_out) == (0, 1)


def test_a_tie_counts_against_the_query() -> None:
    found = both([[2.0, 2.0, 1.0], [3.0, 3.0, 3.0]], [{0}, {1}])
    assert found.text_to_video.ranks.tolist() == [2, 3]
    assert found.text_to_video.num_ties == 2


def test_equal_scores_for_everything_are_no_success() -> None:
    found = both(np.zeros((3, 3)), [{0}, {1}, {2}])
    assert found.text_to_video.ranks.tolist() == found.video_to_text.ranks.tolist() == [3, 3, 3]


def test_two_that_are_right_and_level_are_no_tie() -> None:
    found = both([[5.0, 5.0, 1.0], [0.0, 7.0, 7.0]], [{0, 1}, {1}])
    assert found.text_to_video.ranks.tolist() == [1, 2]
    assert found.text_to_video.num_ties == 1


def test_negative_zero_is_zero() -> None:
    found = both([[0.0, -0.0, -1.0]], [{0}])
    assert (found.text_to_video.ranks.tolist(), found.text_to_video.num_ties) == ([2], 1)


# ---------------------------------------------------------------------------------------- twins and other formulations


def same_as_the_twin(found: Ranks, scores: np.ndarray, right: list[set[int]]) -> None:
    columns = [{row for row, own in enumerate(right) if column in own} for column in range(scores.shape[1])]
    for direction, matrix, sets in [
        (found.text_to_video, scores, right),
        (found.video_to_text, scores.T, columns),
    ]:
        expected, num_ties = naive.retrieval_ranks(matrix, sets)
        assert direction.ranks.tolist() == expected
        assert direction.num_ties == num_ties
        assert direction.queries.tolist() == [index for index, own in enumerate(sets) if own]
        assert direction.num_left_out == len(sets) - len(expected)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, list[set[int]]]:
    """Scores of few different values, and one or more columns that are right for each row."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    values = st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.25, 2.0]), min_size=n * m, max_size=n * m)
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, np.dtype(">f4")]))
    order = draw(st.sampled_from(["C", "F"]))
    scores = np.array(draw(values)).reshape(n, m).astype(dtype, order=order)  # type: ignore[call-overload]
    return scores, [draw(st.sets(st.integers(0, m - 1), min_size=1)) for _ in range(n)]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(matrices())
def test_ranks_are_the_twin_in_loops_however_many_ties(drawn: tuple[np.ndarray, list[set[int]]]) -> None:
    scores, right = drawn
    same_as_the_twin(both(scores, right), scores, right)


@settings(max_examples=50, deadline=None)
@given(matrices())
def test_embeddings_have_the_ranks_of_their_matrix(drawn: tuple[np.ndarray, list[set[int]]]) -> None:
    """The scores as the texts' vectors, and each video a direction of its own."""
    scores, right = drawn
    found = from_embeddings(
        scores, np.eye(scores.shape[1], dtype=np.float32), Positives.from_sets(right, len(scores.T))
    )
    same_as_the_twin(found, scores, right)


def drawn_scores(n: int, m: int, levels: int | None, seed: int = 0) -> tuple[np.ndarray, list[set[int]]]:
    rng = np.random.default_rng(seed)
    scores = rng.random((n, m)) if levels is None else rng.integers(levels, size=(n, m)) / 8
    return scores.astype(np.float32), [set(rng.integers(m, size=1 + row % 3).tolist()) for row in range(n)]


# More rows than a counter of one byte holds; more columns than a piece has; a row that is a piece by itself.
SHAPES = [(1009, 13), (3, 106_753), (2, 330_017), (307, 1031)]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_ranks_are_places_after_sorting(n: int, m: int, levels: int | None, order: Any) -> None:
    """From the highest score on, wrong candidates before right ones: the first right one's place is the rank."""
    scores, right = drawn_scores(n, m, levels)
    found = both(np.asarray(scores, order=order), right)
    wrong = np.ones((n, m), dtype=bool)
    for row, own in enumerate(right):
        wrong[row, list(own)] = False
    for direction, matrix, mask in [
        (found.text_to_video, scores, wrong),
        (found.video_to_text, scores.T[found.video_to_text.queries], wrong.T[found.video_to_text.queries]),
    ]:
        places = np.lexsort((~mask, -matrix))
        assert np.array_equal(direction.ranks, 1 + np.take_along_axis(~mask, places, axis=1).argmax(axis=1))
        best = np.where(mask, -np.inf, matrix).max(axis=1, keepdims=True)
        assert direction.num_ties == ((matrix == best) & mask).any(axis=1).sum()


@pytest.mark.parametrize(("n", "m"), [(7, 4099), (1013, 4999), (2003, 3)])
def test_embeddings_in_parts_have_the_ranks_of_the_whole(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    text_nd, video_md = rng.normal(size=(n, 11)).astype(np.float32), rng.normal(size=(m, 11)).astype(np.float32)
    positives = Positives.from_sets([{row % m, (3 * row) % m} for row in range(n)], m)
    found = from_embeddings(text_nd, video_md, positives)
    whole = ranks((text_nd.astype(np.float64) @ video_md.astype(np.float64).T).astype(np.float32), positives)
    for name in ("text_to_video", "video_to_text"):
        one, other = getattr(found, name), getattr(whole, name)
        assert np.array_equal(one.ranks, other.ranks)
        assert (one.num_ties, one.num_left_out) == (other.num_ties, other.num_left_out)


def test_equal_videos_tie_wherever_they_stand() -> None:
    """Videos stand twice, far apart: each text has its video's copy against it, whatever order sums are made in."""
    rng = np.random.default_rng(2)
    half, d = 1217, 61
    video_md = rng.normal(size=(half, d)).astype(np.float32)
    order = rng.permutation(2 * half)
    text_nd = rng.normal(size=(half, d)).astype(np.float32)
    twice = np.concatenate([video_md, video_md])[order]
    positives = Positives.from_pairs(range(half), np.argsort(order)[:half], half, 2 * half)
    found = from_embeddings(text_nd, twice, positives).text_to_video
    once = from_embeddings(text_nd, video_md, Positives.from_pairs(range(half), range(half), half, half)).text_to_video
    assert found.num_ties == half
    assert np.array_equal(found.ranks, 2 * once.ranks)


@pytest.mark.parametrize(
    ("n", "lift", "r1", "r5", "r10", "median"), [(13, 0.5, 4, 5, 11, 8.0), (31, 1.0, 17, 17, 20, 1.0)]
)
def test_figures_are_what_the_code_of_howto100m_computes(
    n: int, lift: float, r1: int, r5: int, r10: int, median: float
) -> None:
    """Of the authors' own metrics.py, for s_ij = sin(1 + i + 2 j + i j), more where i is j; no row has a tie."""
    i, j = np.indices((n, n))
    found = summary(both(np.sin(1.0 + i + 2 * j + i * j) + lift * (i == j), [{row} for row in range(n)])
                    .text_to_video.ranks, bootstrap=0)  # fmt: skip
    assert [found[name] for name in ("r1", "r5", "r10", "median_rank")] == [r1 / n, r5 / n, r10 / n, median]


def test_ties_count_once_where_the_code_of_howto100m_counts_them_at_every_place() -> None:
    """Five texts are right, of five all scores are level: theirs counts 55 texts, and recall 1 is 10 / 55."""
    scores = np.eye(10)
    scores[5:] = 0.5
    found = summary(both(scores, [{row} for row in range(10)]).text_to_video.ranks, bootstrap=0)
    assert (found["r1"], found["r5"], found["median_rank"]) == (0.5, 0.5, 5.5)


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 1), (530, 4)])
def test_a_score_that_is_no_number_is_named(value: float, order: Any, row: int, column: int) -> None:
    scores = np.zeros((541, 7), order=order)
    scores[row, column] = value
    with pytest.raises(UsageError, match=rf"row {row}, column {column} \(both counted from 0\) is {value}") as caught:
        ranks(scores, Positives.from_pairs(range(541), [0] * 541, 541, 7), path="s.npy")
    assert (caught.value.code, caught.value.path) == ("nan", "s.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_embedding_that_is_no_number_is_refused(value: float) -> None:
    text_nd = np.ones((5, 3))
    text_nd[3, 1] = value
    with pytest.raises(UsageError, match="row 3, column 0") as caught:
        from_embeddings(text_nd, 1e10 * np.ones((2, 3)), Positives.from_pairs(range(5), [1] * 5, 5, 2))
    assert caught.value.code == "nan"


def test_a_query_for_which_nothing_is_right_is_named() -> None:
    with pytest.raises(UsageError, match=r"2 of 4 queries .* \(query 1 is the first\)"):
        Positives.from_sets([{0}, set(), {1}, set()], 3)


@pytest.mark.parametrize(
    ("queries", "candidates", "words"),
    [
        ([0, 5], [0, 0], "query 5 is named; expected 0 to 1"),
        ([0, 1], [0, -1], "candidate -1 is named; expected 0 to 2"),
    ],
)
def test_pairs_outside_the_matrix_are_named(queries: list[int], candidates: list[int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Positives.from_pairs(queries, candidates, 2, 3)


def test_a_pair_that_is_said_twice_is_one() -> None:
    said = Positives.from_pairs([1, 0, 1, 1], [2, 1, 0, 2], 2, 3)
    assert (said.query_p.tolist(), said.candidate_p.tolist()) == ([0, 1, 1], [1, 0, 2])


@pytest.mark.parametrize("scores", [np.zeros((2, 3), dtype=np.int64), np.zeros((3, 2)), np.zeros(6)])
def test_scores_of_another_kind_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected floating-point scores \(2, 3\)"):
        ranks(scores, Positives.from_pairs([0, 1], [0, 1], 2, 3))


def test_embeddings_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected texts \(2, d\) and videos \(3, d\); got \(2, 5\) and \(3, 7\)"):
        from_embeddings(np.zeros((2, 5)), np.zeros((3, 7)), Positives.from_pairs([0, 1], [0, 1], 2, 3))


# ------------------------------------------------------------------------------------------------ repeated captions

CAPTIONS = ["a man sings", "a dog runs", "a man sings", "a dog runs", "a dog runs"]
VIDEOS = ["v7", "v7", "v2", "v7", "v9"]
CANDIDATES = ["v2", "v9", "v7", "v4"]


def sets_of(positives: Positives) -> list[set[int]]:
    return [set(positives.candidate_p[positives.query_p == query].tolist()) for query in range(positives.num_queries)]


def test_own_is_the_video_that_the_caption_was_written_for() -> None:
    positives, num_repeated = positives_by("own", CAPTIONS, VIDEOS, CANDIDATES)
    assert sets_of(positives) == [{2}, {2}, {0}, {2}, {1}]
    assert positives.num_candidates == 4
    assert num_repeated == 5


def test_same_caption_is_every_video_that_has_it() -> None:
    positives, num_repeated = positives_by("same_caption", CAPTIONS, VIDEOS, CANDIDATES)
    assert sets_of(positives) == [{0, 2}, {1, 2}, {0, 2}, {1, 2}, {1, 2}]
    assert num_repeated == 5


def test_captions_that_one_video_has_twice_or_that_differ_in_a_letter_are_not_repeated() -> None:
    for rule in ("own", "same_caption"):
        positives, num_repeated = positives_by(rule, ["a cat", "a cat", "A cat"], ["v1", "v1", "v2"], ["v1", "v2"])
        assert (sets_of(positives), num_repeated) == ([{0}, {0}, {1}], 0)


def test_the_rules_differ_in_both_directions() -> None:
    # Two videos with one caption each, the same; the model takes each for the other.
    scores = np.array([[0.1, 0.9], [0.8, 0.2]])
    found = {rule: ranks(scores, positives_by(rule, ["x", "x"], ["a", "b"], ["a", "b"])[0]) for rule in
             ("own", "same_caption")}  # fmt: skip
    assert found["own"].text_to_video.ranks.tolist() == found["own"].video_to_text.ranks.tolist() == [2, 2]
    assert found["same_caption"].text_to_video.ranks.tolist() == [1, 1]
    assert found["same_caption"].video_to_text.ranks.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("rule", "videos", "candidates", "words"),
    [
        ("any", ["a"], ["a"], "unknown rule for positives 'any'"),
        ("own", ["a"], ["a", "b", "b"], r"1 videos stand more than once among the candidates \('b'\)"),
        ("own", ["c"], ["a", "b"], r"1 videos have captions and are no candidates \('c'\)"),
    ],
)
def test_lists_that_do_not_fit_are_refused(rule: Any, videos: list[str], candidates: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        positives_by(rule, ["x"], videos, candidates)


# ---------------------------------------------------------------------------------------------------------- figures


def test_figures_by_hand() -> None:
    found = summary(np.array([1, 12, 3, 10, 5, 6, 1, 11]), bootstrap=0)
    assert found == {"r1": 2 / 8, "r5": 4 / 8, "r10": 6 / 8, "median_rank": 5.5, "mean_rank": 49 / 8}


@pytest.mark.parametrize("own", [[1, 4, 2, 30, 7, 1, 11], [1, 4, 2, 30, 7, 1, 11, 5]])
def test_intervals_are_those_of_draws_in_loops(own: list[int]) -> None:
    found = summary(np.array(own), bootstrap=101, seed=3)["interval95"]
    values, counts = np.unique(own, return_counts=True)
    draws = np.random.default_rng(3).multinomial(len(own), counts / len(own), size=101)
    figures: dict[str, list[float]] = {name: [] for name in found}
    for draw in draws:
        drawn = [value for value, count in zip(values.tolist(), draw, strict=True) for _ in range(count)]
        assert len(drawn) == len(own)
        for name, most in [("r1", 1), ("r5", 5), ("r10", 10)]:
            figures[name].append(sum(rank <= most for rank in drawn) / len(own))
        figures["median_rank"].append(statistics.median(drawn))
        figures["mean_rank"].append(sum(drawn) / len(own))
    for name, interval in found.items():
        ordered = sorted(figures[name])  # of 101 values, places 2.5 and 97.5
        assert interval == pytest.approx([(ordered[2] + ordered[3]) / 2, (ordered[97] + ordered[98]) / 2])


def test_the_interval_of_a_share_is_as_wide_as_its_spread_says() -> None:
    own = np.where(np.arange(1600) % 4 == 0, 1, 100)
    low, high = summary(own, bootstrap=4000)["interval95"]["r1"]
    assert (high - low) / 2 == pytest.approx(1.96 * (0.25 * 0.75 / 1600) ** 0.5, rel=0.08)
    assert (low + high) / 2 == pytest.approx(0.25, abs=0.002)


def test_where_all_count_or_none_the_interval_is_that_of_clopper_and_pearson() -> None:
    """Of 1,000 none: the largest share with which that happens in 2.5 % of cases, (1 - p)^1000 = 0.025."""
    found = summary(np.full(1000, 7), bootstrap=50)["interval95"]
    assert found["r1"] == pytest.approx([0, 1 - 0.025 ** (1 / 1000)])
    assert (1 - found["r1"][1]) ** 1000 == pytest.approx(0.025)
    assert found["r10"] == pytest.approx([0.025 ** (1 / 1000), 1])
    # Of 50 videos with 20 captions each, which may well all be alike, there are but 50.
    of_videos = summary(np.full(1000, 7), bootstrap=50, groups=np.arange(1000) // 20)["interval95"]
    assert (1 - of_videos["r1"][1]) ** 50 == pytest.approx(0.025)


def test_intervals_by_videos_are_those_of_draws_in_loops() -> None:
    own, videos = np.array([1, 4, 2, 30, 7, 1, 11]), np.array([5, 5, 5, 2, 2, 9, 9])
    found = summary(own, bootstrap=101, seed=3, groups=videos)["interval95"]
    rng = np.random.default_rng(3)
    figures: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(101):
        times = dict(zip((2, 5, 9), rng.multinomial(3, [1 / 3] * 3), strict=True))
        drawn = [rank for rank, video in zip(own.tolist(), videos, strict=True) for _ in range(times[int(video)])]
        for name, most in [("r1", 1), ("r5", 5), ("r10", 10)]:
            figures[name].append(sum(rank <= most for rank in drawn) / len(drawn))
        figures["median_rank"].append(statistics.median(drawn))
        figures["mean_rank"].append(sum(drawn) / len(drawn))
    for name, interval in found.items():
        ordered = sorted(figures[name])
        assert interval == pytest.approx([(ordered[2] + ordered[3]) / 2, (ordered[97] + ordered[98]) / 2])


def coverage(num_videos: int, num_captions: int, share: float, alike: float, by_video: bool) -> float:
    """How often the interval of R@1 has the true share in it; captions of a video are as alike as ``alike`` says."""
    rng = np.random.default_rng(4)
    videos = np.arange(num_videos * num_captions) // num_captions
    held = 0
    for trial in range(150):
        of_video = rng.beta(share / alike, (1 - share) / alike, size=num_videos) if alike else share
        hits = rng.random((num_videos, num_captions)) < np.reshape(of_video, (-1, 1))
        ranks_n = np.where(hits.ravel(), 1, 50)
        groups = videos if by_video else None
        low, high = summary(ranks_n, bootstrap=150, seed=trial, groups=groups)["interval95"]["r1"]
        held += low <= share <= high
    return held / 150


@pytest.mark.slow
def test_intervals_have_the_true_share_in_them_as_often_as_they_say() -> None:
    """95 %, give or take what 150 trials leave open; with the captions drawn one by one hardly more than half."""
    assert 0.9 <= coverage(60, 20, 0.3, 0.5, by_video=True) <= 0.99
    assert coverage(60, 20, 0.3, 0.5, by_video=False) < 0.75
    assert coverage(300, 1, 0.004, 0, by_video=True) >= 0.93  # of which 30 % of the trials see nothing at all


def test_captions_of_one_video_are_drawn_together_in_a_matrix_too() -> None:
    rng = np.random.default_rng(5)
    right = np.repeat(np.arange(30), 10)
    scores = rng.random((300, 30))
    scores[np.arange(300), right] += np.repeat(rng.random(30) > 0.5, 10)
    positives = Positives.from_pairs(range(300), right, 300, 30)
    found = answer(ranks(scores, positives), positives, bootstrap=300)["text_to_video"]
    alone = summary(ranks(scores, positives).text_to_video.ranks, bootstrap=300)
    (low, high), (lower, higher) = found["interval95"]["r1"], alone["interval95"]["r1"]
    assert high - low > 2 * (higher - lower)


def test_intervals_of_many_queries_are_drawn_in_parts_and_repeat() -> None:
    own = np.random.default_rng(0).integers(1, 500, size=300_007)
    first, again, other = (summary(own, bootstrap=29, seed=seed)["interval95"] for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert first["r10"][0] < 10 / 499 < first["r10"][1]


def test_ranks_that_are_none_have_no_figures() -> None:
    for none in (np.array([], dtype=int), np.array([0, 1]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="counted from 1"):
            summary(none)


def test_the_answer_counts_both_directions() -> None:
    found = answer(ranks(SCORES, RIGHT), RIGHT, bootstrap=0)
    figures = {"r5": 1.0, "r10": 1.0, "num_queries": 3}
    assert found == {
        "num_queries": 3,
        "num_candidates": 4,
        "num_ties": 1,
        "text_to_video": {
            **figures, "r1": 1 / 3, "median_rank": 2.0, "mean_rank": 5 / 3, "num_left_out": 0, "num_ties": 1,
        },
        "video_to_text": {
            **figures, "r1": 2 / 3, "median_rank": 1.0, "mean_rank": 4 / 3, "num_left_out": 1, "num_ties": 0,
        },
    }  # fmt: skip
