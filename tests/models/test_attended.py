"""What is shown as attention is what the block computes: checked against the block itself, taken apart from outside."""

import pytest
import torch

from ssan.errors import UsageError
from ssan.layers import SeparableSelfAttention
from ssan.models.attended import attended
from ssan.models.catalogue import build
from ssan.report.overlay import moving_positions, overlay


def test_rows_of_the_position_branch_gather_what_the_block_gathers() -> None:
    """The block's A at the queried position is its row of M_P times g; the row comes from `attended`."""
    torch.manual_seed(1)
    model = build("ssan_tiny", 3, layer_options={"channel_branch": False}).double().eval()
    clip = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    block = model.backbone.layer1[0].after_conv1
    assert isinstance(block, SeparableSelfAttention)
    values, gathered = [], []
    block.g.register_forward_hook(lambda m, i, out: values.append(out[0]))
    block.temporal.register_forward_pre_hook(lambda m, args: gathered.append(args[0][0]))
    queries = torch.tensor([[0.0, 0.0], [0.3, 0.9], [0.99, 0.5]], dtype=torch.float64)
    first = attended(model, clip, queries)[0]
    assert first.name == "backbone.layer1.0.after_conv1"
    assert first.positions is not None
    assert first.positions.shape == (3, 8, 8)
    for t, (y, x) in enumerate([(0, 0), (2, 7), (7, 4)]):
        own = first.positions[t].flatten() @ values[0][t]  # (p) @ (p, e)
        torch.testing.assert_close(own, gathered[0][t, y * 8 + x], rtol=0, atol=1e-10)


@pytest.mark.parametrize("embedding", ["split", "tied"])
def test_rows_over_frames_gather_what_the_block_gathers(embedding: str) -> None:
    torch.manual_seed(2)
    model = build("ssan_tiny", 3, layer_options={"temporal_embedding": embedding}).double().eval()
    clip = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    block = model.backbone.layer2[0].after_conv1
    values, gathered = [], []
    block.g.register_forward_hook(lambda m, i, out: values.append(out[0].flatten(1)))
    block.out.register_forward_pre_hook(lambda m, args: gathered.append(args[0][0].flatten(1)))
    second = attended(model, clip, torch.zeros(5, 2))[1]
    assert second.frames is not None
    torch.testing.assert_close(second.frames @ values[0], gathered[0], rtol=0, atol=1e-10)


def test_the_model_is_left_as_it_was() -> None:
    model = build("ssan_tiny", 3).train()
    attended(model, torch.zeros(2, 3, 32, 32), torch.zeros(2, 2))
    assert model.training
    assert not model.backbone.layer1[0].after_conv1._forward_pre_hooks


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="ssan_"):
        attended(build("tsm_tiny", 3), torch.zeros(2, 3, 32, 32), torch.zeros(2, 2))


def test_the_moving_place_is_where_the_square_is() -> None:
    frames = torch.full((3, 3, 40, 40), 90, dtype=torch.uint8)
    for t, left in enumerate((2, 15, 30)):
        frames[t, :, 20:26, left : left + 6] = 255
    queries = moving_positions(frames) * 40
    assert queries[:, 0].tolist() == pytest.approx([23, 23, 23], abs=3)
    assert queries[:, 1].tolist() == pytest.approx([5, 18, 33], abs=3)


def test_an_overlay_is_bright_where_the_map_is_high() -> None:
    frames = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    shown = overlay(frames, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    assert shown[0, 0, 0, 0] == 200
    assert shown[0, 0, 7, 7] == 40
    assert (overlay(frames, torch.ones(1, 2, 2), torch.tensor([[0.5, 0.5]]))[0, :, 4, 4] == 255).all()
