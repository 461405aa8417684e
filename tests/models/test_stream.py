"""A network fed frame by frame scores each frame as in the whole clip, looks at none to come, and keeps little."""

import pytest
import torch
from torch import Tensor

from ssan.errors import UsageError
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.models.stream import FrameStream


def online(backbone: str = "tiny") -> Classifier:
    """One-directional TSM with scores of size 1, and BatchNorm that does something."""
    model = build(f"tsm_{backbone}", 5, layer_options={"direction": "past"})
    torch.nn.init.normal_(model.fc.weight)
    model.train()(clips(seed=9))
    return model


def clips(seed: int = 1, b: int = 2, t: int = 7) -> Tensor:
    return torch.randn(b, t, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def in_whole_numbers(model: Classifier) -> Classifier:
    """Weights of -1, 0 and 1 and BatchNorm that changes nothing: float64 then rounds nowhere, in whatever order."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() > 1:
                tensor.copy_(torch.randint(-1, 2, tensor.shape))
            elif tensor.is_floating_point():
                tensor.fill_(1 if name.endswith(("weight", "running_var")) else 0)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0
    return model.double()


def test_frame_by_frame_the_scores_are_those_of_the_whole_clip_to_the_last_digit() -> None:
    model, x = in_whole_numbers(online()), clips().mul(2).round().double()
    stream = FrameStream(model)
    streamed = torch.stack([stream(frame) for frame in x.unbind(1)], dim=1)
    with torch.no_grad():
        assert 1000 < streamed.abs().max() < 2**50
        assert torch.equal(streamed, model.frame_scores(x))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["tiny", "r18", "mobilenet_v2"])
def test_frame_by_frame_the_scores_are_those_of_the_whole_clip(backbone: str) -> None:
    """Up to rounding: a device may add up one frame's products in another order than those of several."""
    model, x = online(backbone).double(), clips().double()
    stream = FrameStream(model)
    streamed = torch.stack([stream(frame) for frame in x.unbind(1)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(streamed, model.frame_scores(x), rtol=0, atol=1e-12)
        torch.testing.assert_close(streamed.mean(dim=1), model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cuts", [[1, 2, 4], [3, 3, 1], [7]])
def test_frames_may_come_several_at_a_time(cuts: list[int]) -> None:
    model = online()
    stream = FrameStream(model)
    streamed = torch.cat([stream(piece) for piece in clips().split(cuts, dim=1)], dim=1)
    torch.testing.assert_close(streamed, model.frame_scores(clips()).detach(), rtol=0, atol=1e-5)


def test_frames_of_bytes_are_normalised_as_clips_are() -> None:
    model = online()
    pixels = torch.randint(0, 256, (1, 3, 3, 32, 32), dtype=torch.uint8)
    stream = FrameStream(model)
    streamed = torch.stack([stream(frame) for frame in pixels.unbind(1)], dim=1)
    torch.testing.assert_close(streamed, model.frame_scores(pixels).detach(), rtol=0, atol=1e-5)


def test_a_frame_is_scored_by_what_came_before_it() -> None:
    stream = FrameStream(online())
    first, second = clips().unbind(1)[:2]
    alone = stream(second)
    stream.reset()
    stream(first)
    assert not torch.allclose(stream(second), alone)


def test_a_new_video_begins_after_a_reset() -> None:
    stream = FrameStream(online())
    first = [stream(frame) for frame in clips().unbind(1)]
    stream.reset()
    again = [stream(frame) for frame in clips().unbind(1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    stream.reset()
    assert stream(torch.randn(1, 3, 48, 48)).shape == (1, 5)


def test_a_video_of_another_size_without_a_reset_is_refused() -> None:
    stream = FrameStream(online())
    stream(clips(b=2)[:, 0])
    with pytest.raises(UsageError, match=r"another size or another number of videos\. A new video needs reset\(\)"):
        stream(clips(b=1)[:, 0])


def test_the_model_can_be_used_on_whole_clips_in_between() -> None:
    model = online().eval()
    with torch.no_grad():
        expected = model(clips(seed=4))
        stream = FrameStream(model)
        streamed = []
        for frame in clips().unbind(1):
            streamed.append(stream(frame))
            assert torch.equal(model(clips(seed=4)), expected)
        other = FrameStream(model)
        assert all(torch.equal(other(f), s) for f, s in zip(clips().unbind(1), streamed, strict=True))


def test_what_is_kept_does_not_grow_with_the_video() -> None:
    stream = FrameStream(online())
    sizes = []
    for frame in clips().unbind(1):
        stream(frame)
        sizes.append(sum(kept.untyped_storage().nbytes() for kept in stream._before.values()))
    # The moved eighths before the three blocks of `tiny`: 2 channels of 8 x 8, 8 of 8 x 8, 16 of 4 x 4; two videos.
    assert sizes == [2 * 4 * (2 * 64 + 8 * 64 + 16 * 16)] * 7
    assert not any(kept.requires_grad for kept in stream._before.values())


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("tsm_tiny", "TemporalShift"),
        ("ssan_tiny", "SeparableSelfAttention"),
        ("nl1d_tiny", "NonLocal"),
        ("nl2d1d_tiny", "NonLocalPair"),
        ("a2_tiny", "DoubleAttention"),
        ("trn_tiny", "TemporalRelation"),
    ],
)
def test_a_model_that_needs_frames_to_come_is_refused(name: str, word: str) -> None:
    with pytest.raises(UsageError, match=rf"^{word} looks at frames that are still to come.*layer\.direction=past"):
        FrameStream(build(name, 5))


def test_a_network_without_layers_between_frames_can_be_fed_too() -> None:
    model = build("tsn_tiny", 5).double()
    stream, x = FrameStream(model), clips().double()
    streamed = torch.stack([stream(frame) for frame in x.unbind(1)], dim=1)
    torch.testing.assert_close(streamed, model.frame_scores(x).detach(), rtol=0, atol=1e-12)


def test_evaluation_statistics_are_used() -> None:
    model = online().train()
    stream = FrameStream(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream(clips()[:, 0])
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
