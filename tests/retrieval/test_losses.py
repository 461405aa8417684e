"""Losses of retrieval: each against its twin in loops and a number worked by hand, and against what others computed."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import naive
from ssan.errors import UsageError
from ssan.retrieval.losses import LOSSES, hardest_negative, info_nce, max_margin, mil_nce

# The options that a loss has no default for.
NEEDED: dict[str, dict[str, Any]] = {"info_nce": {"temperature": 0.3}, "mil_nce": {"temperature": 0.7}}
GROUPS = [4, 9, 4, 2, 9, 4, 0]  # videos with three pairs, two, and one each
# Similarities of two texts and two videos; the identity as the videos makes them the texts' own rows.
TWO = torch.tensor([[0.5, 0.45], [0.1, 0.3]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
APART, TOGETHER = torch.tensor([0, 1]), torch.tensor([3, 3])


def pairs(groups: list[int] = GROUPS, d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    text_bd, video_bd = torch.randn(2, len(groups), d, dtype=torch.float64, generator=generator) / math.sqrt(d)
    return text_bd.requires_grad_(), video_bd.requires_grad_(), torch.tensor(groups)


def plain(text_bd: Tensor, video_bd: Tensor, groups_b: Tensor) -> tuple[np.ndarray, np.ndarray, list[int]]:
    return text_bd.detach().numpy(), video_bd.detach().numpy(), groups_b.tolist()


def from_similarities(name: str, s_bb: Tensor, groups: list[int], **options: Any) -> Tensor:
    """A loss of given similarities, row a text."""
    return LOSSES[name](s_bb, torch.eye(len(s_bb), dtype=s_bb.dtype), torch.tensor(groups), **options)


# ----------------------------------------------------------------------------------------------------- max margin


def test_max_margin_by_hand() -> None:
    # Margin 0.1. Each end of the diagonal costs 0.1 + 0.1; text 0 with video 1 costs 0.1 + 0.45 - 0.5 = 0.05 as the
    # text's negative and 0.1 + 0.45 - 0.3 = 0.25 as the video's; text 1 with video 0 costs nothing.
    assert max_margin(TWO, EYE, APART).item() == pytest.approx((0.2 + 0.05 + 0.25 + 0.2) / 4)


def test_max_margin_by_hand_with_weights() -> None:
    # Two pairs of video 0 and one of video 1: five places of one video, four of two, each kind half of nine by weight.
    s_bb = torch.tensor([[0.5, 0.45, 0.5], [0.1, 0.3, -9.0], [-9.0, -9.0, 0.7]], dtype=torch.float64)
    intra = 3 * 0.2 + 0.05 + 0.25
    inter = 0.1 + 0.0  # text 0 with video 2: 0.1 + 0.5 - 0.5 and 0.1 + 0.5 - 0.7
    expected = (intra * 0.5 * 9 / 5 + inter * 0.5 * 9 / 4) / 9
    assert from_similarities("max_margin", s_bb, [0, 0, 1]).item() == pytest.approx(expected)
    unweighted = from_similarities("max_margin", s_bb, [0, 0, 1], negative_weighting=False).item()
    assert unweighted == pytest.approx((intra + inter) / 9)
    left_out = from_similarities("max_margin", s_bb, [0, 0, 1], same_video="left_out").item()
    assert left_out == pytest.approx((3 * 0.2 + inter) / 7)


@pytest.mark.parametrize("same_video", ["negative", "left_out"])
@pytest.mark.parametrize("negative_weighting", [True, False])
@pytest.mark.parametrize(("margin", "rate"), [(0.1, 0.5), (1.0, 0.2)])
def test_max_margin_is_the_twin_in_loops(same_video: str, negative_weighting: bool, margin: float, rate: float) -> None:
    batch = pairs()
    options = {"margin": margin, "hard_negative_rate": rate, "negative_weighting": negative_weighting}
    expected = naive.max_margin(*plain(*batch), **options, leave_out=same_video == "left_out")  # type: ignore[arg-type]
    assert max_margin(*batch, **options, same_video=same_video).item() == pytest.approx(expected, rel=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_videos", "num_pairs", "rate"), [(2, 3, 0.5), (5, 2, 0.3), (3, 7, 0.9)])
def test_weights_are_those_of_the_mask_of_equally_many_pairs(num_videos: int, num_pairs: int, rate: float) -> None:
    """With equally many pairs, by the paper's own words: h of the loss within videos, the rest shared by all others.

    Without a difference in similarity every place costs two margins, so the loss of a part of the places is their
    weight; and a single place is found by its slope.
    """
    groups = [video for video in range(num_videos) for _ in range(num_pairs)]
    b = len(groups)
    s_bb = torch.zeros(b, b, dtype=torch.float64, requires_grad=True)
    loss = from_similarities("max_margin", s_bb, groups, margin=0.25, hard_negative_rate=rate)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    # A place off the diagonal has slope 2 w / b^2; there are num_videos * num_pairs^2 places of one video.
    within = rate * num_videos
    across = (1 - rate) * num_videos / (num_videos - 1)
    slopes = s_bb.grad
    assert slopes is not None
    for i in range(b):
        for j in range(b):
            if i != j:
                weight = within if groups[i] == groups[j] else across
                assert slopes[i, j].item() == pytest.approx(2 * weight / b**2)


@pytest.mark.parametrize("groups", [[5, 3, 8], [6, 6, 6], [1]])
def test_nothing_is_weighted_where_there_is_one_kind_of_pair(groups: list[int]) -> None:
    batch = pairs(groups)
    assert max_margin(*batch).item() == max_margin(*batch, negative_weighting=False).item()


# Of the authors' own loss.py, in float32: s_ij = sin(1 + i + 2 j + i j), for (videos, pairs a video, margin, rate).
AUTHORS_MAX_MARGIN = [
    (3, 1, 0.1, 0.5, 1.4365319),
    (2, 3, 0.1, 0.5, 1.0828226),
    (5, 2, 0.1, 0.5, 0.87530571),
    (3, 4, 1.0, 0.2, 2.5532789),
]


@pytest.mark.parametrize(("num_videos", "num_pairs", "margin", "rate", "value"), AUTHORS_MAX_MARGIN)
def test_max_margin_is_what_the_authors_code_computes(
    num_videos: int, num_pairs: int, margin: float, rate: float, value: float
) -> None:
    groups = [video for video in range(num_videos) for _ in range(num_pairs)]
    ours = from_similarities("max_margin", formula(len(groups)), groups, margin=margin, hard_negative_rate=rate)
    assert ours.item() == pytest.approx(value, rel=2e-6)


def formula(n: int, m: int | None = None) -> Tensor:
    i, j = torch.meshgrid(torch.arange(n), torch.arange(m or n), indexing="ij")
    return torch.sin((1 + i + 2 * j + i * j).double())


# ----------------------------------------------------------------------------------------------- hardest negative


def test_hardest_negative_by_hand() -> None:
    # Margin 0.2. Text 0: 0.2 + 0.45 - 0.5 = 0.15; text 1: 0.2 + 0.1 - 0.3 = 0. Video 0: 0; video 1: 0.2 + 0.15 = 0.35.
    assert hardest_negative(TWO, EYE, APART).item() == pytest.approx((0.15 + 0.35) / 2)


def test_hardest_negative_has_a_slope_at_the_hardest_alone() -> None:
    s_bb = torch.tensor([[1.0, 0.95, 0.9], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    from_similarities("hardest_negative", s_bb, [0, 1, 2]).backward()
    # Text 0 has video 1 as its hardest; videos 1 and 2 have text 0 as theirs; text 0 itself is right for video 0.
    expected = [[-1 / 3, 2 / 3, 1 / 3], [0.0, -1 / 3, 0.0], [0.0, 0.0, -1 / 3]]
    assert s_bb.grad is not None
    torch.testing.assert_close(s_bb.grad, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("same_video", ["negative", "left_out"])
@pytest.mark.parametrize("margin", [0.2, 1.1])
def test_hardest_negative_is_the_twin_in_loops(same_video: str, margin: float) -> None:
    batch = pairs()
    expected = naive.hardest_negative(*plain(*batch), margin=margin, leave_out=same_video == "left_out")
    ours = hardest_negative(*batch, margin=margin, same_video=same_video)  # type: ignore[arg-type]
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_a_pair_without_a_negative_costs_nothing() -> None:
    assert hardest_negative(TWO, EYE, TOGETHER, same_video="left_out").item() == 0.0
    assert hardest_negative(*pairs([3])).item() == 0.0


# -------------------------------------------------------------------------------------------------------- InfoNCE


def test_info_nce_by_hand() -> None:
    # Temperature 0.5: differences of 0.05, 0.2, 0.4 and 0.15 become 0.1, 0.4, 0.8 and 0.3.
    terms = [math.log(1 + math.exp(x)) for x in (-0.1, -0.4, -0.8, 0.3)]
    assert info_nce(TWO, EYE, APART, temperature=0.5).item() == pytest.approx(sum(terms) / 4)


@pytest.mark.parametrize("same_video", ["negative", "left_out"])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_info_nce_is_the_twin_in_loops(same_video: str, temperature: float) -> None:
    batch = pairs()
    expected = naive.info_nce(*plain(*batch), temperature=temperature, leave_out=same_video == "left_out")
    ours = info_nce(*batch, temperature=temperature, same_video=same_video)  # type: ignore[arg-type]
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_info_nce_left_out_of_one_video_is_zero() -> None:
    assert info_nce(TWO, EYE, TOGETHER, temperature=0.5, same_video="left_out").item() == pytest.approx(0.0, abs=1e-15)


# -------------------------------------------------------------------------------------------------------- MIL-NCE


def test_mil_nce_by_hand() -> None:
    # One video with two texts, the same row twice, and one with one text; similarities 0.1, 0.2; 0.4 and 0.0, 0.3; 0.5.
    s_vt = torch.tensor([[0.1, 0.2, 0.4], [0.1, 0.2, 0.4], [0.0, 0.3, 0.5]], dtype=torch.float64)
    e = math.exp
    first = 2 * e(0.1) + 2 * e(0.2) + e(0.4) + e(0.0) + e(0.3), e(0.1) + e(0.2)
    second = e(0.0) + e(0.3) + 2 * e(0.5) + e(0.4), e(0.5)
    expected = (math.log(first[0] / first[1]) + math.log(second[0] / second[1])) / 2
    assert from_similarities("mil_nce", s_vt.T, [7, 7, 5], temperature=1.0).item() == pytest.approx(expected)
    once = (math.log(first[0] / first[1] - 1) + math.log(second[0] / second[1] - 1)) / 2
    ours = from_similarities("mil_nce", s_vt.T, [7, 7, 5], temperature=1.0, positives_twice=False)
    assert ours.item() == pytest.approx(once)


@pytest.mark.parametrize("positives_twice", [True, False])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_mil_nce_is_the_twin_in_loops(positives_twice: bool, temperature: float) -> None:
    batch = pairs()
    expected = naive.mil_nce(*plain(*batch), temperature=temperature, positives_twice=positives_twice)
    ours = mil_nce(*batch, temperature=temperature, positives_twice=positives_twice)
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_mil_nce_of_one_video_once_is_zero_and_has_a_slope_that_is_a_number() -> None:
    text_bd, video_bd, groups_b = pairs([2, 2, 2])
    loss = mil_nce(text_bd, video_bd, groups_b, temperature=1.0, positives_twice=False)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-15)
    assert text_bd.grad is not None
    assert torch.isfinite(text_bd.grad).all()


# Of the authors' own loss.py, in float32: video v has row sin(1 + v + 2 k) over k, text u row cos(1 + 3 u + k), for
# (videos, texts a video, length of a row).
AUTHORS_MIL_NCE = [(3, 1, 5, 2.0438497), (2, 3, 5, 1.2899958), (5, 2, 3, 2.3793545)]


@pytest.mark.parametrize(("num_videos", "num_texts", "d", "value"), AUTHORS_MIL_NCE)
def test_mil_nce_is_what_the_authors_code_computes(num_videos: int, num_texts: int, d: int, value: float) -> None:
    groups = torch.arange(num_videos).repeat_interleave(num_texts)
    k = torch.arange(d)
    text_bd = torch.cos((1 + 3 * torch.arange(len(groups))[:, None] + k).double())
    video_bd = torch.sin((1 + groups[:, None] + 2 * k).double())
    assert mil_nce(text_bd, video_bd, groups, temperature=1.0).item() == pytest.approx(value, rel=2e-6)


# ----------------------------------------------------------------------------------------------------- all of them


@pytest.fixture(params=sorted(LOSSES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def loss_of(name: str, *batch: Tensor, **options: Any) -> Tensor:
    return LOSSES[name](*batch, **{**NEEDED.get(name, {}), **options})


def test_slopes_are_those_of_the_loss(name: str) -> None:
    *vectors, groups_b = pairs()
    assert torch.autograd.gradcheck(lambda *rows: loss_of(name, *rows, groups_b), vectors)


def test_the_order_of_pairs_does_not_matter(name: str) -> None:
    batch = pairs()
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    shuffled = loss_of(name, *(tensor[order] for tensor in batch))
    assert shuffled.item() == pytest.approx(loss_of(name, *batch).item(), rel=1e-12)


def test_numbers_of_groups_are_names_alone(name: str) -> None:
    text_bd, video_bd, groups_b = pairs()
    renamed = 1_000_000_007 * (groups_b + 1)
    assert loss_of(name, text_bd, video_bd, renamed).item() == loss_of(name, text_bd, video_bd, groups_b).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    text_bd, video_bd, groups_b = pairs(d=257)
    text_bd, video_bd = (30 * text_bd).detach().to(dtype), (30 * video_bd).detach().to(dtype)
    exact = loss_of(name, text_bd.double(), video_bd.double(), groups_b).item()
    loss = loss_of(name, text_bd, video_bd, groups_b)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss_of(name, text_bd.float(), video_bd.float(), groups_b).item() == pytest.approx(exact, rel=1e-5)


def test_large_similarities_stay_numbers(name: str) -> None:
    text_bd, video_bd, groups_b = pairs()
    loss = loss_of(name, 1e4 * text_bd, 1e4 * video_bd, groups_b)
    loss.backward()
    assert torch.isfinite(loss)
    assert text_bd.grad is not None
    assert torch.isfinite(text_bd.grad).all()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"same_video": "left_out"}])
@pytest.mark.parametrize("row", range(len(GROUPS)))
@pytest.mark.parametrize("side", [0, 1])
def test_nan_stays_nan(name: str, options: dict[str, Any], row: int, side: int) -> None:
    if name == "mil_nce" and options:
        options = {"positives_twice": False}
    batch = [tensor.detach().clone() for tensor in pairs()]
    batch[side][row, 1] = math.nan
    assert torch.isnan(loss_of(name, *batch, **options))


def test_pairs_of_one_video_pull_as_each_loss_says(name: str) -> None:
    """Where similarity to another pair of the same video rises: mil_nce falls, left out nothing moves, others rise."""

    def slope(**options: Any) -> float:
        s_bb = torch.full((3, 3), 0.3, dtype=torch.float64, requires_grad=True)
        loss_of(name, s_bb, torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 1]), **options).backward()
        assert s_bb.grad is not None
        return s_bb.grad[0, 1].item()

    if name == "mil_nce":
        assert slope() < 0
    else:
        assert slope() > 0
        assert slope(same_video="left_out") == 0.0


def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    text_bd, video_bd, groups_b = pairs()
    with pytest.raises(ValueError, match=r"\(7, 5\) and \(7, 3\)"):
        loss_of(name, text_bd, video_bd[:, :3], groups_b)
    with pytest.raises(ValueError, match=r"\(5,\) for 7 pairs"):
        loss_of(name, text_bd, video_bd, groups_b[:5])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda batch: max_margin(*batch, hard_negative_rate=1.5), "hard_negative_rate is 1.5; expected a share"),
        (lambda batch: max_margin(*batch, same_video="leftout"), "Did you mean 'left_out'"),
        (lambda batch: hardest_negative(*batch, same_video="none"), "Known: left_out, negative"),
        (lambda batch: info_nce(*batch, temperature=0.0), "info_nce: temperature is 0.0"),
        (lambda batch: mil_nce(*batch, temperature=math.nan), "mil_nce: temperature is nan"),
    ],
)
def test_options_that_make_no_sense_are_refused(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(pairs())
