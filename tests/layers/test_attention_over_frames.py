"""Attention over frames against a twin in loops that pools features first, and a number worked by hand."""

import math

import numpy as np
import pytest
import torch

import naive
from ssan.errors import UsageError
from ssan.layers import AttentionOverFrames
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier

B, T, D, K = 2, 5, 7, 3


def test_scores_of_frames_in_weights_are_features_pooled_by_attention_and_then_classified() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(B, T, D, generator=generator, dtype=torch.float64)
    linear = torch.nn.Linear(D, K + 1).double()
    with torch.no_grad():
        found = AttentionOverFrames(K)(linear(features))
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    expected = naive.attention_pooling(features.numpy(), weight[-1], weight[:-1], bias[:-1])
    assert np.abs(found.numpy() - expected).max() < 1e-12


def test_a_frame_of_three_times_the_weight_by_hand() -> None:
    scores = torch.tensor([[[4.0, 0.0, math.log(3)], [0.0, 8.0, 0.0]]])
    assert torch.allclose(AttentionOverFrames(2)(scores), torch.tensor([[3.0, 2.0]]))


def test_without_a_query_it_is_the_mean_whatever_the_bias() -> None:
    scores = torch.randn(B, T, K + 1)
    scores[..., -1] = 2.5
    assert torch.allclose(AttentionOverFrames(K)(scores), scores[..., :-1].mean(dim=1), atol=1e-6)


def test_another_length_of_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="takes"):
        AttentionOverFrames(K)(torch.zeros(1, T, K))


def test_any_model_without_a_consensus_takes_it_and_one_with_its_own_does_not() -> None:
    model = build("ssan_tiny", K, consensus="attention")
    assert isinstance(model, Classifier)
    assert model.fc.out_features == K + 1
    assert model.class_rows == ("fc.",)
    assert model.eval()(torch.zeros(2, 3, 3, 16, 16)).shape == (2, K)
    with pytest.raises(UsageError, match="consensus of its own"):
        build("trn_tiny", K, consensus="attention")
    with pytest.raises(UsageError, match="unknown consensus 'atention'"):
        build("tsn_tiny", K, consensus="atention")
