"""The joint space: gated embedding units and attention over time against twins in loops and numbers worked by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

import naive
from blocks import randomised
from ssan.errors import UsageError
from ssan.retrieval.embedding import AttentionOverTime, GatedEmbeddingUnit, JointSpace
from ssan.retrieval.towers import MaxOverWords, word_embedding


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def params_of(module: nn.Module) -> dict[str, object]:
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def test_a_gated_embedding_unit_equals_the_loops() -> None:
    unit = randomised(GatedEmbeddingUnit(7, 5).double())
    x_bf = drawn(3, 7)
    expected = torch.from_numpy(naive.gated_embedding(x_bf.numpy(), params_of(unit)))
    torch.testing.assert_close(unit(x_bf).detach(), expected, rtol=0, atol=1e-12)


def test_a_gated_embedding_worked_by_hand() -> None:
    """x = 2, y = (2, 3) by W = (1, 1) and b = (0, 1); V y + c = (ln 3, 0) lets 3/4 and 1/2 through.

    z = (3/2, 3/2), and of length 1 both are 1 / sqrt 2. Without the gate they would be 2 and 3 over sqrt 13.
    """
    unit = GatedEmbeddingUnit(1, 2).double()
    with torch.no_grad():
        unit.fc.weight.fill_(1.0)
        unit.fc.bias.copy_(torch.tensor([0.0, 1.0]))
        unit.gate.weight.copy_(torch.tensor([[0.5, 0.0], [0.0, -1.0]]))
        unit.gate.bias.copy_(torch.tensor([math.log(3) - 1, 3.0], dtype=torch.float64))
    assert unit(torch.tensor([[2.0]], dtype=torch.float64)).tolist() == [pytest.approx([0.5**0.5] * 2, abs=1e-7)]


def test_an_embedding_of_nothing_is_zero_and_has_finite_gradients() -> None:
    unit = GatedEmbeddingUnit(3, 2)
    nn.init.zeros_(unit.fc.bias)
    x_bf = torch.zeros(2, 3, requires_grad=True)
    out_bd = unit(x_bf)
    out_bd.sum().backward()
    assert torch.equal(out_bd, torch.zeros(2, 2))
    assert torch.isfinite(x_bf.grad).all()


def test_attention_over_time_equals_the_loops_and_does_not_see_what_comes_after_the_end() -> None:
    pool = randomised(AttentionOverTime(7).double())
    x_btf, num = drawn(3, 5, 7), [5, 2, 1]
    expected = torch.from_numpy(naive.attention_over_time(x_btf.numpy(), num, pool.score.weight[0].detach().numpy()))
    for beyond in (0.0, 1e30, math.nan):
        for row, n in zip(x_btf, num, strict=True):
            row[n:] = beyond
        torch.testing.assert_close(pool(x_btf, torch.tensor(num)).detach(), expected, rtol=0, atol=1e-12)


def test_attention_over_time_worked_by_hand() -> None:
    """Scores 0 and ln 3 weigh 1/4 and 3/4: of (4, 0) and (0, 4) that makes (1, 3), over sqrt 10."""
    pool = AttentionOverTime(2).double()
    with torch.no_grad():
        pool.score.weight.copy_(torch.tensor([[0.0, math.log(3) / 4]], dtype=torch.float64))
    x_btf = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)
    assert pool(x_btf, torch.tensor([2])).tolist() == [pytest.approx([10**-0.5, 3 * 10**-0.5], abs=1e-12)]


def test_attention_over_time_starts_from_the_mean() -> None:
    x_btf = drawn(2, 3, 5)
    pool = AttentionOverTime(5).double()
    expected = nn.functional.normalize(x_btf.mean(dim=1))
    torch.testing.assert_close(pool(x_btf, torch.tensor([3, 3])), expected)
    (pool(x_btf, torch.tensor([3, 3])) * drawn(2, 5, seed=2)).sum().backward()
    assert pool.score.weight.grad.abs().min() > 0


def test_a_video_without_vectors_gives_zero_and_not_nan() -> None:
    pool = randomised(AttentionOverTime(5))
    x_btf = torch.full((2, 3, 5), math.nan)
    x_btf[1, 0] = 1
    out_bf = pool(x_btf, torch.tensor([0, 1]))
    out_bf.sum().backward()
    assert torch.equal(out_bf[0], torch.zeros(5))
    assert torch.isfinite(pool.score.weight.grad).all()


def space(aggregate: str, dims: tuple[int, ...] = (3, 5)) -> JointSpace:
    tower = MaxOverWords(word_embedding(num_rows=13, word_dim=7), num_features=11)
    return randomised(JointSpace(tower, dims, 2, aggregate).double())


WORDS = torch.tensor([[1, 5, 12], [4, 0, 0]])


@pytest.mark.parametrize("aggregate", ["max", "mean", "attention"])
def test_pairs_become_vectors_of_length_1_and_every_weight_has_a_gradient(aggregate: str) -> None:
    model = space(aggregate)
    features = drawn(2, 8)
    streams = [(drawn(2, 3, 3), torch.tensor([3, 2])), (drawn(2, 4, 5), torch.tensor([1, 4]))]
    text_bd, video_bd = model((WORDS, streams if aggregate == "attention" else features))
    assert text_bd.shape == video_bd.shape == (2, 2)
    torch.testing.assert_close(torch.cat([text_bd, video_bd]).norm(dim=1), torch.ones(4, dtype=torch.float64))
    (text_bd * drawn(2, 2) + video_bd * drawn(2, 2, seed=3)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_two_sides_of_a_joint_space_equal_the_loops() -> None:
    model = space("attention")
    params = params_of(model)
    table = params["tower.words.weight"]
    of_words = naive.max_over_words(table[WORDS.numpy()], params["tower.fc.weight"], params["tower.fc.bias"])
    streams = [(drawn(2, 3, 3), torch.tensor([3, 2])), (drawn(2, 4, 5), torch.tensor([1, 4]))]
    of_streams = [
        naive.attention_over_time(x.numpy(), num.tolist(), params[f"over_time.{i}.score.weight"][0])
        for i, (x, num) in enumerate(streams)
    ]
    joined = torch.cat([torch.from_numpy(part) for part in of_streams], dim=1).numpy()
    sides = {"text": of_words, "video": joined}
    for (side, x), found in zip(sides.items(), model((WORDS, streams)), strict=True):
        own = {name: params[f"{side}.{name}"] for name in ("fc.weight", "fc.bias", "gate.weight", "gate.bias")}
        expected = torch.from_numpy(naive.gated_embedding(x, own))
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-12)


def test_captions_and_videos_of_a_batch_never_mix() -> None:
    model = space("max")
    text_bd, video_bd = model((WORDS, drawn(2, 8)))
    alone = model((WORDS[1:], drawn(2, 8)[1:]))
    torch.testing.assert_close(text_bd[1:], alone[0])
    torch.testing.assert_close(video_bd[1:], alone[1])


def test_what_is_no_joint_space_is_refused() -> None:
    tower = MaxOverWords(word_embedding(num_rows=3, word_dim=2))
    with pytest.raises(UsageError, match="unknown aggregate 'median'"):
        JointSpace(tower, [2], 2, "median")
    with pytest.raises(UsageError, match=r"of 2 for features of \[\]"):
        JointSpace(tower, [], 2)


def test_features_of_another_form_are_refused() -> None:
    stream = (drawn(2, 3, 3), torch.tensor([3, 2]))
    with pytest.raises(ValueError, match=r"max over \(3, 5\) does not take \(2, 7\)"):
        space("max").embed_video(drawn(2, 7))
    with pytest.raises(ValueError, match=r"attention over \(3, 5\) does not take \(2, 8\)"):
        space("attention").embed_video(drawn(2, 8))
    with pytest.raises(ValueError, match=r"attention over \(3, 5\) does not take a list of \[\(2, 3, 3\)\]"):
        space("attention").embed_video([stream])
    with pytest.raises(ValueError, match="max over"):
        space("max", (3,)).embed_video([stream])
