"""TemporalRelation against a twin in loops, numbers worked by hand, its draws, and the number of frames it is for."""

import itertools
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import naive
from ssan.errors import UsageError
from ssan.layers import TemporalRelation, relation
from ssan.models.catalogue import build

# All sizes are different primes, so that no two axes can be mistaken for each other.
B, T, F, BOTTLENECK, K = 2, 5, 7, 3, 11


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.5)
    return module


def features(seed: int = 1, b: int = B, t: int = T, f: int = F) -> Tensor:
    return torch.randn(b, t, f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(t: int = T, num_relations: int = 3) -> nn.Module:
    module = TemporalRelation(K, t, num_features=F, bottleneck=BOTTLENECK, num_relations=num_relations)
    return randomised(module.double()).eval()


@pytest.mark.parametrize("t", [2, 3, 5])
@pytest.mark.parametrize("num_relations", [1, 3, 100])
def test_equals_the_loops(t: int, num_relations: int) -> None:
    module = related(t, num_relations)
    params = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    expected = torch.from_numpy(naive.relation(features(t=t).numpy(), params, num_relations=num_relations))
    torch.testing.assert_close(module(features(t=t)).detach(), expected, rtol=0, atol=1e-10)


def by_hand(num_relations: int) -> nn.Module:
    """Features, bottleneck and classes of length one; W_2 = (1, 10), W_3 = (1, 10, 100), W_4 = 0, h_d doubles."""
    module = TemporalRelation(1, 3, num_features=1, bottleneck=1, num_relations=num_relations).eval()
    with torch.no_grad():
        for fuse, score in zip(module.fuse, module.score, strict=True):
            fuse.weight.copy_(torch.tensor([10.0**place for place in range(fuse.in_features)]))
            fuse.bias.fill_(0)
            score.weight.fill_(2)
            score.bias.fill_(0)
    return module


def test_a_number_worked_by_hand() -> None:
    """Frames 1, 2, -3: relu leaves 1, 2, 0. Pairs: 1 + 20, 1 + 0, 2 + 0; the triple: 1 + 20 + 0. Twice 24 + 21 is 90.

    Of two pairs instead of three there are two thirds: twice 16 + 21 is 74.
    """
    frames = torch.tensor([[[1.0], [2.0], [-3.0]]])
    assert by_hand(3)(frames).item() == pytest.approx(90)
    assert by_hand(2)(frames).item() == pytest.approx(74)


def test_what_frames_are_fused_to_goes_through_a_relu_too() -> None:
    """Frames 1, 2, 3 with W_2 = (1, -1): pairs give -1, -2, -1, which end there."""
    module = by_hand(3)
    with torch.no_grad():
        module.fuse[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        module.fuse[1].weight.zero_()
    assert module(torch.tensor([[[1.0], [2.0], [3.0]]])).item() == 0
    assert module(torch.tensor([[[3.0], [2.0], [1.0]]])).item() == pytest.approx(2 * (1 + 2 + 1))


@pytest.mark.slow
def test_evaluation_is_what_the_draws_of_training_come_to_on_average() -> None:
    """Four frames, two relations a scale: all 720 orders of the six pairs with one of the four triples, by turns."""
    module, x = related(4, num_relations=2), features(t=4)
    expected = module(x)
    module.train()
    total = torch.zeros_like(expected)
    for number, pairs in enumerate(itertools.permutations(range(6))):
        triples = list(itertools.permutations(range(4)))[number % 24]
        drawn = {6: pairs, 4: triples, 1: (0,)}
        with mock.patch.object(torch, "randperm", lambda n, device, drawn=drawn: torch.tensor(drawn[n])):
            total = total + module(x)
    torch.testing.assert_close(total / 720, expected, rtol=0, atol=1e-10)


def test_evaluation_draws_nothing() -> None:
    module, x = related(), features()
    with torch.no_grad():
        state = torch.get_rng_state()
        first = module(x)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(5)
        assert torch.equal(module(x), first)


def test_training_draws_anew_each_time_from_the_generator_of_the_run() -> None:
    module, x = related().train(), features()
    with torch.no_grad():
        torch.manual_seed(3)
        scores = [module(x) for _ in range(8)]
        assert len({round(float(score.sum()), 9) for score in scores}) > 1
        torch.manual_seed(3)
        assert torch.equal(module(x), scores[0])


def test_training_sums_three_relations_a_scale_without_a_repetition() -> None:
    module = TemporalRelation(1, 8, num_features=1, bottleneck=1).train()
    seen: list[Tensor] = []
    whole = relation._mean_relation
    with (
        mock.patch.object(relation, "_mean_relation", lambda x, r, fuse: (seen.append(r), whole(x, r, fuse))[1]),
        torch.no_grad(),
    ):
        module(torch.ones(1, 8, 1))
    assert [tuple(drawn.shape) for drawn in seen] == [(3, d) for d in range(2, 8)] + [(1, 8)]
    for drawn in seen:
        assert len({tuple(row) for row in drawn.tolist()}) == len(drawn)
        assert (drawn.diff(dim=1) > 0).all()


def test_many_relations_are_looked_at_in_parts_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = related(), features()
    expected = module(x)
    monkeypatch.setattr(relation, "CHUNK", 3)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    module = related(3)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (features(t=3).requires_grad_(), *parameters))


def test_in_half_precision_it_stays_close_to_single() -> None:
    module = TemporalRelation(K, 8).eval()
    x = torch.rand(1, 8, 256) * 8
    with torch.no_grad():
        single = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = module(x)
        weights = module.bfloat16()(x.bfloat16())
    for other in (half, weights):
        assert other.dtype == torch.bfloat16
        assert (single - other.float()).abs().max() < 5e-2 * single.abs().max()


def test_in_half_precision_a_sum_over_thousands_of_relations_does_not_overflow() -> None:
    """Every relation of 13 frames of 100 comes to 100, and 1,716 of them to more than float16's 65,504.

    Three of each of eleven scales and the one of all frames score 34 times 100.
    """
    module = TemporalRelation(1, 13, num_features=1, bottleneck=1).eval()
    with torch.no_grad():
        for fuse, score in zip(module.fuse, module.score, strict=True):
            fuse.weight.fill_(1 / fuse.in_features)
            score.weight.fill_(1)
            fuse.bias.zero_()
            score.bias.zero_()
    assert module.half()(torch.full((1, 13, 1), 100.0).half()).item() == pytest.approx(3400, rel=1e-2)


@pytest.mark.parametrize("t", [2, 4, 6])
def test_a_clip_of_another_length_is_refused_with_both_numbers(t: int) -> None:
    message = rf"for the number of frames that it was trained on, 5; got {t} frames\. Give num_frames=5, or train one"
    with pytest.raises(UsageError, match=message):
        related()(features(t=t))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 1}, r"num_frames is 1; a relation needs 2, .* Give num_frames between 2 and 16"),
        ({"num_frames": 17}, r"num_frames is 17; a relation needs 2, and more than 16 have too many"),
        ({"num_frames": 3, "bottleneck": 0}, r"bottleneck is 0; it must be at least 1"),
        ({"num_frames": 3, "num_relations": 0}, r"num_relations is 0"),
        ({"num_frames": 3, "num_features": 0}, r"num_features is 0"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TemporalRelation(K, **options)


# In the classifier.


def test_the_classifier_gives_each_frame_as_many_features_as_the_relations_take() -> None:
    model = build("trn_tiny", K, num_frames=3).eval()
    assert model.fc.out_features == 256
    assert [layer.in_features for layer in model.consensus.fuse] == [512, 768]
    assert {layer.out_features for layer in model.consensus.fuse} == {256}
    clips = torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), model.consensus(model.frame_scores(clips)))
        assert model(clips).shape == (2, K)


def test_options_of_the_relations_are_set_as_a_layers_are() -> None:
    options = {"num_features": 5, "bottleneck": 7, "num_relations": 2}
    model = build("trn_tiny", K, num_frames=3, layer_options=options)
    assert model.fc.out_features == 5
    assert model.consensus.score[0].in_features == 7
    assert model.consensus.num_relations == 2
    with pytest.raises(UsageError, match=r"consensus relation: unknown option 'relations'.*num_relations"):
        build("trn_tiny", K, layer_options={"relations": 2})
    with pytest.raises(UsageError, match="trn_tiny has no layer between its frames, so places cannot be set"):
        build("trn_tiny", K, places={"every": 2})
