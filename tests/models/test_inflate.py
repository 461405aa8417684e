"""Filters inflated into time: a constant video gives the picture's response, but where the filter sees padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssan.errors import UsageError
from ssan.models.inflate import HOWS, inflate, inflated_to


def filters(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def responses(how: str, length: int) -> tuple[Tensor, Tensor]:
    """Of a picture, (c, h, w), and of a video that repeats it 7 times, (c, 7, h, w), padded by zeros in time."""
    weight, picture = filters(5, 3, 3, 3), filters(1, 3, 11, 13)
    video = picture.unsqueeze(2).repeat(1, 1, 7, 1, 1)
    volume = F.conv3d(video, inflate(weight, length, how), padding=(length // 2, 1, 1))  # type: ignore[arg-type]
    return F.conv2d(picture, weight, padding=1)[0], volume[0]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_constant_video_gives_the_pictures_response_in_its_interior(how: str, length: int) -> None:
    picture, video = responses(how, length)
    for frame in range(length // 2, 7 - length // 2):
        torch.testing.assert_close(video[:, frame], picture, rtol=0, atol=1e-12)


def test_zero_padding_in_time_makes_the_ends_differ_by_the_share_of_the_filter_that_lies_outside() -> None:
    """Of 3 thirds of a filter one lies before the first frame, whose response is two thirds of the picture's."""
    picture, video = responses("mean", 3)
    for end in (0, -1):
        torch.testing.assert_close(video[:, end], picture * 2 / 3, rtol=0, atol=1e-12)
    assert (video[:, 0] - picture).abs().max() > 0.1
    picture, video = responses("mean", 5)
    torch.testing.assert_close(video[:, 1], picture * 4 / 5, rtol=0, atol=1e-12)


def test_at_the_centre_the_ends_are_as_the_rest() -> None:
    picture, video = responses("centre", 3)
    torch.testing.assert_close(video[:, 0], picture, rtol=0, atol=1e-12)


def test_a_filter_by_hand() -> None:
    weight = torch.tensor([[[[6.0, 12.0]]]])
    assert inflate(weight, 3).tolist() == [[[[[2.0, 4.0]], [[2.0, 4.0]], [[2.0, 4.0]]]]]
    assert inflate(weight, 3, "centre").tolist() == [[[[[0.0, 0.0]], [[6.0, 12.0]], [[0.0, 0.0]]]]]


def test_the_centre_of_an_even_length() -> None:
    assert inflate(torch.ones(1, 1, 1, 1), 2, "centre").flatten().tolist() == [0, 1]
    assert inflate(torch.ones(1, 1, 1, 1), 4, "centre").flatten().tolist() == [0, 0, 1, 0]


def test_of_a_state_dict_the_filters_that_fit_are_inflated_and_nothing_else() -> None:
    state = {"a": filters(2, 3, 3, 3), "b": filters(2, 3, 1, 1), "c": filters(4), "d": filters(2, 3, 5, 5)}
    shapes = {"a": torch.Size((2, 3, 3, 3, 3)), "c": torch.Size((4,)), "d": torch.Size((2, 3, 3, 7, 7))}
    found = inflated_to(state, shapes)
    assert torch.equal(found.pop("a"), inflate(state["a"], 3))
    assert all(found[name] is state[name] for name in ("b", "c", "d"))
    assert len(found) == 3


def test_what_cannot_be_inflated_says_so() -> None:
    with pytest.raises(UsageError, match=r"shape \(2, 3\) are to be 3 frames long"):
        inflate(torch.ones(2, 3), 3)
    with pytest.raises(UsageError, match="0 frames long"):
        inflate(torch.ones(1, 1, 1, 1), 0)
    with pytest.raises(UsageError, match=r"way to inflate 'center'.*centre"):
        inflate(torch.ones(1, 1, 1, 1), 3, "center")  # type: ignore[arg-type]
