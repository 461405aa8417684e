"""Losses of the joint space, four over the pairs of a batch: what draws a text and its video together there.

Each takes ``(text_bd, video_bd, groups_b)``, where row i of the first two is a pair, and the groups (b), whole numbers,
say which video each pair is of; options are keywords; each returns a scalar. Similarities are products of rows,
computed in float32 at least, also under autocast, and every loss is NaN where one of its inputs is.

Two different pairs of one video are a case that each loss has to settle, because the text of the one may well be true
of the other: ``mil_nce`` takes them for positives, the other three for negatives as their papers' code does, or leaves
them out (``same_video="left_out"``).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssan.errors import UsageError, unknown

SameVideo = Literal["negative", "left_out"]


def max_margin(
    text_bd: Tensor,
    video_bd: Tensor,
    groups_b: Tensor,
    *,
    margin: float = 0.1,
    hard_negative_rate: float = 0.5,
    negative_weighting: bool = True,
    same_video: SameVideo = "negative",
) -> Tensor:
    """The max-margin ranking loss of HowTo100M (Miech et al., ICCV 2019, section 4.2), over all pairs of the batch.

    With ``s`` the similarities (b, b) and weights ``w``::

        mean over i, j of  w_ij * ([margin + s_ij - s_ii]_+  +  [margin + s_ij - s_jj]_+)

    The diagonal counts in the mean, as in the authors' code, where it adds a constant, ``2 * margin * w_ii``. Pairs of
    one video have the weight ``h * b^2 / num_intra`` and all others ``(1 - h) * b^2 / num_inter``, so that by weight
    the former, the diagonal among them, make the share ``h = hard_negative_rate`` of the loss.

    Unsaid by the paper, our choice: the weights follow the groups that are there, and are those of the authors' code
    where all videos have equally many pairs (``test_weights_are_those_of_the_mask_of_equally_many_pairs``). Where all
    groups differ, or all are one, nothing is weighted (``test_nothing_is_weighted_where_there_is_one_kind_of_pair``).

    :param same_video: what other pairs of the same video are: "negative", or "left_out" of sum and mean, and nothing
        is weighted then.
    :raises UsageError: ``hard_negative_rate`` is not within 0..1.
    """
    if not 0.0 <= hard_negative_rate <= 1.0:
        raise UsageError(f"max_margin: hard_negative_rate is {hard_negative_rate}; expected a share within 0..1")
    s_bb, same_bb = _similarities(text_bd, video_bd), _same(text_bd, groups_b)
    own_b = s_bb.diagonal()
    cost_bb = F.relu(margin + s_bb - own_b[:, None]) + F.relu(margin + s_bb - own_b[None, :])
    if _leaves_out(same_video):
        kept_bb = ~_others(same_bb)
        return (cost_bb * kept_bb).sum() / kept_bb.sum()
    if negative_weighting:
        b = len(s_bb)
        num_intra = same_bb.sum().to(cost_bb.dtype)
        num_inter = b * b - num_intra
        both_kinds = (num_intra > b) & (num_inter > 0)
        intra = torch.where(both_kinds, hard_negative_rate * b * b / num_intra, 1.0)
        inter = torch.where(both_kinds, (1 - hard_negative_rate) * b * b / num_inter.clamp(min=1), 1.0)
        cost_bb = cost_bb * torch.where(same_bb, intra, inter)
    return cost_bb.mean()


def hardest_negative(
    text_bd: Tensor,
    video_bd: Tensor,
    groups_b: Tensor,
    *,
    margin: float = 0.2,
    same_video: SameVideo = "negative",
) -> Tensor:
    """The max-of-hinges loss of VSE++ (Faghri et al., BMVC 2018, equation 6): the nearest wrong answer alone counts.

    With ``s`` the similarities (b, b)::

        mean over i of  max over j != i of [margin + s_ij - s_ii]_+  +  max over j != i of [margin + s_ji - s_ii]_+

    Unsaid by the paper, our choice: the mean over the pairs, which their code sums; a pair without a negative costs
    nothing (``test_hardest_negative_by_hand``, ``test_a_pair_without_a_negative_costs_nothing``).

    :param same_video: what other pairs of the same video are: "negative", as in the authors' code, or "left_out".
    """
    s_bb, same_bb = _similarities(text_bd, video_bd), _same(text_bd, groups_b)
    own_b = s_bb.diagonal()
    barred_bb = same_bb if _leaves_out(same_video) else torch.eye(len(s_bb), dtype=torch.bool, device=s_bb.device)
    negative_bb = s_bb.masked_fill(barred_bb, -math.inf)
    return (F.relu(margin + negative_bb.amax(1) - own_b) + F.relu(margin + negative_bb.amax(0) - own_b)).mean()


def info_nce(
    text_bd: Tensor,
    video_bd: Tensor,
    groups_b: Tensor,
    *,
    temperature: float,
    same_video: SameVideo = "negative",
) -> Tensor:
    """InfoNCE (van den Oord et al., 2018, equation 4) in both directions, as CLIP has it (Radford et al., 2021).

    With ``s`` the similarities (b, b) over the temperature, half of the sum of::

        mean over i of  log(sum over j of exp(s_ij)) - s_ii        a text among the videos
        mean over i of  log(sum over j of exp(s_ji)) - s_ii        a video among the texts

    :param temperature: what similarities are divided by; 0.07 is where CLIP begins.
    :param same_video: what other pairs of the same video are: "negative", or "left_out" of both sums.
    :raises UsageError: the temperature is not above 0.
    """
    s_bb = _similarities(text_bd, video_bd) / _checked(temperature, "info_nce")
    same_bb = _same(text_bd, groups_b)
    if _leaves_out(same_video):
        s_bb = s_bb.masked_fill(_others(same_bb), -math.inf)
    return ((s_bb.logsumexp(1) + s_bb.logsumexp(0)) / 2 - s_bb.diagonal()).mean()


def mil_nce(
    text_bd: Tensor,
    video_bd: Tensor,
    groups_b: Tensor,
    *,
    temperature: float,
    positives_twice: bool = True,
) -> Tensor:
    """MIL-NCE (Miech et al., CVPR 2020, equation 1): all texts of a video are right together, none has to be by itself.

    With ``s_ij`` the similarity of video row i and text row j over the temperature, and g a group of ``n_g`` rows::

        P_g = sum over i in g, j in g of      exp(s_ij) / n_g
        R_g = sum over i in g, any j of       exp(s_ij) / n_g
        C_g = sum over any i, j in g of       exp(s_ij) / n_(group of i)
        mean over the groups g of  log(R_g + C_g) - log(P_g)

    The authors' code has one row for a video and several for its texts; here a video's row stands beside each of its
    texts, and counts ``1 / n_g``, so that equal rows are one. Positives stand in R_g and in C_g: the authors' code
    counts them twice in the denominator, their equation once.

    Unsaid by the paper, our choice: where the rows of one video differ (other moments of it) they count as one, by the
    mean of the exponentials (``test_mil_nce_is_the_twin_in_loops``).

    :param temperature: what similarities are divided by; 1 in the authors' code, whose rows are of any length.
    :param positives_twice: count positives twice in the denominator, as the code does, or once, as the equation.
    :raises UsageError: the temperature is not above 0.
    """
    s_vt = _similarities(text_bd, video_bd).T / _checked(temperature, "mil_nce")
    same_bb = _same(text_bd, groups_b)
    size_b = same_bb.sum(1).to(s_vt.dtype)
    s_vt = s_vt - size_b.log()[:, None]  # a video's rows together count as one
    # Sums over a group stand in each of its rows, so that no group is singled out and nothing waits for the device.
    positive_b = _over_group(_among(s_vt, same_bb, 1), same_bb)
    row_b = _over_group(s_vt.logsumexp(1), same_bb)
    column_b = _over_group((s_vt if positives_twice else s_vt.masked_fill(same_bb, -math.inf)).logsumexp(0), same_bb)
    loss_b = torch.logaddexp(row_b, column_b) - positive_b
    return (loss_b / size_b).sum() / (1 / size_b).sum()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "max_margin": max_margin,
    "hardest_negative": hardest_negative,
    "info_nce": info_nce,
    "mil_nce": mil_nce,
}


def _similarities(text_bd: Tensor, video_bd: Tensor) -> Tensor:
    """Products of every text (rows) with every video, in float32 or more whatever autocast says."""
    if text_bd.dim() != 2 or text_bd.shape != video_bd.shape:
        raise ValueError(
            f"a loss takes texts and videos (b, d); got {tuple(text_bd.shape)} and {tuple(video_bd.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(text_bd.dtype, video_bd.dtype), torch.float32)
    with torch.autocast(text_bd.device.type, enabled=False):
        return text_bd.to(dtype) @ video_bd.to(dtype).T


def _same(text_bd: Tensor, groups_b: Tensor) -> Tensor:
    if groups_b.shape != text_bd.shape[:1]:
        raise ValueError(f"a loss takes one group a pair; got {tuple(groups_b.shape)} for {len(text_bd)} pairs")
    return groups_b[:, None] == groups_b[None, :]


def _others(same_bb: Tensor) -> Tensor:
    """Where two different pairs of one video meet."""
    return same_bb & ~torch.eye(len(same_bb), dtype=torch.bool, device=same_bb.device)


def _among(s_bb: Tensor, kept_bb: Tensor, axis: int) -> Tensor:
    """log-sum-exp over an axis of what is kept."""
    return s_bb.masked_fill(~kept_bb, -math.inf).logsumexp(axis)


def _over_group(s_b: Tensor, same_bb: Tensor) -> Tensor:
    """log-sum-exp over the rows of each row's own group (b)."""
    return _among(s_b.expand(len(s_b), -1), same_bb, 1)


def _leaves_out(same_video: str) -> bool:
    if same_video not in ("negative", "left_out"):
        raise UsageError(unknown("same_video", same_video, ("negative", "left_out")))
    return same_video == "left_out"


def _checked(temperature: float, loss: str) -> float:
    if not 0.0 < temperature < math.inf:
        raise UsageError(f"{loss}: temperature is {temperature}; expected a number above 0")
    return temperature
