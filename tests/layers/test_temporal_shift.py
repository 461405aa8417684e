"""TemporalShift against a twin written in loops, numbers worked by hand, and what it may not do."""

import pytest
import torch
from torch import Tensor

import naive
from ssan.errors import UsageError
from ssan.layers import TemporalShift

# All sizes are different primes, so that no two axes can be mistaken for each other.
B, T, C, H, W = 2, 5, 17, 3, 7


def video(b: int = B, t: int = T, c: int = C, h: int = H, w: int = W) -> Tensor:
    return torch.randn(b, t, c, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("divisor", [2, 3, 8, 17])
@pytest.mark.parametrize("direction", ["both", "past"])
def test_equals_the_loops(divisor: int, direction: str) -> None:
    x = video()
    expected = torch.from_numpy(naive.temporal_shift(x.numpy(), divisor, direction))
    assert torch.equal(TemporalShift(C, divisor=divisor, direction=direction)(x), expected)


def test_moves_the_first_eighth_one_frame_back_the_second_one_on_and_leaves_the_rest() -> None:
    """Eight channels, three frames, one position: channel k of frame i holds 10 i + k + 1, so no entry is zero.

    Channel 0 shows the next frame (11, 21, nothing), channel 1 the previous one (nothing, 2, 12), the rest their own.
    """
    x = torch.tensor([[10.0 * i + k + 1 for k in range(8)] for i in range(3)]).view(1, 3, 8, 1, 1)
    assert TemporalShift(8)(x).view(3, 8).tolist() == [
        [11, 0, 3, 4, 5, 6, 7, 8],
        [21, 2, 13, 14, 15, 16, 17, 18],
        [0, 12, 23, 24, 25, 26, 27, 28],
    ]


def test_from_the_past_alone_the_first_eighth_shows_the_frame_before_and_the_rest_stays() -> None:
    """The same numbers: channel 0 shows the previous frame (nothing, 1, 11), the other seven their own."""
    x = torch.tensor([[10.0 * i + k + 1 for k in range(8)] for i in range(3)]).view(1, 3, 8, 1, 1)
    assert TemporalShift(8, direction="past")(x).view(3, 8).tolist() == [
        [0, 2, 3, 4, 5, 6, 7, 8],
        [1, 12, 13, 14, 15, 16, 17, 18],
        [11, 22, 23, 24, 25, 26, 27, 28],
    ]


@pytest.mark.parametrize("direction", ["both", "past"])
def test_its_own_backward_is_the_derivative_and_so_is_the_second(direction: str) -> None:
    layer = TemporalShift(5, divisor=2, direction=direction)
    x = video(1, 3, 5, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(lambda values: layer(values) ** 3, x)
    before = video(1, 1, 2, 2, 1).requires_grad_()
    if direction == "past":
        assert torch.autograd.gradcheck(layer, (x, before))


@pytest.mark.parametrize("direction", ["both", "past"])
def test_channels_last_memory_stays_so_and_in_the_gradient_too(direction: str) -> None:
    x = torch.randn(B * T, C, H, W).contiguous(memory_format=torch.channels_last).unflatten(0, (B, T)).requires_grad_()
    shifted = TemporalShift(C, direction=direction)(x)
    shifted.backward(torch.ones_like(shifted))
    assert x.grad is not None
    for tensor in (shifted, x.grad):
        assert tensor.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("cuts", [[1, 1, 1, 1, 1], [2, 3], [3, 1, 1], [5]])
def test_from_the_past_alone_a_clip_can_come_in_pieces_and_nothing_differs(cuts: list[int]) -> None:
    layer, x = TemporalShift(C, direction="past"), video()
    before, pieces = None, []
    for piece in x.split(cuts, dim=1):
        pieces.append(layer(piece, before))
        before = layer.carried(piece)
    assert torch.equal(torch.cat(pieces, dim=1), layer(x))


def test_what_is_carried_on_is_small_and_a_copy() -> None:
    layer, x = TemporalShift(C, direction="past"), video()
    carried = layer.carried(x)
    assert carried.shape == (B, 1, C // 8, H, W)
    x.zero_()
    assert (carried != 0).all()


def test_a_shift_in_both_directions_cannot_go_on_from_what_was_carried() -> None:
    layer = TemporalShift(C)
    with pytest.raises(ValueError, match="needs the frames to come"):
        layer(video(), layer.carried(video()))


def test_moves_an_eighth_each_way_unless_told_otherwise() -> None:
    moved = (TemporalShift(64)(torch.ones(1, 2, 64, 1, 1)) == 0).flatten(2).any(dim=1)
    assert moved.sum() == 16
    assert TemporalShift(64).num_shifted == 8
    assert TemporalShift(64, divisor=4).num_shifted == 16


def test_channels_that_do_not_divide_evenly_stay() -> None:
    x = video(c=23)
    y = TemporalShift(23)(x)
    assert torch.equal(y[:, :, 4:], x[:, :, 4:])
    assert not torch.equal(y[:, :, 3], x[:, :, 3])


def test_a_single_frame_loses_what_would_come_from_its_neighbours() -> None:
    x = video(t=1)
    y = TemporalShift(C)(x)
    assert (y[:, :, :4] == 0).all()
    assert torch.equal(y[:, :, 4:], x[:, :, 4:])


def test_entries_of_the_batch_never_mix() -> None:
    """A shift over joined axes (bt) would carry the last frame of one video into the first of the next."""
    x = video(b=3)
    together = TemporalShift(C)(x)
    for i in range(3):
        assert torch.equal(together[i : i + 1], TemporalShift(C)(x[i : i + 1]))


def test_one_shift_takes_any_number_of_frames() -> None:
    layer = TemporalShift(C)
    for t in (13, 2, 5, 1):
        assert torch.equal(layer(video(t=t)), torch.from_numpy(naive.temporal_shift(video(t=t).numpy(), 8)))


def test_the_input_is_left_as_it_was() -> None:
    x = video()
    before = x.clone()
    TemporalShift(C)(x).add_(1)
    assert torch.equal(x, before)


def test_has_no_weights() -> None:
    assert TemporalShift(C).state_dict() == {}


def test_the_gradient_goes_back_the_way_the_numbers_came() -> None:
    x = video(b=1, t=3, c=8, h=1, w=2).requires_grad_()
    assert torch.autograd.gradcheck(TemporalShift(8), (x,))
    # The first frame of channel 0 and the last frame of channel 1 went over the edge: nothing comes back to them.
    (grad,) = torch.autograd.grad(TemporalShift(8)(x).sum(), x)
    lost = {(i, k) for i in range(3) for k in range(8) if (grad[0, i, k] == 0).all()}
    assert lost == {(0, 0), (2, 1)}
    assert grad.sum() == 2 * (3 * 8 - 2)


@pytest.mark.parametrize("divisor", [1, 0, -8, 9])
def test_a_divisor_that_would_shift_all_or_nothing_is_refused(divisor: int) -> None:
    with pytest.raises(UsageError, match=rf"divisor is {divisor}; it must lie between 2 and the 8 channels"):
        TemporalShift(8, divisor=divisor)


def test_every_divisor_between_two_and_the_channels_is_taken() -> None:
    for divisor in range(2, 9):
        assert TemporalShift(8, divisor=divisor)(torch.ones(1, 2, 8, 1, 1)).shape == (1, 2, 8, 1, 1)


def test_a_batch_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(b, t, c, h, w\); got 4 axes"):
        TemporalShift(C)(torch.randn(2, C, H, W))


def test_its_description_names_divisor_and_direction() -> None:
    assert repr(TemporalShift(C, divisor=4)) == "TemporalShift(divisor=4, direction='both')"


def test_a_direction_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="direction is 'future'; it must be 'both' or 'past'"):
        TemporalShift(C, direction="future")
